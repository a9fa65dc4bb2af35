"""Between shards and structures: rows of a shard as AiiDA structures, and results of structures as rows of a shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset import (
    Dataset,
    DatasetWriter,
    Method,
    ProcessRecord,
    PropertyInfo,
    Provenance,
    Quality,
    Status,
)
from matcompute.first_principles import starting_moments
from matcompute_kernels import Batch
from matcompute_kernels.elements import SYMBOLS
from matcompute_workflows.dft.magnetism import kinds_of
from matcompute_workflows.rows import IDENTITY, write_rows

if TYPE_CHECKING:
    from aiida.orm import StructureData

    from matcompute_workflows.dft.adapter import Found
    from matcompute_workflows.shard import ShardData

__all__ = ["Row", "structures_of", "write_found"]


def structures_of(
    pairs: np.ndarray, parents: Sequence[ShardData], magmoms: str
) -> tuple[list[StructureData], list[dict[str, float] | None]]:
    """Return rows of shards as structures, and the starting moment of each kind of each.

    Parameters
    ----------
    pairs
        i8[n, 2]: number of the parent and row in it.
    parents
        The shards.
    magmoms
        ``auto``: the moments of the shard's column ``magmom``, else by element; ``elements``; ``none``.
    """
    made: list[Any] = [None] * len(pairs)
    moments: list[dict[str, float] | None] = [None] * len(pairs)
    with ExitStack() as stack:
        for number, shard in enumerate(parents):
            at = np.flatnonzero(pairs[:, 0] == number)
            if not at.size:
                continue
            dataset = stack.enter_context(shard.dataset())
            rows = pairs[at, 1]
            batch = dataset.batch(rows)
            known = None
            if magmoms == "auto" and "magmom" in dataset.properties:
                known = np.asarray(dataset.column("magmom", rows), dtype=float)
            for k, place in enumerate(at.tolist()):
                sites = slice(int(batch.ptr[k]), int(batch.ptr[k + 1]))
                symbols = [SYMBOLS[z] for z in np.asarray(batch.numbers)[sites]]
                mine = None if known is None else known[sites]
                start = None if magmoms == "none" else starting_moments(symbols, mine)
                kinds, found = kinds_of(symbols, start)
                made[place] = _structure(batch, k, sites, symbols, kinds)
                moments[place] = found or None
    return made, moments


def _structure(
    batch: Batch, k: int, sites: slice, symbols: Sequence[str], kinds: Sequence[str]
) -> StructureData:
    from aiida.orm import StructureData
    from aiida.orm.nodes.data.structure import Kind, Site
    from ase.data import atomic_masses, atomic_numbers

    structure = StructureData(
        cell=np.asarray(batch.cell[k], dtype=float).tolist(), pbc=[bool(x) for x in batch.pbc[k]]
    )
    for name, symbol in dict(zip(kinds, symbols, strict=True)).items():
        structure.append_kind(
            Kind(symbols=symbol, weights=1.0, mass=float(atomic_masses[atomic_numbers[symbol]]), name=name)
        )
    for kind, position in zip(kinds, np.asarray(batch.positions[sites], dtype=float).tolist(), strict=True):
        structure.append_site(Site(kind_name=kind, position=position))
    return structure


class Row:
    """What is written for one structure: results, how it ended, and what it cost."""

    def __init__(self, found: Found, status: int, message: str, attempt: int, core_s: float) -> None:
        self.found, self.status, self.message = found, int(status), message
        self.attempt, self.core_s = attempt, core_s


def write_found(
    pairs: np.ndarray,
    parents: Sequence[ShardData],
    rows: Sequence[Row],
    infos: Sequence[PropertyInfo],
    method: Method,
    path: Path,
    *,
    relaxed: bool,
) -> None:
    """Write the result shard of some structures: same entries, final structures, results, reasons.

    Parameters
    ----------
    pairs, parents
        Where the structures came from, in the order of ``rows``.
    rows
        One a structure.
    infos
        Columns of the task.
    method
        How they were computed.
    path
        The shard.
    relaxed
        Whether the task moves atoms.
    """
    before = path.with_suffix(".rows.h5")
    write_rows(pairs, parents, before)
    with Dataset(before) as source, DatasetWriter(path, source.metadata) as writer:
        for info in infos:
            writer.declare(info)
        for item in source.sources:
            writer.add_source(item)
        number = writer.add_method(method)
        batch = _final(source.batch(), rows)
        makers = {uuid: None for row in rows for uuid in row.found.makers.values() if uuid}
        index = {uuid: k for k, uuid in enumerate(makers)}
        writer.set_provenance(Provenance(tuple(ProcessRecord(uuid=uuid) for uuid in makers)))
        results, site_results, status, process = _columns(infos, rows, batch, index)
        quality = np.asarray(source.entry_column("quality")).astype("u4")
        entry: dict[str, Any] = {name: source.entry_column(name) for name in IDENTITY if name != "quality"}
        writer.append(
            batch,
            ids=source.ids,
            results=results,
            site_results=site_results,
            status=status,
            process=process,
            entry={
                **entry,
                "source_index": source.entry_column("source_index"),
                "quality": _quality(quality, np.array([row.status for row in rows]), relaxed),
                "message": [row.message for row in rows],
                "attempt": np.array([row.attempt for row in rows], dtype="u1"),
                "method_index": np.full(len(rows), number, dtype="i4"),
            },
        )
    before.unlink()


def _final(batch: Batch, rows: Sequence[Row]) -> Batch:
    positions, cell = np.array(batch.positions), np.array(batch.cell)
    for k, row in enumerate(rows):
        if row.found.positions is not None and row.found.cell is not None:
            positions[batch.ptr[k] : batch.ptr[k + 1]] = row.found.positions
            cell[k] = row.found.cell
    return Batch(batch.numbers, positions, cell, batch.pbc, batch.ptr)


def _columns(
    infos: Sequence[PropertyInfo], rows: Sequence[Row], batch: Batch, index: Mapping[str, int]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    results: dict[str, Any] = {}
    site_results: dict[str, Any] = {}
    status: dict[str, Any] = {}
    process: dict[str, Any] = {}
    for info in infos:
        of_site = info.per == "site"
        length = len(batch.numbers) if of_site else len(rows)
        data = np.full((length, *info.shape), info.fill, dtype=info.dtype)
        (site_results if of_site else results)[info.name] = data
        flags, made = np.empty(len(rows), dtype="u1"), np.full(len(rows), -1, dtype="i4")
        for k, row in enumerate(rows):
            found = row.found
            value = (
                row.core_s
                if info.name == "cpu_time"
                else (found.site_values if of_site else found.values).get(info.name)
            )
            flags[k] = _flag(row.status, info.name, value)
            if value is None:
                continue
            data[slice(batch.ptr[k], batch.ptr[k + 1]) if of_site else k] = value
            made[k] = index.get(found.makers.get(info.name, found.makers.get("", "")), -1)
        status[info.name], process[info.name] = flags, made
    return results, site_results, status, process


def _flag(status: int, name: str, value: Any) -> int:
    if value is None or not np.all(np.isfinite(value)):
        # Computed, but the code does not give this quantity here (moments of a structure that is not magnetic).
        return int(Status.NOT_ATTEMPTED) if status == Status.OK else status
    if name == "cpu_time" or not Status(status).keeps_value:
        # Valid on its own although the task failed: the energies of a fit that failed.
        return int(Status.OK)
    return status


def _quality(quality: np.ndarray, status: np.ndarray, relaxed: bool) -> np.ndarray:
    ok = status == int(Status.OK)
    bits = quality & ~np.uint32(Quality.CONVERGED | Quality.FAILED)
    bits = bits | np.where(ok, np.uint32(Quality.CONVERGED), np.uint32(Quality.FAILED))
    return np.asarray(np.where(ok & relaxed, bits | np.uint32(Quality.RELAXED), bits), dtype="u4")

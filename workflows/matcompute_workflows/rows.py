"""Rows of shards into a new shard; nothing here knows AiiDA beyond :class:`ShardData`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from matcompute.dataset import PROPERTIES, Dataset, DatasetWriter, Status
from matcompute.dataset.descriptors import descriptor_status, read_descriptor, write_descriptor
from matcompute.dataset.errors import DatasetError
from matcompute.dataset.rows import spans
from matcompute_kernels import Batch
from matcompute_workflows.shard import ShardData

__all__ = ["IDENTITY", "natural_order", "write_lost", "write_rows"]

#: Columns of ``/entries`` that follow a structure from shard to shard.
IDENTITY = ("source_line", "node_uuid", "process_uuid", "quality", "last_modified")
#: Entries whose descriptors are copied at once.
_BLOCK = 1024
_NUMBER = re.compile(r"(\d+)")


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort names with their numbers by value: ``b2`` before ``b10``."""
    return sorted(names, key=lambda name: [int(p) if p.isdigit() else p for p in _NUMBER.split(name)])


def write_rows(pairs: np.ndarray, parents: Sequence[ShardData], path: Path) -> None:
    """Write structures of several shards, in the given order, with the magnetic moments that were found for them.

    Parameters
    ----------
    pairs
        i8[n, 2]: number of the parent and row in it.
    parents
        The shards.
    path
        The shard to write.

    Raises
    ------
    DatasetError
        If a parent or a row does not exist.
    """
    if pairs.size and (pairs[:, 0].min() < 0 or pairs[:, 0].max() >= len(parents)):
        raise DatasetError(f"rows name parent {int(pairs[:, 0].max())}, there are {len(parents)} parents")
    with ExitStack() as stack:
        datasets = [stack.enter_context(shard.dataset()) for shard in parents]
        metadata = datasets[0].metadata
        with DatasetWriter(path, metadata) as writer:
            order: list[np.ndarray] = []
            blocks: list[Batch] = []
            columns: dict[str, list[np.ndarray]] = {}
            moments: list[np.ndarray] = []
            for number, dataset in enumerate(datasets):
                at = np.flatnonzero(pairs[:, 0] == number)
                if at.size == 0:
                    continue
                rows = pairs[at, 1]
                if rows.min() < 0 or rows.max() >= len(dataset):
                    raise DatasetError(f"parent {number} has {len(dataset)} rows, not row {int(rows.max())}")
                order.append(at)
                blocks.append(dataset.batch(rows))
                moments.append(_moments(dataset, rows, len(blocks[-1].numbers)))
                sources = np.array([writer.add_source(s) for s in dataset.sources] or [-1], dtype=np.int32)
                index = dataset.entry_column("source_index", rows)
                taken: dict[str, Any] = {
                    "id": dataset.entry_column("id", rows),
                    "structure_hash": dataset.entry_column("structure_hash", rows),
                    "source_index": np.where(index >= 0, sources[np.maximum(index, 0)], -1),
                    **{name: dataset.entry_column(name, rows) for name in IDENTITY},
                }
                for name, values in taken.items():
                    columns.setdefault(name, []).append(values)
            if not blocks:
                return
            back = np.argsort(np.concatenate(order), kind="stable")
            joined = {name: np.concatenate(values)[back] for name, values in columns.items()}
            batch = Batch.concatenate(blocks)
            magmom = np.concatenate(moments)[spans(batch.ptr[:-1][back], batch.n_sites[back])]
            found = bool(np.isfinite(magmom).any())
            if found:
                writer.declare(PROPERTIES["magmom"])
            writer.append(
                batch[back],
                ids=joined.pop("id"),
                structure_hash=joined.pop("structure_hash"),
                site_results={"magmom": magmom} if found else {},
                entry=joined,
            )


def _moments(dataset: Dataset, rows: np.ndarray, n_sites: int) -> np.ndarray:
    """Return the moments of some structures in μ_B, f8[n_sites]: where a first-principles stage may start from."""
    if "magmom" not in dataset.properties:
        return np.full(n_sites, np.nan)
    return np.asarray(dataset.column("magmom", rows), dtype=float)


def write_lost(source: Path, path: Path) -> None:
    """Copy a result shard; an entry of which nothing was attempted becomes lost in every column."""
    with Dataset(source) as dataset, DatasetWriter(path, dataset.metadata) as writer:
        names = dataset.properties
        for info in names.values():
            writer.declare(info)
        for row in dataset.sources:
            writer.add_source(row)
        for method in dataset.methods:
            writer.add_method(method)
        status = {name: dataset.status(name).copy() for name in names}
        untouched = np.ones(len(dataset), dtype=bool)
        for values in status.values():
            untouched &= values == Status.NOT_ATTEMPTED
        described = {name: descriptor_status(dataset, name).copy() for name in dataset.descriptors}
        for values in described.values():
            untouched &= values == Status.NOT_ATTEMPTED
        for values in (*status.values(), *described.values()):
            values[untouched] = Status.LOST
        message = np.where(untouched, "its batch was given up", dataset.entry_column("message"))
        entry: dict[str, Any] = {
            name: dataset.entry_column(name)
            for name in (*IDENTITY, "source_index", "method_index", "attempt")
        }
        writer.append(
            dataset.batch(),
            ids=dataset.ids,
            structure_hash=dataset.entry_column("structure_hash"),
            results={n: dataset.column(n) for n, info in names.items() if info.per == "entry"},
            site_results={n: dataset.column(n) for n, info in names.items() if info.per == "site"},
            status=status,
            entry={**entry, "message": message.tolist()},
        )
        for name, descriptor in dataset.descriptors.items():
            starts = range(0, max(len(dataset), 1), _BLOCK)
            parts: Any = (read_descriptor(dataset, name, entries=slice(a, a + _BLOCK)) for a in starts)
            write_descriptor(writer, descriptor, parts, status=described[name])

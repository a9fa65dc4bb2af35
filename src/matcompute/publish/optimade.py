"""``optimade.jsonl.gz``: the structures of a release as OPTIMADE JSON Lines, written entry by entry."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from matcompute.dataset import Dataset, Status
from matcompute.publish.facts import ReleaseFacts
from matcompute.publish.mappings import load_table, render
from matcompute.publish.mappings.tables import MappingError
from matcompute.times import exact
from matcompute_kernels.elements import SYMBOLS

__all__ = ["anonymous_formula", "structure_lines", "write_optimade"]

_BLOCK = 4096
_LABELS = [s.label for s in Status]
#: Key of a property definition that says where its value comes from.
_SOURCE = "x-matcompute-source"


def write_optimade(
    shards: Sequence[Path],
    out: Path,
    facts: ReleaseFacts,
    *,
    tables_dir: Path | None = None,
    block: int = _BLOCK,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the structures of a release with the values per entry; return how many there are.

    First the header line, then the entry info of ``structures`` with the property definitions, both from the
    mapping table ``optimade``, then one structure a line. Memory is bounded by one block. The same shards and facts
    give the same bytes.

    Parameters
    ----------
    shards
        Dataset files, in their order.
    out
        The file to write, compressed with gzip; it appears when complete.
    facts
        The release; its summary must be that of the same shards.
    tables_dir
        A node's own mapping tables.
    block
        Entries read at once.
    on_progress
        Called with (entries done, entries in all).

    Raises
    ------
    MappingError
        If the table cannot be used.
    """
    out = Path(out)
    part = out.with_name(f".{out.name}.writing")
    table = load_table("optimade", tables_dir)
    if "api_version" not in table.settings:
        raise MappingError(f"{table.path}: settings.api_version is missing")
    info = render("optimade", facts, tables_dir=tables_dir)
    release = f"{facts.dataset_id}/{facts.version}"
    header = {"x-optimade": {"meta": {"api_version": table.settings["api_version"]}}}
    with ExitStack() as stack:
        stack.callback(part.unlink, missing_ok=True)
        datasets = [stack.enter_context(Dataset(path)) for path in shards]
        total, done = sum(len(d) for d in datasets), 0
        # No name and no time in the gzip header: they would change the digest.
        with part.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as stream:
            stream.write(_line(header))
            stream.write(_line(info))
            for dataset in datasets:
                for start in range(0, len(dataset), block):
                    rows = slice(start, min(start + block, len(dataset)))
                    for entry in structure_lines(dataset, rows, info.get("properties", {}), release):
                        stream.write(_line(entry))
                    done += rows.stop - rows.start
                    if on_progress is not None:
                        on_progress(done, total)
        part.replace(out)
    return total


def structure_lines(
    dataset: Dataset, rows: slice, properties: dict[str, Any], release: str
) -> Iterator[dict[str, Any]]:
    """Yield some entries of a dataset as OPTIMADE structures.

    Parameters
    ----------
    dataset
        An open dataset.
    rows
        Which entries, a slice of step 1 within the file.
    properties
        Definitions of provider properties; those that name their source are written.
    release
        ``<dataset id>/<version>``: with the entry's id it makes the immutable id. (The UUIDs of the dataset are those
        of AiiDA nodes, which many entries share.)
    """
    batch = dataset.batch(rows)
    ids, times = dataset.entry_column("id", rows), dataset.entry_column("last_modified", rows)
    own = {name: _values(dataset, d[_SOURCE], rows) for name, d in properties.items() if _SOURCE in d}
    for k in range(rows.stop - rows.start):
        a, b = int(batch.ptr[k]), int(batch.ptr[k + 1])
        attributes: dict[str, Any] = {
            "immutable_id": f"{release}/{ids[k]}",
            "last_modified": exact(int(times[k])),
            **_composition(batch.numbers[a:b]),
            **_lattice(batch.cell[k], batch.pbc[k]),
            "cartesian_site_positions": batch.positions[a:b].tolist(),
            "nsites": b - a,
            "structure_features": [],
        }
        attributes |= {name: values[k] for name, values in own.items()}
        yield {"id": str(ids[k]), "type": "structures", "attributes": attributes}


def anonymous_formula(counts: Sequence[int]) -> str:
    """Return the anonymous formula of reduced counts: ``A3B`` for 1 and 3."""
    names = _anonymous_names(len(counts))
    return "".join(f"{n}{c if c > 1 else ''}" for n, c in zip(names, sorted(counts, reverse=True)))


def _anonymous_names(n: int) -> list[str]:
    """A … Z, Aa, Ba … Za, Ab … as OPTIMADE counts."""
    capitals = [chr(65 + k) for k in range(26)]
    return [capitals[k % 26] + ("" if k < 26 else chr(97 + k // 26 - 1)) for k in range(n)]


def _composition(numbers: np.ndarray) -> dict[str, Any]:
    symbols = [SYMBOLS[z] for z in numbers.tolist()]
    counts: dict[str, int] = {}
    for symbol in symbols:
        counts[symbol] = counts.get(symbol, 0) + 1
    elements = sorted(counts)
    reduced = [counts[e] // gcd(*counts.values()) for e in elements]
    formula = "".join(f"{e}{c if c > 1 else ''}" for e, c in zip(elements, reduced))
    return {
        "elements": elements,
        "nelements": len(elements),
        "elements_ratios": [counts[e] / len(symbols) for e in elements],
        "chemical_formula_descriptive": "".join(f"{e}{counts[e] if counts[e] > 1 else ''}" for e in elements),
        "chemical_formula_reduced": formula,
        "chemical_formula_anonymous": anonymous_formula(reduced),
        "species": [{"name": e, "chemical_symbols": [e], "concentration": [1.0]} for e in elements],
        "species_at_sites": symbols,
    }


def _lattice(cell: np.ndarray, pbc: np.ndarray) -> dict[str, Any]:
    periodic = pbc.astype(bool)
    # A direction without periodicity may have no vector, which OPTIMADE writes as nulls.
    vectors = [
        row.tolist() if along or (np.isfinite(row).all() and np.any(row != 0)) else [None] * 3
        for row, along in zip(cell, periodic)
    ]
    return {
        "dimension_types": periodic.astype(int).tolist(),
        "nperiodic_dimensions": int(periodic.sum()),
        "lattice_vectors": vectors if any(v[0] is not None for v in vectors) else None,
    }


def _values(dataset: Dataset, source: dict[str, str], rows: slice) -> list[Any]:
    n, name = rows.stop - rows.start, source["name"]
    if name not in dataset.properties:
        return [None if source["kind"] == "property" else Status.NOT_ATTEMPTED.label] * n
    status = dataset.status(name, rows)
    if source["kind"] == "status":
        return [_LABELS[s] for s in status.tolist()]
    kept = (status == Status.OK) | (status == Status.NOT_CONVERGED)
    return [_plain(v) if ok else None for v, ok in zip(dataset.column(name, rows).tolist(), kept.tolist())]


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: no value."""
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _line(item: dict[str, Any]) -> bytes:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"

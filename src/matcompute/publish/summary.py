"""What a release holds, in one dictionary: `summarize_release`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from math import inf, isnan
from pathlib import Path
from typing import Any

import numpy as np

from matcompute.dataset import Dataset, ProcessRecord, PropertyInfo, Quality, Status
from matcompute.publish.columns import elements_of, table_columns
from matcompute.times import utc_text

__all__ = ["SCHEMA", "summarize_release"]

SCHEMA = "matcompute.summary/v1"
_BLOCK = 65536


@dataclass
class _Range:
    """Smallest, largest and mean of a stream of numbers."""

    count: int = 0
    total: float = 0.0
    low: float = inf
    high: float = -inf

    def add(self, values: np.ndarray) -> None:
        if values.size:
            self.count += int(values.size)
            self.total += float(values.sum(dtype=float))
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))

    def to_json(self) -> dict[str, float]:
        if self.count == 0:
            return {}
        return {"min": self.low, "mean": self.total / self.count, "max": self.high}


@dataclass
class _Property:
    info: PropertyInfo
    statuses: Counter[str] = field(default_factory=Counter)
    range: _Range = field(default_factory=_Range)

    def add(self, dataset: Dataset, rows: slice) -> None:
        status = dataset.status(self.info.name, rows)
        counts = np.bincount(status, minlength=len(Status))
        self.statuses.update({s.label: int(counts[s]) for s in Status if counts[s]})
        if self.info.per == "entry" and not self.info.shape:
            values = dataset.column(self.info.name, rows)
            values = values[(status == Status.OK) | (status == Status.NOT_CONVERGED)]
            self.range.add(values[np.isfinite(values)])

    def to_json(self) -> dict[str, Any]:
        info = self.info
        return {
            "name": info.name,
            # OPTIMADE and others allow no hyphen, which the name of a stage may hold.
            "identifier": info.name.replace("-", "_"),
            "size": int(np.prod(info.shape)) if info.shape else 1,
            "long_name": info.long_name,
            "definition": info.definition,
            "units": info.units,
            "per": info.per,
            "dtype": info.dtype,
            "shape": list(info.shape),
            "statuses": dict(sorted(self.statuses.items())),
            "count": sum(self.statuses[s.label] for s in Status if s.keeps_value),
            **self.range.to_json(),
        }


def summarize_release(
    shards: Sequence[Path], *, block: int = _BLOCK, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Return counts, elements, ranges, units, statuses and origin of a release; JSON-able, in a fixed order.

    Memory is bounded by one block of rows; the ids, structures and values of all entries are never held together.

    Parameters
    ----------
    shards
        Dataset files, in their order.
    block
        Rows read at once.
    on_progress
        Called with (entries done, entries in all).

    Returns
    -------
    dict
        ``schema``, ``entries``, ``sites``, ``shards``, ``failed`` (entries that bear the quality flag ``failed``),
        ``elements`` (list of ``symbol``, ``entries``), ``chemical_systems`` (how many), ``n_sites`` (min, mean, max),
        ``last_modified`` (``min``, ``max``), ``quality``, ``properties`` (a list: name, units, definition, statuses,
        count, min, mean, max), ``columns`` (of ``summary.parquet``), ``selections``, ``methods``, ``sources``,
        ``processes``.

    Raises
    ------
    DatasetError
        If a shard cannot be read or contradicts another.
    """
    with ExitStack() as stack:
        datasets = [stack.enter_context(Dataset(path)) for path in shards]
        columns = table_columns(datasets)
        properties: dict[str, _Property] = {}
        elements: Counter[str] = Counter()
        quality: Counter[str] = Counter()
        systems: set[tuple[str, ...]] = set()
        sizes, times = _Range(), _Range()
        total, done = sum(len(d) for d in datasets), 0
        for dataset in datasets:
            for name, info in dataset.properties.items():
                properties.setdefault(name, _Property(info))
            for start in range(0, len(dataset), block):
                rows = slice(start, min(start + block, len(dataset)))
                for name in dataset.properties:
                    properties[name].add(dataset, rows)
                for of in elements_of(dataset, rows):
                    elements.update(of)
                    systems.add(of)
                sizes.add(dataset.entry_column("row_size", rows))
                times.add(dataset.entry_column("last_modified", rows))
                flags = dataset.entry_column("quality", rows)
                quality.update({str(q.name).lower(): int(((flags & q.value) != 0).sum()) for q in Quality})
                done += rows.stop - rows.start
                if on_progress is not None:
                    on_progress(done, total)
        return {
            "schema": SCHEMA,
            "entries": total,
            "sites": sum(d.n_sites for d in datasets),
            "shards": len(datasets),
            "failed": quality["failed"],
            "elements": [{"symbol": s, "entries": elements[s]} for s in sorted(elements)],
            "chemical_systems": len(systems),
            "n_sites": sizes.to_json(),
            "last_modified": {"min": _time(times.low), "max": _time(times.high)} if times.count else {},
            "quality": dict(sorted(quality.items())),
            "properties": [properties[name].to_json() for name in sorted(properties)],
            "columns": [c.to_json() for c in columns],
            "selections": _selections(datasets),
            "methods": _unique([_plain(asdict(m)) for d in datasets for m in d.methods]),
            "sources": _unique([asdict(s) for d in datasets for s in d.sources]),
            "processes": _processes(datasets),
        }


def _time(microseconds: float) -> str:
    return utc_text(microseconds / 1e6)


def _selections(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for dataset in datasets:
        for name, gate in dataset.selections.items():
            item = found.setdefault(name, {"name": name, "expression": gate.expression, "passed": 0})
            item["passed"] += int(gate.mask.sum())
    return list(found.values())


def _processes(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for dataset in datasets:
        for process in dataset.provenance.processes:
            found.setdefault(process.uuid, _process(process, dataset))
    return list(found.values())


def _process(process: ProcessRecord, dataset: Dataset) -> dict[str, Any]:
    at = process.method_index
    return {
        "uuid": process.uuid,
        "label": process.label,
        "type": process.type,
        # A program that ran on a computer gives raw data; a function of the workspace derives data from data.
        "part": "raw" if process.computer or process.code else "derived",
        "code": process.code,
        "code_version": process.code_version,
        "computer": process.computer,
        "model_sha256": process.model_sha256,
        "method": dataset.methods[at].name if 0 <= at < len(dataset.methods) else "",
        "created": _time(process.created) if process.created >= 0 else "",
        "inputs": sorted({node for _, node in process.inputs}),
        "outputs": sorted({node for _, node in process.outputs}),
    }


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN: a number that does not apply is null."""
    return {k: None if isinstance(v, float) and isnan(v) else v for k, v in item.items()}


def _unique(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    seen: dict[str, dict[str, Any]] = {}
    for item in items:
        seen.setdefault(repr(sorted(item.items(), key=lambda pair: pair[0])), item)
    return list(seen.values())

"""Join datasets: parallel output is one file a rank, and a campaign's shards become one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from matcompute.dataset.descriptor_merge import merge_descriptors
from matcompute.dataset.errors import DatasetError
from matcompute.dataset.h5io import MAX_ENTRIES
from matcompute.dataset.layout import ENTRY_COLUMNS
from matcompute.dataset.metadata import Metadata, Selection, highest_grade
from matcompute.dataset.provenance import Provenance
from matcompute.dataset.reader import Dataset
from matcompute.dataset.writer import DatasetWriter

__all__ = ["merge_datasets"]

_BLOCK = 16384
#: Columns that `DatasetWriter.append` makes itself.
_MADE = {"structure_hash", "cell", "pbc", "site_start", "row_size", "method_index", "source_index"}


def merge_datasets(
    inputs: Sequence[str | Path],
    out: str | Path,
    metadata: Metadata | None = None,
    *,
    duplicates: Literal["error", "first", "last"] = "error",
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the entries of several files, one after another, into a new one.

    Methods, sources, processes, descriptors and selections are joined and the rows that point to them follow. The
    inputs are real files, read in full: a part that is missing is an error, not a hole.

    Parameters
    ----------
    inputs
        Files to join, in this order.
    out
        The new file.
    metadata
        Its root attributes; those of the first input, with a new date and the highest grade, when not given.
    duplicates
        What to do when an id occurs again: raise, keep the first, or keep the last.
    overwrite
        Replace ``out`` if it is there.
    on_progress
        Called with (entries done, entries in all).

    Returns
    -------
    int
        Number of entries written.

    Raises
    ------
    DatasetError
        If an id occurs twice (with ``duplicates="error"``), units disagree, descriptors of one name have different
        columns, or there would be over 10⁶ entries.
    """
    if not inputs:
        raise DatasetError("nothing to merge")
    datasets: list[Dataset] = []
    try:
        for path in inputs:
            datasets.append(Dataset(path))  # noqa: PERF401 (those opened so far must be closed if one fails)
        keep = _kept(datasets, duplicates)
        total = int(sum(k.shape[0] for k in keep))
        if total > MAX_ENTRIES:
            raise DatasetError(
                f"{out}: {total:,} entries, a file holds at most {MAX_ENTRIES:,}", hint="merge fewer shards"
            )
        grades = [d.metadata.grade for d in datasets]
        if metadata is None:
            fresh = Metadata()
            metadata = replace(datasets[0].metadata, created=fresh.created, software=fresh.software)
        metadata = replace(metadata, grade=highest_grade([*grades, metadata.grade]))
        with DatasetWriter(out, metadata, overwrite=overwrite) as writer:
            _declare(writer, datasets)
            methods = [np.array([writer.add_method(m) for m in d.methods] or [0]) for d in datasets]
            sources = [np.array([writer.add_source(s) for s in d.sources] or [0]) for d in datasets]
            provenance, processes = Provenance.concatenate([d.provenance for d in datasets], methods)
            writer.set_provenance(provenance)
            done = 0
            for dataset, rows, *maps in zip(datasets, keep, methods, sources, processes):
                for start in range(0, rows.shape[0], _BLOCK):
                    _copy(writer, dataset, rows[start : start + _BLOCK], *maps)
                    done += min(_BLOCK, rows.shape[0] - start)
                    if on_progress is not None:
                        on_progress(done, total)
            merge_descriptors(writer, datasets, keep, processes)
            for selection in _selections(datasets, keep, processes):
                writer.add_selection(selection)
        return total
    finally:
        for dataset in datasets:
            dataset.close()


def _kept(datasets: Sequence[Dataset], duplicates: str) -> list[np.ndarray]:
    """Return the rows of each dataset that go into the new file."""
    every = [np.arange(len(d)) for d in datasets]
    if duplicates == "error":  # the writer finds them
        return every
    width = max(d.raw_ids.dtype.itemsize for d in datasets)
    ids = np.concatenate([d.raw_ids.astype(f"S{width}") for d in datasets])
    if duplicates == "last":
        _, first = np.unique(ids[::-1], return_index=True)
        first = ids.shape[0] - 1 - first
    else:
        _, first = np.unique(ids, return_index=True)
    mask = np.zeros(ids.shape[0], dtype=bool)
    mask[first] = True
    ends = np.cumsum([len(d) for d in datasets])
    return [np.flatnonzero(mask[end - len(d) : end]) for d, end in zip(datasets, ends)]


def _declare(writer: DatasetWriter, datasets: Sequence[Dataset]) -> None:
    units: dict[str, tuple[str, Path]] = {}
    for dataset in datasets:
        for info in dataset.properties.values():
            known, where = units.setdefault(info.name, (info.units, dataset.path))
            if known != info.units:
                raise DatasetError(
                    f"property '{info.name}' is in {known} in {where} and in {info.units} in {dataset.path}",
                    hint="convert one of them first",
                )
            writer.declare(info)


def _copy(
    writer: DatasetWriter,
    dataset: Dataset,
    rows: np.ndarray,
    methods: np.ndarray,
    sources: np.ndarray,
    processes: np.ndarray,
) -> None:
    chosen: Any = slice(int(rows[0]), int(rows[-1]) + 1) if rows[-1] - rows[0] + 1 == rows.shape[0] else rows
    entry: dict[str, Any] = {
        name: dataset.entry_column(name, chosen) for name in ENTRY_COLUMNS if name not in _MADE
    }
    entry["method_index"] = _mapped(dataset.entry_column("method_index", chosen), methods)
    entry["source_index"] = _mapped(dataset.entry_column("source_index", chosen), sources)
    for name in ("label", "message"):
        entry[name] = dataset.entry_column(name, chosen).tolist()
    names = dataset.properties
    writer.append(
        dataset.batch(chosen),
        ids=dataset.entry_column("id", chosen),
        structure_hash=dataset.entry_column("structure_hash", chosen),
        results={n: dataset.column(n, chosen) for n, info in names.items() if info.per == "entry"},
        site_results={n: dataset.column(n, chosen) for n, info in names.items() if info.per == "site"},
        status={n: dataset.status(n, chosen) for n in names},
        process={n: _mapped(dataset.process(n, chosen), processes) for n in names},
        entry=entry,
    )


def _mapped(index: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return new row numbers; -1 stays -1."""
    if new.shape[0] == 0:
        return np.full_like(index, -1)
    return np.where(index >= 0, new[np.maximum(index, 0)], -1)


def _selections(
    datasets: Sequence[Dataset], keep: Sequence[np.ndarray], processes: Sequence[np.ndarray]
) -> list[Selection]:
    names = {name: selection for dataset in datasets for name, selection in dataset.selections.items()}
    joined = []
    for name, known in names.items():
        masks = [
            d.selections[name].mask[rows] if name in d.selections else np.zeros(rows.shape[0], dtype=bool)
            for d, rows in zip(datasets, keep)
        ]
        rows = [
            int(process[row])
            for d, process in zip(datasets, processes)
            if name in d.selections
            for row in d.selections[name].processes
        ]
        decided = tuple(dict.fromkeys(rows))
        joined.append(Selection(name, np.concatenate(masks), known.expression, known.inputs, decided))
    return joined

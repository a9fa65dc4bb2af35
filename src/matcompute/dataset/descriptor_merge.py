"""Descriptors of several files, one after another, in a new one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from matcompute.dataset.descriptors import (
    BlockSparse,
    DescriptorInfo,
    descriptor_process,
    descriptor_status,
    read_descriptor,
    write_descriptor,
)
from matcompute.dataset.errors import DatasetError
from matcompute.dataset.reader import Dataset
from matcompute.dataset.status import Status
from matcompute.dataset.writer import DatasetWriter

__all__ = ["merge_descriptors"]

#: Bytes of dense rows that are read at once.
_BYTES = 64e6


def merge_descriptors(
    writer: DatasetWriter,
    datasets: Sequence[Dataset],
    keep: Sequence[np.ndarray],
    processes: Sequence[np.ndarray],
) -> None:
    """Write the descriptors of some files; entries of a file that lacks one have the status ``not_attempted``.

    Parameters
    ----------
    writer
        The new file; all entries are appended already.
    datasets, keep
        Files, and the rows of each that were taken.
    processes
        New row of each process of a file.

    Raises
    ------
    DatasetError
        If descriptors of one name have different columns.
    """
    owners: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        for name in dataset.descriptors:
            owners.setdefault(name, []).append(dataset)
    for name, having in owners.items():
        info = having[0].descriptors[name]
        for dataset in having[1:]:
            wrong = info.differs_from(dataset.descriptors[name])
            if wrong is not None:
                raise DatasetError(
                    f"descriptor '{name}' of {having[0].path} and {dataset.path}: {wrong}",
                    hint="describe both files in the same way (the same `species`), or under different names",
                )
        widest = max((d.descriptors[name].dtype for d in having), key=lambda dtype: np.dtype(dtype).itemsize)
        info = replace(info, dtype=widest)
        status, process = [], []
        for dataset, rows, new in zip(datasets, keep, processes):
            if name not in dataset.descriptors:
                status.append(np.full(len(rows), int(Status.NOT_ATTEMPTED), dtype="u1"))
                process.append(np.full(len(rows), -1, dtype="i4"))
                continue
            status.append(descriptor_status(dataset, name, rows).astype("u1"))
            old = descriptor_process(dataset, name, rows)
            known = (old >= 0) & (len(new) > 0)
            process.append(np.where(known, new[np.where(known, old, 0)], -1).astype("i4"))
        parts = _parts(name, info, datasets, keep, having[0])
        write_descriptor(
            writer,
            info,
            parts,  # type: ignore[arg-type]
            status=np.concatenate(status),
            process=np.concatenate(process),
        )


def _parts(
    name: str,
    info: DescriptorInfo,
    datasets: Sequence[Dataset],
    keep: Sequence[np.ndarray],
    example: Dataset,
) -> Iterator[np.ndarray | BlockSparse]:
    columns = read_descriptor(example, name, rows=slice(0, 0))
    step = max(1, int(_BYTES / (8 * max(info.n_features, 1))))
    yield columns
    for dataset, rows in zip(datasets, keep):
        sizes = np.ones(len(rows), dtype=np.int64)
        if info.per == "site":
            sizes = dataset.entry_column("row_size", rows).astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        start = 0
        while start < len(rows):
            stop = max(int(np.searchsorted(ends, ends[start] + step, side="right")) - 1, start + 1)
            if name in dataset.descriptors:
                yield read_descriptor(dataset, name, entries=rows[start:stop])
            else:
                yield _nothing(columns, int(ends[stop] - ends[start]))
            start = stop


def _nothing(columns: np.ndarray | BlockSparse, n: int) -> np.ndarray | BlockSparse:
    if isinstance(columns, np.ndarray):
        return np.full((n, columns.shape[1]), np.nan, dtype=columns.dtype)
    return replace(columns, ptr=np.zeros(n + 1, dtype="i8"))

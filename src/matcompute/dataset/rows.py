"""Choose rows and read them by whole chunks."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from matcompute.dataset.errors import DatasetError
from matcompute.dataset.h5io import read

__all__ = ["resolve_rows", "spans", "take"]


def resolve_rows(rows: Any, n: int) -> slice | np.ndarray:
    """Return rows as a slice of step 1 within the file, or as row numbers i8[k].

    Raises
    ------
    DatasetError
        If a row lies outside the file or a mask has the wrong length.
    """
    if rows is None:
        return slice(0, n)
    if isinstance(rows, slice):
        start, stop, step = rows.indices(n)
        return slice(start, max(start, stop)) if step == 1 else np.arange(start, stop, step)
    index = np.asarray(rows)
    if index.dtype == bool:
        if index.shape != (n,):
            raise DatasetError(f"mask of shape {index.shape} for {n} entries")
        return np.flatnonzero(index)
    if index.size == 0:
        return np.empty(0, dtype=np.int64)
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise DatasetError("rows must be a slice, a list of row numbers or a mask")
    index = np.where(index < 0, index.astype(np.int64) + n, index.astype(np.int64))
    if index.min() < 0 or index.max() >= n:
        raise DatasetError(f"row {np.asarray(rows).max()} lies outside the file of {n} entries")
    return index


def spans(start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the members of the ranges ``start[i] : start[i] + size[i]``, one after another, i8[sum(size)]."""
    ends = np.cumsum(size)
    return np.arange(ends[-1] if ends.size else 0, dtype=np.int64) + np.repeat(start - (ends - size), size)


def take(dataset: h5py.Dataset, selection: slice | np.ndarray) -> np.ndarray:
    """Read rows; scattered ones by the runs of chunks that hold them, each chunk decompressed once."""
    if isinstance(selection, slice):
        return read(dataset, selection)
    out = np.empty((selection.shape[0], *dataset.shape[1:]), dtype=dataset.dtype)
    if selection.shape[0] == 0:
        return out
    chunk = dataset.chunks[0]
    of = selection // chunk
    order = np.argsort(of, kind="stable")
    chunks, first = np.unique(of[order], return_index=True)
    # Neighbouring chunks are read together, up to a size that keeps memory low.
    breaks = np.flatnonzero(np.diff(chunks) > 1) + 1
    for run in np.split(np.arange(chunks.shape[0]), breaks):
        for part in np.array_split(run, -(-run.shape[0] // 64)):
            lo, hi = chunks[part[0]] * chunk, min((chunks[part[-1]] + 1) * chunk, dataset.shape[0])
            block = read(dataset, slice(int(lo), int(hi)))
            end = first[part[-1] + 1] if part[-1] + 1 < first.shape[0] else order.shape[0]
            members = order[first[part[0]] : end]
            out[members] = block[selection[members] - lo]
    return out

"""A descriptor in other formats: columns of a table, arrays of ASE Atoms, one matrix in an ``.npz`` file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from matcompute.dataset.descriptors import descriptor_status, read_descriptor
from matcompute.dataset.errors import DatasetError, unknown_name
from matcompute.dataset.reader import Dataset
from matcompute.dataset.status import Status

if TYPE_CHECKING:
    import pandas as pd

    from matcompute.dataset.descriptors import DescriptorInfo

__all__ = ["descriptor_frame", "descriptor_of", "descriptor_rows", "write_npz"]

#: Bytes of rows that are read at once.
_BYTES = 64e6


def descriptor_of(dataset: Dataset, name: str) -> DescriptorInfo:
    """Return a descriptor of a file.

    Raises
    ------
    UnknownNameError
        If there is none of that name; the nearest is given.
    """
    if name not in dataset.descriptors:
        raise unknown_name("descriptor", name, dataset.descriptors, dataset.path)
    return dataset.descriptors[name]


def descriptor_rows(dataset: Dataset, name: str, rows: np.ndarray) -> list[np.ndarray | None]:
    """Return the descriptor of each entry, [F] or [sites, F]; None where there is none."""
    info = descriptor_of(dataset, name)
    good = descriptor_status(dataset, name, rows) == Status.OK
    values = np.asarray(read_descriptor(dataset, name, entries=rows, dense=True))
    if info.per == "entry":
        return [row if ok else None for row, ok in zip(values, good)]
    ends = np.cumsum(dataset.entry_column("row_size", rows))[:-1]
    return [part if ok else None for part, ok in zip(np.split(values, ends), good)]


def descriptor_frame(dataset: Dataset, name: str, rows: np.ndarray) -> pd.DataFrame:
    """Return a descriptor as a table: a column for each feature, and the status.

    Raises
    ------
    DatasetError
        If a row belongs to a site.
    """
    import pandas as pd

    info = descriptor_of(dataset, name)
    if info.per == "site":
        raise DatasetError(
            f"descriptor '{name}' has a row per site, a table one per entry",
            hint="export it to .npz or .extxyz",
        )
    values = read_descriptor(dataset, name, entries=rows, dense=True)
    labels = info.labels or [str(k) for k in range(info.n_features)]
    frame = pd.DataFrame(np.asarray(values), columns=[f"{name} {label}" for label in labels])
    frame.insert(0, f"{name}_status", descriptor_status(dataset, name, rows))
    frame.attrs["units"] = dict.fromkeys((c for c in frame.columns[1:]), info.units)
    return frame


def write_npz(
    dataset: Dataset, name: str, rows: np.ndarray, out: Path, progress: Callable[[int, int], None]
) -> None:
    """Write a descriptor as a NumPy archive, block by block.

    ``values`` [n, F] (NaN where there is none; [sites, F] if a row belongs to a site, entry i having the rows
    ``ptr[i]:ptr[i + 1]``), ``ids``, ``status``, ``labels``.
    """
    info = descriptor_of(dataset, name)
    sizes = np.ones(len(rows), dtype=np.int64)
    if info.per == "site":
        sizes = dataset.entry_column("row_size", rows).astype(np.int64)
    ptr = np.concatenate([[0], np.cumsum(sizes)])
    small = {
        "ids": np.asarray(dataset.entry_column("id", rows)),
        "status": descriptor_status(dataset, name, rows),
        "labels": np.array(info.labels, dtype="U"),
    }
    if info.per == "site":
        small["ptr"] = ptr
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for key, array in small.items():
            with archive.open(f"{key}.npy", "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
        dtype = np.dtype(info.dtype)
        header = {"descr": dtype.str, "fortran_order": False, "shape": (int(ptr[-1]), info.n_features)}
        with archive.open("values.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for start, stop in _spans(ptr, info.n_features):
                part = read_descriptor(dataset, name, entries=rows[start:stop], dense=True)
                stream.write(np.ascontiguousarray(part, dtype=dtype).tobytes())
                progress(stop, len(rows))


def _spans(ptr: np.ndarray, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, int(_BYTES / (8 * max(width, 1))))
    start, n = 0, len(ptr) - 1
    while start < n:
        stop = max(int(np.searchsorted(ptr, ptr[start] + step, side="right")) - 1, start + 1)
        yield start, stop
        start = stop

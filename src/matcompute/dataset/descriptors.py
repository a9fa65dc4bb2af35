"""Descriptors in a dataset file: dense rows, or blocks by species pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from matcompute.dataset.block_sparse import LAYOUT, BlockSparse, read_block_sparse, write_block_sparse
from matcompute.dataset.columns import Column
from matcompute.dataset.descriptor_info import (
    COMPANIONS,
    DescriptorInfo,
    is_companion,
    write_info,
    write_labels,
)
from matcompute.dataset.errors import DatasetError, unknown_name
from matcompute.dataset.h5io import (
    ENTRY_CHUNK,
    SITE_CHUNK,
    attach,
    get_attr,
    make_dataset,
    set_attr,
    set_scale,
)
from matcompute.dataset.reader import Dataset, Rows
from matcompute.dataset.rows import resolve_rows, take
from matcompute.dataset.status import Status
from matcompute.dataset.writer import DatasetWriter

__all__ = [
    "BlockSparse",
    "DescriptorInfo",
    "descriptor_names",
    "descriptor_process",
    "descriptor_status",
    "read_descriptor",
    "remove_descriptor",
    "write_block_sparse",
    "write_dense",
    "write_descriptor",
    "write_process",
    "write_status",
]

_BYTES = 1 << 20
#: Rows of an array that are handed on at once.
_ROWS = 4096


def write_dense(
    writer: DatasetWriter,
    name: str,
    values: np.ndarray | Iterable[np.ndarray],
    *,
    per: Literal["entry", "site"] = "entry",
    units: str = "1",
    long_name: str = "",
    features: Sequence[str] = (),
    dtype: np.dtype | str | None = None,
) -> None:
    """Store one row per entry (averaged descriptors) or, as an explicit choice, per site.

    Rows per entry are compressed like every column. Rows per site are float32 with fletcher32 only: compressing
    them costs more time than it saves space.

    Parameters
    ----------
    writer
        An open writer; all entries are appended already.
    name
        Name of the descriptor.
    values
        [N, F], or [M, F] per site; or parts of it in order (written as they come, so that not all need fit into
        memory).
    per
        What a row belongs to.
    units, long_name
        Attributes.
    features
        Name of each of the F columns; so many that an attribute has no room for them go into
        ``/descriptors/<name>_label``.
    dtype
        ``f8`` or ``f4`` of rows per entry; by default that of the first part.

    Raises
    ------
    DatasetError
        If there are not as many rows as entries or sites, or not as many names as columns.
    """
    file = writer.file
    rows = len(writer) if per == "entry" else writer.n_sites
    if isinstance(values, np.ndarray):
        if values.ndim != 2 or values.shape[0] != rows:
            raise DatasetError(f"descriptor '{name}' has shape {values.shape}, expected ({rows}, features)")
        values = _parts(values)
    column: Column | None = None
    for part in values:
        if column is None:
            if features and len(features) != part.shape[1]:
                raise DatasetError(
                    f"descriptor '{name}' has {part.shape[1]} features and {len(features)} feature names"
                )
            column = _dense_column(file, name, part.shape[1], np.dtype(dtype or part.dtype), per)
        if part.shape[1:] != column.tail:
            raise DatasetError(f"descriptor '{name}': parts have {part.shape[1:]} and {column.tail} columns")
        column.append(part)
    if column is None:
        column = _dense_column(file, name, len(features), np.dtype(dtype or "f8"), per)
    column.finish()
    if column.rows != rows:
        raise DatasetError(
            f"descriptor '{name}' has {column.rows} rows, expected {rows} (features of one {per} each)"
        )
    set_scale(file, per, rows)
    set_scale(file, f"{name}_feature", column.tail[0])
    attach(file, column.dataset, column.dims)
    for key, value in (("units", units), ("long_name", long_name or name), ("per", per)):
        set_attr(column.dataset, key, value)
    write_labels(file, name, features)


def _parts(values: np.ndarray) -> Iterator[np.ndarray]:
    return (values[start : start + _ROWS] for start in range(0, max(len(values), 1), _ROWS))


def _dense_column(
    file: h5py.File, name: str, width: int, dtype: np.dtype, per: Literal["entry", "site"]
) -> Column:
    kind = np.dtype("f4") if per == "site" else dtype
    chunk = _chunk(ENTRY_CHUNK if per == "entry" else SITE_CHUNK, max(width, 1) * kind.itemsize)
    group = file.require_group("descriptors")
    dims = (per, f"{name}_feature")
    # Rows of entries that are added later are NaN.
    more = {"level": None} if per == "site" else {}
    return Column(group, name, kind, (width,), chunk, dims, np.nan, **more)


def read_descriptor(
    dataset: Dataset,
    name: str,
    rows: slice | np.ndarray | None = None,
    *,
    entries: Rows = None,
    dense: bool = False,
) -> np.ndarray | BlockSparse:
    """Return a descriptor: an array [n, F], or blocks.

    Parameters
    ----------
    dataset
        An open dataset.
    name
        Name of the descriptor.
    rows
        Rows of the descriptor (entries, or sites if it is per site); None: all.
    entries
        Entries whose rows are wanted, in place of ``rows``: of a descriptor per site, those of all their sites.
    dense
        Return a block-sparse descriptor as an array too.

    Raises
    ------
    UnknownNameError
        If the file has no such descriptor.
    DatasetError
        If both ``rows`` and ``entries`` are given, or rows lie outside the file.
    """
    item = _item(dataset, name)
    if entries is not None:
        if rows is not None:
            raise DatasetError("give rows or entries, not both")
        sparse = not isinstance(item, h5py.Dataset)
        if get_attr(item, "per") == "site":
            rows, _ = dataset.site_selection(entries)
        else:
            rows = resolve_rows(entries, item["row_size"].shape[0] if sparse else item.shape[0])
    if isinstance(item, h5py.Dataset):
        return take(item, resolve_rows(rows, item.shape[0]))
    if get_attr(item, "layout") != LAYOUT:
        raise DatasetError(f"{dataset.path}: {item.name} has an unknown layout")
    blocks = read_block_sparse(item, rows)
    return blocks.toarray() if dense else blocks


def descriptor_names(dataset: Dataset) -> list[str]:
    """Return the names of the descriptors of a file."""
    group = dataset.file.get("descriptors", {})
    return [name for name in group if not is_companion(group, name)]


def write_descriptor(
    writer: DatasetWriter,
    info: DescriptorInfo,
    parts: Iterable[np.ndarray] | Iterable[BlockSparse],
    *,
    status: np.ndarray | None = None,
    process: np.ndarray | None = None,
) -> None:
    """Store a descriptor with everything that is known about it.

    Parameters
    ----------
    writer
        An open writer; all entries are appended already.
    info
        Its name, kernel, parameters, columns; ``layout`` says what the parts are.
    parts
        Its rows, part by part.
    status
        What became of each entry, u1[N].
    process
        Row of the provenance that gave each entry's rows, i4[N]; -1 where none.
    """
    more = {"per": info.per, "units": info.units, "long_name": info.long_name}
    if info.layout == "dense":
        write_dense(writer, info.name, parts, features=info.labels, dtype=info.dtype, **more)  # type: ignore[arg-type]
    else:
        write_block_sparse(writer, info.name, parts, **more)  # type: ignore[arg-type]
        write_labels(writer.file, info.name, info.labels)
    write_info(writer.file, info)
    if status is not None:
        write_status(writer, info.name, status)
    if process is not None:
        write_process(writer, info.name, process)


def descriptor_status(dataset: Dataset, name: str, rows: Rows = None) -> np.ndarray:
    """Return the `Status` of a descriptor for each entry, u1[n]."""
    _item(dataset, name)
    status = dataset.file["descriptors"].get(f"{name}_status")
    chosen = resolve_rows(rows, len(dataset))
    if status is None:
        return np.full(len(np.arange(len(dataset))[chosen]), Status.OK, dtype="u1")
    return take(status, chosen)


def write_status(writer: DatasetWriter, name: str, status: np.ndarray) -> None:
    """Store the `Status` of a descriptor for each entry as ``/descriptors/<name>_status``.

    Parameters
    ----------
    writer
        An open writer that has the descriptor.
    name
        Name of the descriptor.
    status
        u1[N].

    Raises
    ------
    DatasetError
        If there are not as many as entries.
    """
    if status.shape != (len(writer),):
        raise DatasetError(
            f"status of descriptor '{name}' has shape {status.shape}, expected ({len(writer)},)"
        )
    item = make_dataset(writer.file["descriptors"], f"{name}_status", "u1", (), ENTRY_CHUNK)
    item.resize(len(status), axis=0)
    if len(status):
        item[...] = status
    set_scale(writer.file, "entry", len(status))
    attach(writer.file, item, ("entry",))
    set_attr(item, "long_name", f"status of {name}")
    set_attr(item, "units", "1")
    item.attrs["flag_values"] = np.array([s.value for s in Status], dtype="u1")
    set_attr(item, "flag_meanings", " ".join(s.label for s in Status))


def descriptor_process(dataset: Dataset, name: str, rows: Rows = None) -> np.ndarray:
    """Return the row of the provenance that gave a descriptor of each entry, i4[n]; -1 where unknown."""
    _item(dataset, name)
    process = dataset.file["descriptors"].get(f"{name}_process")
    chosen = resolve_rows(rows, len(dataset))
    if process is None:
        return np.full(len(np.arange(len(dataset))[chosen]), -1, dtype="i4")
    return take(process, chosen)


def write_process(writer: DatasetWriter, name: str, process: np.ndarray) -> None:
    """Store which process gave a descriptor of each entry (i4[N]) as ``/descriptors/<name>_process``."""
    if process.shape != (len(writer),):
        raise DatasetError(
            f"process of descriptor '{name}' has shape {process.shape}, expected ({len(writer)},)"
        )
    item = make_dataset(writer.file["descriptors"], f"{name}_process", "i4", (), ENTRY_CHUNK, fill=-1)
    item.resize(len(process), axis=0)
    if len(process):
        item[...] = process
    attach(writer.file, item, ("entry",))
    set_attr(item, "long_name", "row of /provenance, -1 none")
    set_attr(item, "units", "1")


def remove_descriptor(writer: DatasetWriter, name: str) -> None:
    """Remove a descriptor, its status and its dimensions; nothing happens if there is none.

    HDF5 gives no room back within a file: one that is overwritten often is worth a ``matcompute dataset merge``.
    """
    group = writer.file.get("descriptors", {})
    for part in (name, *(f"{name}{suffix}" for suffix in COMPANIONS)):
        if part in group:
            for item in _datasets(group[part]):
                for axis in range(item.ndim):
                    for scale in list(item.dims[axis].values()):
                        item.dims[axis].detach_scale(scale)
            del group[part]
    for suffix in ("feature", "block", "value", "kind"):
        if f"{name}_{suffix}" in writer.file:
            del writer.file[f"{name}_{suffix}"]


def _datasets(item: h5py.Dataset | h5py.Group) -> list[h5py.Dataset]:
    return (
        [item]
        if isinstance(item, h5py.Dataset)
        else [x for x in item.values() if isinstance(x, h5py.Dataset)]
    )


def _item(dataset: Dataset, name: str) -> h5py.Dataset | h5py.Group:
    names = descriptor_names(dataset)
    if name not in names:
        raise unknown_name("descriptor", name, names, Path(dataset.path))
    return dataset.file["descriptors"][name]


def _chunk(rows: int, row_bytes: int) -> int:
    """Return rows per chunk: fewer than usual where rows are wide, so that a chunk stays within 1 MiB."""
    return max(min(rows, _BYTES // max(row_bytes, 1)), 1)

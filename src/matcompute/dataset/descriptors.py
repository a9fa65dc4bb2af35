"""Descriptors in a dataset file: dense rows, or blocks by species pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from matcompute.dataset.errors import DatasetError, unknown_name
from matcompute.dataset.h5io import (
    ENTRY_CHUNK,
    SITE_CHUNK,
    attach,
    get_attr,
    make_dataset,
    read,
    set_attr,
    set_scale,
)
from matcompute.dataset.reader import Dataset
from matcompute.dataset.rows import resolve_rows, take
from matcompute.dataset.writer import DatasetWriter

__all__ = ["BlockSparse", "read_descriptor", "write_block_sparse", "write_dense"]

_BYTES = 1 << 20


@dataclass(frozen=True)
class BlockSparse:
    """Per-site descriptors of which most species pairs are absent.

    Site (or entry) ``i`` owns the blocks ``ptr[i]:ptr[i + 1]``; block ``b`` holds the values of one species pair.

    Parameters
    ----------
    ptr
        i8[n + 1].
    pairs
        Atomic numbers of the pair of each block, u1[B, 2].
    values
        f4[B, K].
    """

    ptr: np.ndarray
    pairs: np.ndarray
    values: np.ndarray


def write_dense(
    writer: DatasetWriter,
    name: str,
    values: np.ndarray,
    *,
    per: Literal["entry", "site"] = "entry",
    units: str = "1",
    long_name: str = "",
    features: Sequence[str] = (),
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
        [N, F], or [M, F] per site.
    per
        What a row belongs to.
    units, long_name
        Attributes.
    features
        Name of each of the F columns.
    """
    file = writer.file
    rows = len(writer) if per == "entry" else writer.n_sites
    if values.ndim != 2 or values.shape[0] != rows:
        raise DatasetError(f"descriptor '{name}' has shape {values.shape}, expected ({rows}, features)")
    if features and len(features) != values.shape[1]:
        raise DatasetError(
            f"descriptor '{name}' has {values.shape[1]} features and {len(features)} feature names"
        )
    group = file.require_group("descriptors")
    width = max(values.shape[1], 1)
    dtype: np.dtype = np.dtype("f4") if per == "site" else values.dtype
    chunk = _chunk(ENTRY_CHUNK if per == "entry" else SITE_CHUNK, width * dtype.itemsize)
    dataset = make_dataset(
        group, name, dtype, (values.shape[1],), chunk, **({"level": None} if per == "site" else {})
    )
    dataset.resize(rows, axis=0)
    for start in range(0, rows, chunk * 16):
        dataset[start : start + chunk * 16] = values[start : start + chunk * 16]
    set_scale(file, per, rows)
    set_scale(file, f"{name}_feature", values.shape[1])
    attach(file, dataset, (per, f"{name}_feature"))
    for key, value in (("units", units), ("long_name", long_name or name), ("per", per)):
        set_attr(dataset, key, value)
    if features:
        set_attr(dataset, "features", list(features))


def write_block_sparse(
    writer: DatasetWriter,
    name: str,
    blocks: BlockSparse,
    *,
    per: Literal["entry", "site"] = "site",
    units: str = "1",
    long_name: str = "",
) -> None:
    """Store blocks by species pair: ``/descriptors/<name>/{row_size, pair, values}``."""
    file = writer.file
    rows = len(writer) if per == "entry" else writer.n_sites
    if blocks.ptr.shape != (rows + 1,) or blocks.ptr[-1] != blocks.values.shape[0]:
        raise DatasetError(
            f"descriptor '{name}': ptr must have {rows + 1} offsets that end at the number of blocks"
        )
    if blocks.pairs.shape != (blocks.values.shape[0], 2):
        raise DatasetError(f"descriptor '{name}': pairs have shape {blocks.pairs.shape}")
    group = file.require_group("descriptors").create_group(name)
    set_scale(file, per, rows)
    count, width = blocks.values.shape
    for dim, size in ((f"{name}_block", count), (f"{name}_value", width), ("pair", 2)):
        set_scale(file, dim, size)
    chunk = SITE_CHUNK if per == "site" else ENTRY_CHUNK
    parts = {
        "row_size": (np.diff(blocks.ptr).astype("i4"), (per,), chunk),
        "pair": (blocks.pairs.astype("u1"), (f"{name}_block", "pair"), SITE_CHUNK),
        "values": (
            blocks.values.astype("f4"),
            (f"{name}_block", f"{name}_value"),
            _chunk(SITE_CHUNK, 4 * max(width, 1)),
        ),
    }
    for key, (data, dims, rows_per_chunk) in parts.items():
        raw = key == "values"  # fletcher32 only, as for dense per-site rows
        dataset = make_dataset(
            group, key, data.dtype, data.shape[1:], rows_per_chunk, **({"level": None} if raw else {})
        )
        dataset.resize(data.shape[0], axis=0)
        if data.shape[0]:
            dataset[...] = data
        attach(file, dataset, dims)
    set_attr(group["row_size"], "sample_dimension", f"{name}_block")
    for attribute, value in (("units", units), ("long_name", long_name or name)):
        set_attr(group["values"], attribute, value)
    set_attr(group, "layout", "block-sparse")
    set_attr(group, "per", per)


def read_descriptor(
    dataset: Dataset, name: str, rows: slice | np.ndarray | None = None
) -> np.ndarray | BlockSparse:
    """Return a descriptor: an array [n, F], or blocks (whole file only).

    Parameters
    ----------
    dataset
        An open dataset.
    name
        Name of the descriptor.
    rows
        Rows of a dense descriptor (entries, or sites if it is per site).

    Raises
    ------
    UnknownNameError
        If the file has no such descriptor.
    """
    group = dataset.file.get("descriptors", {})
    if name not in group:
        raise unknown_name("descriptor", name, list(group), Path(dataset.path))
    item = group[name]
    if isinstance(item, h5py.Dataset):
        return take(item, resolve_rows(rows, item.shape[0]))
    if get_attr(item, "layout") != "block-sparse":
        raise DatasetError(f"{dataset.path}: {item.name} has an unknown layout")
    if rows is not None:
        raise DatasetError(f"{dataset.path}: {item.name} is block-sparse and read as a whole")
    ptr = np.concatenate([[0], np.cumsum(read(item["row_size"]), dtype=np.int64)])
    return BlockSparse(ptr, read(item["pair"]), read(item["values"]))


def _chunk(rows: int, row_bytes: int) -> int:
    """Return rows per chunk: fewer than usual where rows are wide, so that a chunk stays within 1 MiB."""
    return max(min(rows, _BYTES // max(row_bytes, 1)), 1)

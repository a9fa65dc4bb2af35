"""Descriptors of which most species pairs are absent, as blocks: `BlockSparse`, written and read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np

from matcompute.dataset.columns import Column
from matcompute.dataset.errors import DatasetError
from matcompute.dataset.h5io import ENTRY_CHUNK, SITE_CHUNK, attach, make_dataset, read, set_attr, set_scale
from matcompute.dataset.rows import resolve_rows, spans, take

if TYPE_CHECKING:
    from matcompute.dataset.writer import DatasetWriter

__all__ = ["LAYOUT", "BlockSparse", "read_block_sparse", "write_block_sparse"]

LAYOUT = "block-sparse"
#: Values of a chunk: 1 MiB of float32.
_VALUE_CHUNK = 1 << 18


@dataclass(frozen=True, eq=False)
class BlockSparse:
    """Rows that hold only the blocks of the species pairs that occur.

    Row ``i`` owns the blocks ``ptr[i]:ptr[i + 1]``; block ``b`` holds the columns of one pair.

    Parameters
    ----------
    ptr
        i8[n + 1].
    pairs
        Atomic numbers of the pair of each block, u1[B, 2] (0 in second place: the sum over all species).
    values
        All blocks one after the other, f4[V].
    kinds
        The pairs that there are columns for, u1[P, 2], in the order of the columns.
    offset
        First column of each of them, i8[P + 1]; the last is the number of columns.

    Raises
    ------
    DatasetError
        If the arrays do not belong together.
    """

    ptr: np.ndarray
    pairs: np.ndarray
    values: np.ndarray
    kinds: np.ndarray
    offset: np.ndarray

    def __post_init__(self) -> None:
        n_blocks = int(self.ptr[-1]) if self.ptr.size else -1
        if self.pairs.shape != (n_blocks, 2) or self.ptr[0] != 0 or (np.diff(self.ptr) < 0).any():
            raise DatasetError(
                f"block-sparse rows: ptr ends at {n_blocks}, pairs have shape {self.pairs.shape}"
            )
        if self.offset.shape != (len(self.kinds) + 1,) or self.values.shape != (int(self.value_ptr[-1]),):
            raise DatasetError(
                f"block-sparse rows: {self.values.size} values, the blocks need {int(self.value_ptr[-1])}"
            )

    def __len__(self) -> int:
        return self.ptr.shape[0] - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that this stands for."""
        return len(self), int(self.offset[-1])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(a.nbytes for a in (self.ptr, self.pairs, self.values, self.kinds, self.offset))

    @cached_property
    def kind(self) -> np.ndarray:
        """Which of `kinds` each block is, i8[B]."""
        place = np.full((256, 256), -1, dtype=np.int64)
        place[self.kinds[:, 0], self.kinds[:, 1]] = np.arange(len(self.kinds))
        found = place[self.pairs[:, 0], self.pairs[:, 1]]
        if found.size and found.min() < 0:
            first = self.pairs[int(found.argmin())].tolist()
            raise DatasetError(f"block-sparse rows: there are no columns for the pair {first}")
        return found

    @cached_property
    def value_ptr(self) -> np.ndarray:
        """Values of block b: ``value_ptr[b]:value_ptr[b + 1]``, i8[B + 1]."""
        sizes = np.diff(self.offset)[self.kind]
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def row(self, index: int) -> dict[tuple[int, int], np.ndarray]:
        """Return the blocks of one row: atomic numbers of the pair → values (a view)."""
        return {
            (int(self.pairs[b, 0]), int(self.pairs[b, 1])): self.values[
                self.value_ptr[b] : self.value_ptr[b + 1]
            ]
            for b in range(int(self.ptr[index]), int(self.ptr[index + 1]))
        }

    def toarray(self) -> np.ndarray:
        """Return the dense matrix [rows, columns]."""
        out = np.zeros(self.shape, dtype=self.values.dtype)
        per_row = np.diff(self.value_ptr[self.ptr])
        out[np.repeat(np.arange(len(self)), per_row), self._columns()] = self.values
        return out

    def tocsr(self) -> Any:
        """Return a ``scipy.sparse.csr_array``."""
        from scipy.sparse import csr_array

        return csr_array((self.values, self._columns(), self.value_ptr[self.ptr]), shape=self.shape)

    def _columns(self) -> np.ndarray:
        shift = self.offset[self.kind] - self.value_ptr[:-1]
        return np.arange(len(self.values)) + np.repeat(shift, np.diff(self.value_ptr))


def write_block_sparse(
    writer: DatasetWriter,
    name: str,
    blocks: BlockSparse | Iterable[BlockSparse],
    *,
    per: Literal["entry", "site"] = "site",
    units: str = "1",
    long_name: str = "",
) -> None:
    """Store blocks by species pair in the group ``/descriptors/<name>``.

    Parameters
    ----------
    writer
        An open writer; all entries are appended already.
    name
        Name of the descriptor.
    blocks
        All rows, or parts of them in order (written as they come, so that not all need fit into memory).
    per
        What a row belongs to.
    units, long_name
        Attributes.

    Raises
    ------
    DatasetError
        If there are not as many rows as entries or sites, or the parts have other columns.
    """
    file = writer.file
    rows = len(writer) if per == "entry" else writer.n_sites
    chunk = ENTRY_CHUNK if per == "entry" else SITE_CHUNK
    group = file.require_group("descriptors").create_group(name)
    columns: dict[str, Column] = {}
    for key, dtype, tail, dims, size in (
        ("row_size", "i4", (), (per,), chunk),
        ("block_start", "i8", (), (per,), chunk),
        ("value_start", "i8", (), (per,), chunk),
        ("pair", "u1", (2,), (f"{name}_block", "pair"), SITE_CHUNK),
    ):
        columns[key] = Column(group, key, dtype, tail, size, dims, None)
    # fletcher32 only, as for dense rows per site
    value_dims = (f"{name}_value",)
    columns["values"] = Column(group, "values", "f4", (), _VALUE_CHUNK, value_dims, None, level=None)
    first: BlockSparse | None = None
    for part in [blocks] if isinstance(blocks, BlockSparse) else blocks:
        first = first or part
        if not (np.array_equal(part.kinds, first.kinds) and np.array_equal(part.offset, first.offset)):
            raise DatasetError(f"descriptor '{name}': parts have different columns")
        columns["row_size"].append(np.diff(part.ptr))
        columns["block_start"].append(part.ptr[:-1] + columns["pair"].rows)
        columns["value_start"].append(part.value_ptr[part.ptr[:-1]] + columns["values"].rows)
        columns["pair"].append(part.pairs)
        columns["values"].append(part.values)
    if columns["row_size"].rows != rows:
        raise DatasetError(
            f"descriptor '{name}' has {columns['row_size'].rows} rows, expected {rows} (one per {per})"
        )
    kinds = first.kinds if first is not None else np.zeros((0, 2), "u1")
    offset = first.offset if first is not None else np.zeros(1, "i8")
    sizes = {
        per: rows,
        f"{name}_block": columns["pair"].rows,
        f"{name}_value": columns["values"].rows,
        f"{name}_kind": len(kinds),
        "pair": 2,
    }
    for dim, size in sizes.items():
        set_scale(file, dim, size)
    for column in columns.values():
        column.finish()
        attach(file, column.dataset, column.dims)
    for key, data, tail_dims in (
        ("kind_pair", kinds.astype("u1"), ("pair",)),
        ("kind_offset", offset[:-1].astype("i8"), ()),
        ("kind_size", np.diff(offset).astype("i8"), ()),
    ):
        item = make_dataset(group, key, data.dtype, data.shape[1:], ENTRY_CHUNK)
        item.resize(len(data), axis=0)
        if len(data):
            item[...] = data
        attach(file, item, (f"{name}_kind", *tail_dims))
    set_attr(group["row_size"], "sample_dimension", f"{name}_block")
    set_attr(group["values"], "units", units)
    set_attr(group["values"], "long_name", long_name or name)
    set_attr(group, "layout", LAYOUT)
    set_attr(group, "per", per)
    set_attr(group, "n_features", int(offset[-1]))


def read_block_sparse(group: h5py.Group, rows: Any = None) -> BlockSparse:
    """Return chosen rows of a block-sparse descriptor; only their blocks are read.

    Parameters
    ----------
    group
        ``/descriptors/<name>``.
    rows
        A slice, row numbers, a mask, or None: all.
    """
    chosen = resolve_rows(rows, group["row_size"].shape[0])
    size = take(group["row_size"], chosen).astype(np.int64)
    ptr = np.concatenate([[0], np.cumsum(size)])
    kinds = read(group["kind_pair"])
    widths = read(group["kind_size"])
    offset = np.concatenate([[0], np.cumsum(widths)])
    if not size.size:
        return BlockSparse(ptr, np.zeros((0, 2), "u1"), np.zeros(0, "f4"), kinds, offset)
    block_start, value_start = take(group["block_start"], chosen), take(group["value_start"], chosen)
    if isinstance(chosen, slice):
        first = int(block_start[0])
        pairs = read(group["pair"], slice(first, first + int(ptr[-1])))
    else:
        pairs = take(group["pair"], spans(block_start, size))
    place = np.zeros((256, 256), dtype=np.int64)
    place[kinds[:, 0], kinds[:, 1]] = widths
    value_ptr = np.concatenate([[0], np.cumsum(place[pairs[:, 0], pairs[:, 1]])])
    n_values = np.diff(value_ptr[ptr])
    if isinstance(chosen, slice):
        first = int(value_start[0])
        values = read(group["values"], slice(first, first + int(value_ptr[-1])))
    else:
        values = _take_spans(group["values"], value_start, n_values)
    return BlockSparse(ptr, pairs, values, kinds, offset)


def _take_spans(dataset: h5py.Dataset, start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Read ranges, those that follow each other in one piece."""
    out = np.empty(int(size.sum()), dataset.dtype)
    at = 0
    for first, count in _runs(start, size):
        out[at : at + count] = read(dataset, slice(first, first + count))
        at += count
    return out


def _runs(start: np.ndarray, size: np.ndarray) -> Iterator[tuple[int, int]]:
    breaks = np.flatnonzero(start[1:] != start[:-1] + size[:-1]) + 1
    for part in np.split(np.arange(start.shape[0]), breaks):
        if part.size:
            yield int(start[part[0]]), int(size[part].sum())

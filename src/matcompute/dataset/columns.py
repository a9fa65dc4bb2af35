"""Buffered columns: rows are gathered and written in whole chunks, each chunk compressed once."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from matcompute.dataset.h5io import GZIP_LEVEL, make_dataset, text_dtype

__all__ = ["Column", "TextColumn"]

_FLUSH_CHUNKS = 16


class Column:
    """A growing dataset whose writes end on chunk borders until `finish`."""

    def __init__(
        self,
        group: h5py.Group,
        name: str,
        dtype: np.dtype | str,
        tail: tuple[int, ...],
        chunk: int,
        dims: tuple[str, ...],
        fill: Any,
        *,
        level: int | None = GZIP_LEVEL,
    ) -> None:
        self.dims = dims
        self.fill = fill
        self.dataset = (
            group[name]
            if name in group
            else make_dataset(group, name, dtype, tail, chunk, fill=fill, level=level)
        )
        self.chunk = chunk
        self.dtype = self.dataset.dtype
        self.tail: tuple[int, ...] = self.dataset.shape[1:]
        self.written: int = self.dataset.shape[0]
        self.pending: list[np.ndarray] = []
        self.rows = self.written

    def append(self, block: np.ndarray) -> None:
        """Add rows (cast to the column's type)."""
        block = np.ascontiguousarray(block, dtype=self.dtype)
        if block.shape[1:] != self.tail:
            raise ValueError(f"{self.dataset.name}: rows of shape {block.shape[1:]}, expected {self.tail}")
        if block.shape[0] == 0:
            return
        self.pending.append(block)
        self.rows += block.shape[0]
        if self.rows - self.written >= _FLUSH_CHUNKS * self.chunk:
            self._write(self.rows // self.chunk * self.chunk)

    def pad(self, rows: int) -> None:
        """Fill up to a number of rows with the fill value."""
        while self.rows < rows:
            n = min(rows - self.rows, _FLUSH_CHUNKS * self.chunk)
            self.append(np.full((n, *self.tail), self.fill, dtype=self.dtype))

    def finish(self) -> None:
        """Write what is pending."""
        self._write(self.rows)

    def _write(self, upto: int) -> None:
        if upto <= self.written:
            return
        block = self.pending[0] if len(self.pending) == 1 else np.concatenate(self.pending)
        n = upto - self.written
        self.dataset.resize(upto, axis=0)
        self.dataset[self.written : upto] = block[:n]
        # A copy, so that a small rest does not keep a large block alive.
        self.pending = [block[n:].copy()] if n < block.shape[0] else []
        self.written = upto


class TextColumn:
    """Fixed-width text whose width is known only at the end: kept in memory, written by `finish`."""

    def __init__(self, group: h5py.Group, name: str, chunk: int, dims: tuple[str, ...]) -> None:
        self.group, self.name, self.chunk, self.dims = group, name, chunk, dims
        self.blocks: list[np.ndarray] = []
        self.rows = 0
        self.old: h5py.Dataset | None = group.get(name)
        if self.old is not None:
            self.rows = self.old.shape[0]

    def append(self, block: np.ndarray) -> None:
        """Add rows: an S array, already UTF-8."""
        self.blocks.append(block)
        self.rows += block.shape[0]

    def finish(self) -> None:
        """Write all rows; a file that is too narrow for the new rows is written anew at the larger width."""
        width = max([b.dtype.itemsize for b in self.blocks], default=1)
        blocks = self.blocks
        if self.old is not None:
            if not blocks:
                return
            if width > self.old.dtype.itemsize:
                blocks = [self.old[:], *blocks]
                attrs = {k: v for k, v in self.old.attrs.items() if k != "DIMENSION_LIST"}
                for scale in list(self.old.dims[0].values()):
                    self.old.dims[0].detach_scale(scale)
                del self.group[self.name]
                self.old = None
            else:
                attrs, width = {}, self.old.dtype.itemsize
        else:
            attrs = {}
        column = Column(self.group, self.name, text_dtype(width), (), self.chunk, self.dims, None)
        for key, value in attrs.items():
            column.dataset.attrs[key] = value
        for block in blocks:
            for at in range(0, block.shape[0], 65536):
                column.append(block[at : at + 65536].astype(column.dtype))
        column.finish()
        self.blocks = []

    @property
    def dataset(self) -> h5py.Dataset:
        """The dataset, after `finish`."""
        return self.group[self.name]

"""Rows of spectra of which only some combinations of elements occur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["SparseSpectra"]


@dataclass(frozen=True, eq=False)
class SparseSpectra:
    """Rows of blocks of n columns each, of which only those of the elements at hand are held.

    Attributes
    ----------
    values
        Spectra one after the other, f[B, n].
    row_ptr
        Row i has the blocks ``row_ptr[i]:row_ptr[i + 1]``, i8[R + 1].
    block
        Number of each block, rising within a row, i4[B].
    names
        Name of every block of a full row.
    """

    values: np.ndarray
    row_ptr: np.ndarray
    block: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return self.row_ptr.shape[0] - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that this stands for."""
        return len(self), len(self.names) * self.values.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.values.nbytes + self.row_ptr.nbytes + self.block.nbytes

    def row(self, index: int) -> dict[str, np.ndarray]:
        """Spectra of one row by the block's name, such as ``Na-Cl`` (views)."""
        blocks = range(self.row_ptr[index], self.row_ptr[index + 1])
        return {self.names[self.block[b]]: self.values[b] for b in blocks}

    def toarray(self) -> np.ndarray:
        """Return the dense matrix [rows, columns]."""
        n = self.values.shape[1]
        out = np.zeros((len(self), len(self.names), n), self.values.dtype)
        out[np.repeat(np.arange(len(self)), np.diff(self.row_ptr)), self.block] = self.values
        return out.reshape(self.shape)

    def to_ragged(self) -> Any:
        """Return the rows as :class:`.Ragged` with the parts ``block`` and ``values``, as a job keeps them."""
        from matcompute_kernels.drivers.ragged import Ragged

        return Ragged({"block": (self.row_ptr, self.block), "values": (self.row_ptr, self.values)})

    def tocsr(self) -> Any:
        """Return a ``scipy.sparse.csr_array``."""
        from scipy.sparse import csr_array

        n = self.values.shape[1]
        columns = (self.block.astype(np.int64)[:, None] * n + np.arange(n)).ravel()
        return csr_array((self.values.ravel(), columns, self.row_ptr * n), shape=self.shape)

"""Derivatives of the rows of a site descriptor by positions, strain and cell: one class for all descriptors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.errors import KernelInputError

__all__ = ["KINDS", "Derivatives", "check_wrt"]

#: What there are derivatives by.
KINDS = ("positions", "strain", "cell")


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Derivatives of the rows p_i of a site descriptor with F columns, per Å or per unit strain.

    Attributes
    ----------
    ptr
        Site i owns the rows ``ptr[i]:ptr[i + 1]`` of ``site`` and ``positions``, i8[M + 1].
    site
        Atom that is moved, together with all its images, i4[R]: the site itself and its neighbours, each once. Those
        that are absent have no influence.
    positions
        ∂p_i/∂r_a, f[R, 3, F], or None.
    strain
        ∂p_i/∂ε_αβ for r → r + r·ε of atoms and cell (row vectors), f[M, 3, 3, F], or None.
    cell
        ∂p_i/∂H_αβ, component β of lattice vector α, with the given Cartesian positions held, f[M, 3, 3, F], or None.
    """

    ptr: np.ndarray
    site: np.ndarray
    positions: np.ndarray | None
    strain: np.ndarray | None
    cell: np.ndarray | None

    @property
    def center(self) -> np.ndarray:
        """Row of the descriptor that each row of ``positions`` belongs to, i8[R]."""
        return np.repeat(np.arange(len(self.ptr) - 1), np.diff(self.ptr))

    def dense(self) -> np.ndarray:
        """Return ∂p/∂r as a full array, f[M, M, 3, F] (for small batches)."""
        if self.positions is None:
            raise KernelInputError("derivatives by positions were not asked for")
        m = len(self.ptr) - 1
        full = np.zeros((m, m, *self.positions.shape[1:]), self.positions.dtype)
        full[self.center, self.site] = self.positions
        return full

    def cell_at_fixed_fractions(self, batch: Any) -> np.ndarray:
        """Return ∂p/∂H_αβ with the fractional coordinates held, as in a relaxation of the cell, f[M, 3, 3, F] in 1/Å.

        From δH = H·ε it is H⁻ᵀ ∂p/∂ε.

        Parameters
        ----------
        batch
            The structures that were described, with three lattice vectors each.

        Raises
        ------
        KernelInputError
            If the batch is not the one that was described, a cell is singular or there is no ``strain``.
        """
        packed = as_batch(batch)
        if self.strain is None:
            raise KernelInputError("derivatives by strain were not asked for")
        if len(packed.numbers) != len(self.strain):
            raise KernelInputError(
                f"batch has {len(packed.numbers)} sites, the derivatives {len(self.strain)}"
            )
        flat = np.flatnonzero(~(packed.volumes > 0))
        if flat.size:
            raise KernelInputError("has no three lattice vectors", int(flat[0]))
        inverse = np.repeat(np.linalg.inv(packed.cell), packed.n_sites, axis=0)
        result = np.einsum("mac,mabf->mcbf", inverse, self.strain, optimize=True)
        return result.astype(self.strain.dtype, copy=False)

    @classmethod
    def assemble(
        cls,
        batch: Batch,
        parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
        wanted: Collection[str],
        n_columns: int,
        dtype: Any,
    ) -> Derivatives:
        """Join consecutive ranges of sites, each (rows of each site, atoms, by position, by strain)."""
        none = np.zeros(0, np.int64), np.zeros(0, np.int32)
        empty = np.zeros((0, 3, n_columns), dtype), np.zeros((0, 3, 3, n_columns), dtype)
        sizes, site, positions, strain = (np.concatenate(a) for a in zip((*none, *empty), *parts))
        ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        cell = _cell(batch, ptr, site, positions, strain) if "cell" in wanted else None
        return cls(
            ptr,
            site,
            positions if "positions" in wanted else None,
            strain if "strain" in wanted else None,
            cell,
        )


def check_wrt(wrt: Any) -> set[str]:
    """Return which derivatives are wanted.

    Raises
    ------
    KernelInputError
        If there are none, or others than :data:`KINDS`.
    """
    wanted = {wrt} if isinstance(wrt, str) else set(wrt) if isinstance(wrt, Iterable) else {repr(wrt)}
    if not wanted or not wanted <= set(KINDS):
        raise KernelInputError(f"wrt must name some of {', '.join(KINDS)}, not {sorted(wanted)}")
    return wanted


def _cell(
    batch: Batch, ptr: np.ndarray, site: np.ndarray, positions: np.ndarray, strain: np.ndarray
) -> np.ndarray:
    """∂p/∂H at fixed positions: H⁻ᵀ ∂p/∂ε less Σ s_a ∂p/∂r_a, s being fractional coordinates.

    A lattice vector that is missing may be any: its part comes out as zero.
    """
    inverse = np.repeat(np.linalg.inv(_completed(batch.cell)), batch.n_sites, axis=0)
    result = np.einsum("mac,mabf->mcbf", inverse, strain, optimize=True)
    fractional = np.einsum("mc,mca->ma", batch.positions, inverse)
    for first in range(0, len(ptr) - 1, 256):
        last = min(first + 256, len(ptr) - 1)
        rows = slice(int(ptr[first]), int(ptr[last]))
        moved = fractional[site[rows]][:, :, None, None] * positions[rows][:, None]
        if len(moved):
            result[first:last] -= np.add.reduceat(moved, ptr[first:last] - ptr[first], axis=0)
    return result.astype(strain.dtype, copy=False)


def _completed(cell: np.ndarray) -> np.ndarray:
    """Cells whose zero vectors are replaced by unit vectors orthogonal to the others."""
    out = np.array(cell)
    for index in np.flatnonzero((np.abs(cell).max(axis=2) == 0).any(axis=1)).tolist():
        missing = np.flatnonzero(np.abs(cell[index]).max(axis=1) == 0)
        out[index, missing] = np.linalg.svd(cell[index])[2][3 - len(missing) :]
    return out

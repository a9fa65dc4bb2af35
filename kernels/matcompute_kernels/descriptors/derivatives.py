"""Derivatives of site descriptors by positions, strain and cell, as sparse rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matcompute_kernels.batch import as_batch
from matcompute_kernels.errors import KernelInputError

__all__ = ["Derivatives"]


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Derivatives of the rows of a descriptor with F columns.

    Attributes
    ----------
    center, atom
        i4[K]: row of the descriptor and site that moves; sorted by centre, then by atom, each pair once. Pairs that
        are absent have no influence.
    values
        f[K, 3, F]: ∂row[center]/∂r[atom] in 1/Å; all images of the atom move with it.
    strain
        f[M, 3, 3, F]: ∂row/∂ε_ab at r' = r (1 + ε), cell' = cell (1 + ε), row vectors.
    """

    center: np.ndarray
    atom: np.ndarray
    values: np.ndarray
    strain: np.ndarray

    @classmethod
    def concatenate(cls, parts: Sequence[Derivatives], n_columns: int, dtype: Any) -> Derivatives:
        """Join the derivatives of consecutive ranges of sites."""
        if not parts:
            none = np.zeros(0, np.int32)
            return cls(none, none, np.zeros((0, 3, n_columns), dtype), np.zeros((0, 3, 3, n_columns), dtype))
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([p.center for p in parts]),
            np.concatenate([p.atom for p in parts]),
            np.concatenate([p.values for p in parts]),
            np.concatenate([p.strain for p in parts]),
        )

    def cell(self, batch: Any, fixed: str = "positions") -> np.ndarray:
        """Return ∂row/∂cell_ab (component b of lattice vector a), f[M, 3, 3, F] in 1/Å.

        From δcell = cell·ε, ∂/∂cell at fixed fractional coordinates s is cell⁻ᵀ ∂/∂ε; Σ s_a ∂/∂r_b over the atoms less
        at fixed positions.

        Parameters
        ----------
        batch
            The structures that were described, with three lattice vectors each.
        fixed
            ``"positions"``: the given Cartesian positions are held, as in :class:`.SoapDerivatives` and featomic;
            ``"fractional"``: the fractional coordinates are, as in a relaxation of the cell.

        Raises
        ------
        KernelInputError
            If ``fixed`` is neither, or the batch is not the one that was described.
        """
        if fixed not in ("positions", "fractional"):
            raise KernelInputError(f"fixed must be 'positions' or 'fractional', not {fixed!r}")
        packed = as_batch(batch)
        if len(packed.numbers) != len(self.strain):
            raise KernelInputError(
                f"batch has {len(packed.numbers)} sites, the derivatives {len(self.strain)}"
            )
        inverse = np.repeat(np.linalg.inv(packed.cell), packed.n_sites, axis=0)
        result = np.einsum("mac,mabf->mcbf", inverse, self.strain, optimize=True)
        if fixed == "positions":
            fractional = np.einsum("mc,mca->ma", packed.positions, inverse)
            for k, (center, atom) in enumerate(zip(self.center.tolist(), self.atom.tolist())):
                result[center] -= fractional[atom][:, None, None] * self.values[k]
        return result.astype(self.strain.dtype, copy=False)

    def dense(self) -> np.ndarray:
        """Return ∂row/∂r as a full array, f[M, M, 3, F] (for small batches)."""
        m = self.strain.shape[0]
        full = np.zeros((m, m, *self.values.shape[1:]), self.values.dtype)
        full[self.center, self.atom] = self.values
        return full

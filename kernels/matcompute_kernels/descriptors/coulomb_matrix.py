"""Coulomb matrix of finite structures (Rupp et al., Phys. Rev. Lett. 108, 058301, 2012)."""

from __future__ import annotations

from typing import Any

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.descriptors.atom_matrix import (
    PERMUTATIONS,
    arrange,
    fail_if_coincident,
    matrix_labels,
    prepare,
)

__all__ = ["coulomb_matrix", "labels"]


def coulomb_matrix(
    batch: Any,
    n_atoms_max: int | None = None,
    permutation: str = "sorted_l2",
    *,
    dtype: Any = np.float64,
) -> np.ndarray:
    """Coulomb matrix: C_ii = Z_i^2.4 / 2, C_ij = Z_i Z_j / r_ij (e²/Å without the prefactor; lattices are ignored).

    dscribe 2.1.2's definition (``CoulombMatrix``) and column order.

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    n_atoms_max
        Atoms that a row has room for (the rest is zero); None: the largest structure of the batch.
    permutation
        ``"none"``: the order of the atoms; ``"sorted_l2"``: falling Euclidean norm of the rows (stable);
        ``"eigenspectrum"``: eigenvalues by falling absolute value.
    dtype
        float64 or float32.

    Returns
    -------
    ndarray
        f[N, n_atoms_max²], row-major matrices, or f[N, n_atoms_max] for the eigenspectrum.

    Raises
    ------
    KernelInputError
        If a structure has no atoms, non-finite positions, two atoms at one place or more than n_atoms_max atoms.
    """
    packed, n_max, out = prepare(batch, n_atoms_max, permutation, dtype, periodic=False)
    bad = _coulomb_rows(packed.numbers, packed.positions, packed.ptr, PERMUTATIONS[permutation], n_max, out)
    fail_if_coincident(bad)
    return out


def labels(n_atoms_max: int, permutation: str = "sorted_l2", **_: Any) -> list[str]:
    """Return the name of each column."""
    return matrix_labels("coulomb", n_atoms_max, permutation)


@njit(cache=True, nogil=True, error_model="numpy")
def _coulomb_rows(
    numbers: np.ndarray,
    positions: np.ndarray,
    ptr: np.ndarray,
    permutation: int,
    n_max: int,
    out: np.ndarray,
) -> int:
    """Return the number of a structure with two atoms at one place, or -1.

    OUTPUT: out f[N, n_max² or n_max].
    """
    work = np.empty(n_max * n_max)
    for s in range(ptr.shape[0] - 1):
        begin, n = ptr[s], ptr[s + 1] - ptr[s]
        matrix = work[: n * n].reshape(n, n)
        for i in range(n):
            z = float(numbers[begin + i])
            matrix[i, i] = 0.5 * z**2.4
            for j in range(i):
                dx = positions[begin + i, 0] - positions[begin + j, 0]
                dy = positions[begin + i, 1] - positions[begin + j, 1]
                dz = positions[begin + i, 2] - positions[begin + j, 2]
                value = z * float(numbers[begin + j]) / np.sqrt(dx * dx + dy * dy + dz * dz)
                matrix[i, j] = value
                matrix[j, i] = value
        if not np.isfinite(matrix).all():
            return s
        arrange(matrix, permutation, n_max, out[s])
    return -1

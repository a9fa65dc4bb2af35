"""Sine matrix of crystals (Faber, Lindmaa, von Lilienfeld and Armiento, Int. J. Quantum Chem. 115, 1094, 2015)."""

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

__all__ = ["labels", "sine_matrix"]


def sine_matrix(
    batch: Any,
    n_atoms_max: int | None = None,
    permutation: str = "sorted_l2",
    *,
    dtype: Any = np.float64,
) -> np.ndarray:
    """Sine matrix: C_ii = Z_i^2.4 / 2, C_ij = Z_i Z_j / |B · sin²(π B⁻¹ (r_j - r_i))|, sin² by component.

    dscribe 2.1.2's definition (``SineMatrix``) and column order. Every structure counts as periodic in three
    directions. sin(π(f_i - f_j)) is taken from sin and cos of π f of the single atoms, so that a pair costs no
    trigonometric function.

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
        If a structure has no atoms, non-finite positions, a singular cell or more than n_atoms_max atoms.
    """
    packed, n_max, out = prepare(batch, n_atoms_max, permutation, dtype, periodic=True)
    bad = _sine_rows(
        packed.numbers,
        packed.positions,
        packed.cell,
        np.linalg.inv(packed.cell),
        packed.ptr,
        PERMUTATIONS[permutation],
        n_max,
        out,
    )
    fail_if_coincident(bad)
    return out


def labels(n_atoms_max: int, permutation: str = "sorted_l2", **_: Any) -> list[str]:
    """Return the name of each column."""
    return matrix_labels("sine", n_atoms_max, permutation)


@njit(cache=True, nogil=True, error_model="numpy")
def _sine_rows(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    inverse: np.ndarray,
    ptr: np.ndarray,
    permutation: int,
    n_max: int,
    out: np.ndarray,
) -> int:
    """Return the number of a structure with two atoms at one place, or -1.

    OUTPUT: out f[N, n_max² or n_max].
    """
    work = np.empty(n_max * n_max)
    sine, cosine = np.empty((3, n_max)), np.empty((3, n_max))
    for s in range(ptr.shape[0] - 1):
        begin, n = ptr[s], ptr[s + 1] - ptr[s]
        matrix = work[: n * n].reshape(n, n)
        for i in range(n):
            for k in range(3):
                f = 0.0
                for c in range(3):
                    f += positions[begin + i, c] * inverse[s, c, k]
                f -= np.floor(f)
                sine[k, i] = np.sin(np.pi * f)
                cosine[k, i] = np.cos(np.pi * f)
        ax, ay, az = cell[s, 0, 0], cell[s, 0, 1], cell[s, 0, 2]
        bx, by, bz = cell[s, 1, 0], cell[s, 1, 1], cell[s, 1, 2]
        cx, cy, cz = cell[s, 2, 0], cell[s, 2, 1], cell[s, 2, 2]
        for i in range(n):
            z = float(numbers[begin + i])
            matrix[i, i] = 0.5 * z**2.4
            s0, s1, s2 = sine[0, i], sine[1, i], sine[2, i]
            c0, c1, c2 = cosine[0, i], cosine[1, i], cosine[2, i]
            for j in range(i):
                u = s0 * cosine[0, j] - c0 * sine[0, j]
                v = s1 * cosine[1, j] - c1 * sine[1, j]
                w = s2 * cosine[2, j] - c2 * sine[2, j]
                u, v, w = u * u, v * v, w * w
                x = u * ax + v * bx + w * cx
                y = u * ay + v * by + w * cy
                q = u * az + v * bz + w * cz
                matrix[i, j] = z * float(numbers[begin + j]) / np.sqrt(x * x + y * y + q * q)
            for j in range(i):
                matrix[j, i] = matrix[i, j]
        if not np.isfinite(matrix).all():
            return s
        arrange(matrix, permutation, n_max, out[s])
    return -1

"""Ewald sum matrix of crystals (Faber, Lindmaa, von Lilienfeld and Armiento, Int. J. Quantum Chem. 115, 1094, 2015)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from matcompute_kernels.checks import check_positive
from matcompute_kernels.compiled import njit
from matcompute_kernels.descriptors.atom_matrix import (
    PERMUTATIONS,
    arrange,
    fail_if_coincident,
    matrix_labels,
    prepare,
)
from matcompute_kernels.errors import KernelInputError

__all__ = ["ewald_matrix", "labels"]


def ewald_matrix(
    batch: Any,
    n_atoms_max: int | None = None,
    permutation: str = "sorted_l2",
    *,
    accuracy: float = 1e-5,
    w: float = 1.0,
    r_cut: float | None = None,
    g_cut: float | None = None,
    a: float | None = None,
    dtype: Any = np.float64,
) -> np.ndarray:
    """Ewald sum matrix: Coulomb energy between the sublattices of atoms i and j with nuclear charges (e²/Å).

    dscribe 2.1.2's definition (``EwaldSumMatrix``) and column order; every structure counts as periodic in three
    directions. For i ≠ j, with charges Z and the neutralising background::

        M_ij = Z_i Z_j [Σ_L erfc(a r)/r + 4π/V Σ_{G≠0} exp(-G²/4a²)/G² cos(G·r_ij) - π/(V a²)]

    and the diagonal is half of that minus a Z_i²/√π, so that the sum over i ≤ j is the energy of the cell. The sums
    run over r ≤ r_cut and G ≤ g_cut; by default (Jackson and Catlow, Mol. Simul. 1, 207, 1988)
    a = √π (w N/V²)^(1/6), r_cut = √(-ln accuracy)/a, g_cut = 2a √(-ln accuracy).

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    n_atoms_max
        Atoms that a row has room for (the rest is zero); None: the largest structure of the batch.
    permutation
        ``"none"``: the order of the atoms; ``"sorted_l2"``: falling Euclidean norm of the rows (stable);
        ``"eigenspectrum"``: eigenvalues by falling absolute value.
    accuracy
        Largest term left out, between 0 and 1; without effect if the cutoffs are given.
    w
        Cost of a real-space term over that of a reciprocal one.
    r_cut, g_cut
        Cutoffs in Å and 1/Å; both or none.
    a
        Screening parameter in 1/Å.
    dtype
        float64 or float32 of the output.

    Returns
    -------
    ndarray
        f[N, n_atoms_max²], row-major matrices, or f[N, n_atoms_max] for the eigenspectrum.

    Raises
    ------
    KernelInputError
        If a structure has no atoms, non-finite positions, a singular cell or more than n_atoms_max atoms, or a
        parameter is wrong.
    """
    check_positive(accuracy=accuracy, w=w)
    if accuracy >= 1.0:
        raise KernelInputError(f"accuracy must lie between 0 and 1, not {accuracy!r}")
    if (r_cut is None) != (g_cut is None):
        raise KernelInputError("give both r_cut and g_cut, or none of them")
    for name, value in (("r_cut", r_cut), ("g_cut", g_cut), ("a", a)):
        if value is not None:
            check_positive(**{name: value})
    packed, n_max, out = prepare(batch, n_atoms_max, permutation, dtype, periodic=True)
    volume = packed.volumes
    screening = math.sqrt(math.pi) * (w * packed.n_sites / volume**2) ** (1 / 6)
    if a is not None:
        screening = np.full(len(packed), float(a))
    f = math.sqrt(-math.log(accuracy))
    r_cuts = f / screening if r_cut is None else np.full(len(packed), float(r_cut))
    g_cuts = 2.0 * screening * f if g_cut is None else np.full(len(packed), float(g_cut))
    bad = _ewald_rows(
        packed.numbers,
        packed.positions,
        packed.cell,
        np.linalg.inv(packed.cell),
        packed.ptr,
        volume,
        screening,
        r_cuts,
        g_cuts,
        PERMUTATIONS[permutation],
        n_max,
        out,
    )
    fail_if_coincident(bad)
    return out


def labels(n_atoms_max: int, permutation: str = "sorted_l2", **_: Any) -> list[str]:
    """Return the name of each column."""
    return matrix_labels("ewald", n_atoms_max, permutation)


@njit(cache=True, nogil=True, error_model="numpy")
def _ewald_rows(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    inverse: np.ndarray,
    ptr: np.ndarray,
    volume: np.ndarray,
    screening: np.ndarray,
    r_cut: np.ndarray,
    g_cut: np.ndarray,
    permutation: int,
    n_max: int,
    out: np.ndarray,
) -> int:
    """Return the number of a structure with two atoms at one place, or -1.

    OUTPUT: out f[N, n_max² or n_max].
    """
    work = np.empty(n_max * n_max)
    fractional = np.empty((n_max, 3))
    for s in range(ptr.shape[0] - 1):
        begin, n = ptr[s], ptr[s + 1] - ptr[s]
        matrix = work[: n * n].reshape(n, n)
        a = screening[s]
        for i in range(n):
            for k in range(3):
                f = 0.0
                for c in range(3):
                    f += positions[begin + i, c] * inverse[s, c, k]
                fractional[i, k] = f - np.floor(f)
        _real_sum(fractional, n, cell[s], inverse[s], a, r_cut[s], matrix)
        _reciprocal_sum(fractional, n, cell[s], inverse[s], volume[s], a, g_cut[s], matrix)
        background = np.pi / (volume[s] * a * a)
        for i in range(n):
            zi = float(numbers[begin + i])
            for j in range(i):
                value = zi * float(numbers[begin + j]) * (matrix[i, j] - background)
                matrix[i, j] = value
                matrix[j, i] = value
            matrix[i, i] = zi * zi * (0.5 * (matrix[i, i] - background) - a / np.sqrt(np.pi))
        if not np.isfinite(matrix).all():
            return s
        arrange(matrix, permutation, n_max, out[s])
    return -1


@njit(cache=True, nogil=True, error_model="numpy")
def _real_sum(
    fractional: np.ndarray,
    n: int,
    cell: np.ndarray,
    inverse: np.ndarray,
    a: float,
    r_cut: float,
    matrix: np.ndarray,
) -> None:
    """Sum erfc(a r)/r over the images within r_cut.

    OUTPUT: matrix f8[n, n], lower triangle with the diagonal. The images of a pair lie on lines along the third
    vector; where each line enters and leaves the sphere is solved, so that no distance is computed in vain.
    """
    reach0 = r_cut * np.sqrt(inverse[0, 0] ** 2 + inverse[1, 0] ** 2 + inverse[2, 0] ** 2)
    reach1 = r_cut * np.sqrt(inverse[0, 1] ** 2 + inverse[1, 1] ** 2 + inverse[2, 1] ** 2)
    cx, cy, cz = cell[2, 0], cell[2, 1], cell[2, 2]
    cc = cx * cx + cy * cy + cz * cz
    limit = r_cut * r_cut
    for i in range(n):
        for j in range(i + 1):
            f0 = fractional[j, 0] - fractional[i, 0]
            f1 = fractional[j, 1] - fractional[i, 1]
            f2 = fractional[j, 2] - fractional[i, 2]
            total = 0.0
            for n0 in range(int(np.ceil(-reach0 - f0)), int(np.floor(reach0 - f0)) + 1):
                for n1 in range(int(np.ceil(-reach1 - f1)), int(np.floor(reach1 - f1)) + 1):
                    u, v = f0 + n0, f1 + n1
                    x = u * cell[0, 0] + v * cell[1, 0] + f2 * cx
                    y = u * cell[0, 1] + v * cell[1, 1] + f2 * cy
                    z = u * cell[0, 2] + v * cell[1, 2] + f2 * cz
                    along = (x * cx + y * cy + z * cz) / cc
                    inside = along * along - (x * x + y * y + z * z - limit) / cc
                    if inside < 0.0:
                        continue
                    half = np.sqrt(inside) + 1e-12
                    for n2 in range(int(np.ceil(-along - half)), int(np.floor(half - along)) + 1):
                        if i == j and n0 == 0 and n1 == 0 and n2 == 0:
                            continue
                        dx, dy, dz = x + n2 * cx, y + n2 * cy, z + n2 * cz
                        r2 = dx * dx + dy * dy + dz * dz
                        if r2 <= limit:
                            r = np.sqrt(r2)
                            total += math.erfc(a * r) / r
            matrix[i, j] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _reciprocal_sum(
    fractional: np.ndarray,
    n: int,
    cell: np.ndarray,
    inverse: np.ndarray,
    volume: float,
    a: float,
    g_cut: float,
    matrix: np.ndarray,
) -> None:
    """Add 4π/V Σ exp(-G²/4a²)/G² cos(G·r_ij) over 0 < |G| ≤ g_cut.

    OUTPUT: adds to matrix f8[n, n], lower triangle with the diagonal. G and -G are taken together; phases are
    products of powers of exp(2πi f).
    """
    m = np.empty(3, np.int64)
    for k in range(3):
        length = np.sqrt(cell[k, 0] ** 2 + cell[k, 1] ** 2 + cell[k, 2] ** 2)
        m[k] = int(np.floor(g_cut * length / (2.0 * np.pi) + 1e-9))
    top = max(m[0], m[1], m[2]) + 1
    power_c, power_s = np.empty((3, top, n)), np.empty((3, top, n))
    for k in range(3):
        for i in range(n):
            power_c[k, 0, i], power_s[k, 0, i] = 1.0, 0.0
        for h in range(1, m[k] + 1):
            for i in range(n):
                # Direct up to the fourth, then doubling: errors do not build up.
                if h <= 4:
                    phase = 2.0 * np.pi * h * fractional[i, k]
                    power_c[k, h, i], power_s[k, h, i] = np.cos(phase), np.sin(phase)
                else:
                    p, q = h // 2, h - h // 2
                    c0, s0 = power_c[k, p, i], power_s[k, p, i]
                    c1, s1 = power_c[k, q, i], power_s[k, q, i]
                    power_c[k, h, i], power_s[k, h, i] = c0 * c1 - s0 * s1, s0 * c1 + c0 * s1
    real, imag, c01, s01 = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    limit = g_cut * g_cut
    two_pi = 2.0 * np.pi
    for h0 in range(m[0] + 1):
        for h1 in range(-m[1] if h0 > 0 else 0, m[1] + 1):
            sign1 = -1.0 if h1 < 0 else 1.0
            for i in range(n):
                c, s = power_c[1, abs(h1), i], sign1 * power_s[1, abs(h1), i]
                c01[i] = power_c[0, h0, i] * c - power_s[0, h0, i] * s
                s01[i] = power_s[0, h0, i] * c + power_c[0, h0, i] * s
            for h2 in range(-m[2] if (h0 > 0 or h1 > 0) else 1, m[2] + 1):
                gx = two_pi * (h0 * inverse[0, 0] + h1 * inverse[0, 1] + h2 * inverse[0, 2])
                gy = two_pi * (h0 * inverse[1, 0] + h1 * inverse[1, 1] + h2 * inverse[1, 2])
                gz = two_pi * (h0 * inverse[2, 0] + h1 * inverse[2, 1] + h2 * inverse[2, 2])
                g2 = gx * gx + gy * gy + gz * gz
                if g2 > limit:
                    continue
                factor = 8.0 * np.pi / volume * np.exp(-g2 / (4.0 * a * a)) / g2
                root = np.sqrt(factor)
                sign2 = -1.0 if h2 < 0 else 1.0
                for i in range(n):
                    c, s = power_c[2, abs(h2), i], sign2 * power_s[2, abs(h2), i]
                    real[i] = root * (c01[i] * c - s01[i] * s)
                    imag[i] = root * (s01[i] * c + c01[i] * s)
                for i in range(n):
                    x, y = real[i], imag[i]
                    for j in range(i + 1):
                        matrix[i, j] += x * real[j] + y * imag[j]

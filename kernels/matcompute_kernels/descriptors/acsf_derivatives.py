"""Analytic derivatives of the atom-centred symmetry functions.

With a = r_ij², b = r_ik², d = r_jk², every G4 and G5 is g(a, b, d), so that ∂g/∂r_j = 2 r_ij g_a - 2 r_jk g_d and
∂g/∂r_k = 2 r_ik g_b + 2 r_jk g_d; the strain derivative is Σ r_ij ⊗ ∂g/∂r_j + r_ik ⊗ ∂g/∂r_k.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.descriptors.derivatives import KINDS, Derivatives, check_wrt
from matcompute_kernels.neighbors import NeighborList

__all__ = ["acsf_derivatives", "fill_derivatives"]


def acsf_derivatives(
    batch: Any,
    species: Iterable[int | str],
    r_cut: float,
    g2: Sequence[Sequence[float]] | np.ndarray | None = None,
    g3: Sequence[float] | np.ndarray | None = None,
    g4: Sequence[Sequence[float]] | np.ndarray | None = None,
    g5: Sequence[Sequence[float]] | np.ndarray | None = None,
    *,
    wrt: Collection[str] = KINDS,
    periodic: bool = True,
    dtype: Any = np.float64,
    neighbors: NeighborList | None = None,
    threads: int = 1,
) -> Derivatives:
    """Compute analytic derivatives of the symmetry functions of all sites.

    Parameters are those of :func:`matcompute_kernels.acsf`, which gives rows and derivatives in one pass with
    ``derivatives=True``.

    Parameters
    ----------
    wrt
        Which derivatives: any of ``"positions"``, ``"strain"``, ``"cell"``.

    Returns
    -------
    Derivatives
        As :func:`matcompute_kernels.soap_derivatives` gives; 24 bytes times columns for each pair of sites that see
        each other.

    Raises
    ------
    KernelInputError
        As :func:`matcompute_kernels.acsf`, or if ``wrt`` names something else.
    """
    from matcompute_kernels.descriptors.acsf import acsf

    wanted = check_wrt(wrt)
    settings: dict[str, Any] = {
        "periodic": periodic,
        "dtype": dtype,
        "neighbors": neighbors,
        "threads": threads,
    }
    _, found = acsf(batch, species, r_cut, g2, g3, g4, g5, derivatives=True, wrt=wanted, **settings)
    result: Derivatives = found
    return result


def fill_derivatives(
    pairs: Any,
    first: int,
    last: int,
    element: np.ndarray,
    s: int,
    functions: Any,
    dtype: np.dtype,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the derivatives of the rows ``first:last``: rows of each site, atoms, by position, by strain."""
    n_columns = functions.count(s)
    ptr, atom = _influences(first, last, pairs.ptr, pairs.j)
    values = np.zeros((len(atom), 3, n_columns), dtype)
    strain = np.zeros((last - first, 3, 3, n_columns), dtype)
    _derivatives(
        first,
        last,
        pairs.ptr,
        pairs.j,
        pairs.distance,
        pairs.vector,
        pairs.r_cut,
        element,
        s,
        functions.g2,
        np.ascontiguousarray(functions.g3),
        functions.g4,
        functions.g5,
        ptr,
        atom,
        values,
        strain,
    )
    return np.diff(ptr), atom, values, strain


@njit(cache=True, nogil=True)
def _influences(
    first: int, last: int, pair_ptr: np.ndarray, neighbor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Atoms that a row depends on: the neighbours, each once, and the centre; offsets i8[n + 1] and atoms i4[K]."""
    ptr = np.zeros(last - first + 1, np.int64)
    atoms = np.empty(neighbor.shape[0] + last - first, np.int32)
    k = 0
    for i in range(first, last):
        begin, end = pair_ptr[i - first], pair_ptr[i - first + 1]
        mine = np.empty(end - begin + 1, np.int32)
        mine[: end - begin] = neighbor[begin:end]
        mine[end - begin] = i
        mine.sort()
        for m in range(mine.shape[0]):
            if m == 0 or mine[m] != mine[m - 1]:
                atoms[k] = mine[m]
                k += 1
        ptr[i - first + 1] = k
    return ptr, atoms[:k].copy()


@njit(cache=True, nogil=True, error_model="numpy")
def _derivatives(
    first: int,
    last: int,
    pair_ptr: np.ndarray,
    neighbor: np.ndarray,
    distance: np.ndarray,
    vector: np.ndarray,
    r_cut: float,
    element: np.ndarray,
    n_species: int,
    g2: np.ndarray,
    g3: np.ndarray,
    g4: np.ndarray,
    g5: np.ndarray,
    ptr: np.ndarray,
    atom: np.ndarray,
    values: np.ndarray,
    strain: np.ndarray,
) -> None:
    """OUTPUT: values f[K, 3, F], strain f[n, 3, 3, F]."""
    n2, n3, n4, n5 = g2.shape[0], g3.shape[0], g4.shape[0], g5.shape[0]
    radial_columns = 1 + n2 + n3
    n_columns = values.shape[2]
    room = rows = 0
    for k in range(last - first):
        room = max(room, pair_ptr[k + 1] - pair_ptr[k])
        rows = max(rows, ptr[k + 1] - ptr[k])
    by_atom = np.zeros((rows, n_columns, 3))
    by_strain = np.zeros((n_columns, 3, 3))
    slot = np.empty(room, np.int64)
    f, slope = np.empty(room), np.empty(room)
    force_p, force_q = np.empty(3), np.empty(3)
    for i in range(first, last):
        begin, end = pair_ptr[i - first], pair_ptr[i - first + 1]
        n_rows = ptr[i - first + 1] - ptr[i - first]
        mine = atom[ptr[i - first] : ptr[i - first + 1]]
        by_atom[:n_rows] = 0.0
        by_strain[:] = 0.0
        own = np.searchsorted(mine, i)
        for p in range(begin, end):
            r = distance[p]
            k = p - begin
            slot[k] = np.searchsorted(mine, neighbor[p])
            f[k] = 0.5 * (1.0 + np.cos(np.pi * r / r_cut))
            slope[k] = -0.5 * np.pi / r_cut * np.sin(np.pi * r / r_cut)
            column = element[neighbor[p]] * radial_columns
            for t in range(radial_columns):
                if t == 0:
                    g = slope[k]
                elif t <= n2:
                    eta, x = g2[t - 1, 0], r - g2[t - 1, 1]
                    g = np.exp(-eta * x * x) * (slope[k] - 2.0 * eta * x * f[k])
                else:
                    kappa = g3[t - 1 - n2]
                    g = np.cos(kappa * r) * slope[k] - kappa * np.sin(kappa * r) * f[k]
                g /= r
                for c in range(3):
                    force = g * vector[p, c]
                    by_atom[slot[k], column + t, c] += force
                    by_atom[own, column + t, c] -= force
                    for a in range(3):
                        by_strain[column + t, a, c] += vector[p, a] * force
        for p in range(begin, end) if n4 + n5 > 0 else range(0):
            rp, fp, slope_p = distance[p], f[p - begin], slope[p - begin]
            for q in range(begin, p):
                dx = vector[q, 0] - vector[p, 0]
                dy = vector[q, 1] - vector[p, 1]
                dz = vector[q, 2] - vector[p, 2]
                far2 = dx * dx + dy * dy + dz * dz
                near = far2 < r_cut * r_cut
                if n5 == 0 and not near:
                    continue
                rq, fq, slope_q = distance[q], f[q - begin], slope[q - begin]
                far = np.sqrt(far2)
                a2, b2 = rp * rp, rq * rq
                product = 0.5 / (rp * rq)
                cosine = (a2 + b2 - far2) * product
                c_a, c_b, c_d = product - 0.5 * cosine / a2, product - 0.5 * cosine / b2, -product
                f_far = 0.5 * (1.0 + np.cos(np.pi * far / r_cut))
                slope_far = -0.5 * np.pi / r_cut * np.sin(np.pi * far / r_cut)
                high = max(element[neighbor[p]], element[neighbor[q]])
                low = min(element[neighbor[p]], element[neighbor[q]])
                column = n_species * radial_columns + (high * (high + 1) // 2 + low) * (n4 + n5)
                for t in range(n4 + n5):
                    if t < n4:
                        if not near:
                            continue
                        eta, zeta, lam = g4[t, 0], g4[t, 1], g4[t, 2]
                        cut, cut_a = fp * fq * f_far, 0.5 * slope_p / rp * fq * f_far
                        cut_b, cut_d = 0.5 * slope_q / rq * fp * f_far, 0.5 * slope_far / far * fp * fq
                        damping = np.exp(-eta * (a2 + b2 + far2))
                        eta_d = eta
                    else:
                        eta, zeta, lam = g5[t - n4, 0], g5[t - n4, 1], g5[t - n4, 2]
                        cut, cut_a = fp * fq, 0.5 * slope_p / rp * fq
                        cut_b, cut_d = 0.5 * slope_q / rq * fp, 0.0
                        damping = np.exp(-eta * (a2 + b2))
                        eta_d = 0.0
                    base = 0.5 * (1.0 + lam * cosine)
                    if abs(lam) <= 1.0:
                        base = max(base, 0.0)
                    lower = base ** (zeta - 1.0)
                    angle = 2.0 * lower * base
                    turn = zeta * lam * lower * cut
                    g_a = damping * (turn * c_a + angle * (cut_a - eta * cut))
                    g_b = damping * (turn * c_b + angle * (cut_b - eta * cut))
                    g_d = damping * (turn * c_d + angle * (cut_d - eta_d * cut))
                    force_p[0] = 2.0 * (vector[p, 0] * g_a - dx * g_d)
                    force_p[1] = 2.0 * (vector[p, 1] * g_a - dy * g_d)
                    force_p[2] = 2.0 * (vector[p, 2] * g_a - dz * g_d)
                    force_q[0] = 2.0 * (vector[q, 0] * g_b + dx * g_d)
                    force_q[1] = 2.0 * (vector[q, 1] * g_b + dy * g_d)
                    force_q[2] = 2.0 * (vector[q, 2] * g_b + dz * g_d)
                    for c in range(3):
                        by_atom[slot[p - begin], column + t, c] += force_p[c]
                        by_atom[slot[q - begin], column + t, c] += force_q[c]
                        by_atom[own, column + t, c] -= force_p[c] + force_q[c]
                        for a in range(3):
                            by_strain[column + t, a, c] += (
                                vector[p, a] * force_p[c] + vector[q, a] * force_q[c]
                            )
        for k in range(n_rows):
            for c in range(3):
                for t in range(n_columns):
                    values[ptr[i - first] + k, c, t] = by_atom[k, t, c]
        for a in range(3):
            for c in range(3):
                for t in range(n_columns):
                    strain[i - first, a, c, t] = by_strain[t, a, c]

"""Do two reduced structures match within tolerances?"""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.screening.lattice import lll

__all__ = ["assign", "matches"]

_FAR = 1e20


@njit(cache=True)
def assign(cost: np.ndarray) -> np.ndarray:
    """Return, for each row, the column of the assignment of least total cost, i8[n]; cost is f8[n, n].

    Shortest augmenting paths (R. Jonker, A. Volgenant, Computing 38, 325 (1987)).
    """
    n = cost.shape[0]
    u, v = np.zeros(n + 1), np.zeros(n + 1)
    owner = np.zeros(n + 1, dtype=np.int64)
    way = np.zeros(n + 1, dtype=np.int64)
    low = np.empty(n + 1)
    done = np.empty(n + 1, dtype=np.bool_)
    for i in range(1, n + 1):
        owner[0] = i
        j0 = 0
        low[:] = np.inf
        done[:] = False
        while True:
            done[j0] = True
            i0, delta, j1 = owner[j0], np.inf, 0
            for j in range(1, n + 1):
                if done[j]:
                    continue
                d = cost[i0 - 1, j - 1] - u[i0] - v[j]
                if d < low[j]:
                    low[j] = d
                    way[j] = j0
                if low[j] < delta:
                    delta = low[j]
                    j1 = j
            for j in range(n + 1):
                if done[j]:
                    u[owner[j]] += delta
                    v[j] -= delta
                else:
                    low[j] -= delta
            j0 = j1
            if owner[j0] == 0:
                break
        while j0 != 0:
            j1 = way[j0]
            owner[j0] = owner[j1]
            j0 = j1
    column = np.empty(n, dtype=np.int64)
    for j in range(1, n + 1):
        column[owner[j] - 1] = j - 1
    return column


@njit(cache=True)
def _parameters(cell: np.ndarray, out: np.ndarray) -> None:
    """Write a, b, c and α, β, γ in degrees, OUTPUT f8[6]."""
    for k in range(3):
        out[k] = np.sqrt((cell[k] * cell[k]).sum())
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        x = (cell[i] * cell[j]).sum() / (out[i] * out[j])
        out[3 + k] = np.degrees(np.arccos(min(max(x, -1.0), 1.0)))


@njit(cache=True)
def _from_parameters(p: np.ndarray) -> np.ndarray:
    """Return a cell with these parameters, c along z, f8[3, 3]."""
    alpha, beta, gamma = np.radians(p[3]), np.radians(p[4]), np.radians(p[5])
    x = (np.cos(alpha) * np.cos(beta) - np.cos(gamma)) / (np.sin(alpha) * np.sin(beta))
    star = np.arccos(min(max(x, -1.0), 1.0))
    cell = np.zeros((3, 3))
    cell[0, 0], cell[0, 2] = p[0] * np.sin(beta), p[0] * np.cos(beta)
    cell[1, 0] = -p[1] * np.sin(alpha) * np.cos(star)
    cell[1, 1] = p[1] * np.sin(alpha) * np.sin(star)
    cell[1, 2] = p[1] * np.cos(alpha)
    cell[2, 2] = p[2]
    return cell


@njit(cache=True)
def _near_length(cell: np.ndarray, lengths: np.ndarray, ltol: float) -> tuple:
    """Return the lattice points of ``cell`` as long as each of three lengths: (points i8[P, 3], vectors f8[P, 3],
    norms f8[P], fits bool[3, P])."""
    radius = lengths.max() * (1.0 + ltol)
    inverse = np.linalg.inv(cell)
    top = np.zeros(3, dtype=np.int64)
    for k in range(3):
        top[k] = int(np.floor(radius * np.sqrt((inverse[:, k] ** 2).sum()) + 1e-9))
    room = (2 * top[0] + 1) * (2 * top[1] + 1) * (2 * top[2] + 1)
    points = np.empty((room, 3), dtype=np.int64)
    vectors = np.empty((room, 3))
    norms = np.empty(room)
    fits = np.zeros((3, room), dtype=np.bool_)
    used = 0
    for h in range(-top[0], top[0] + 1):
        for k in range(-top[1], top[1] + 1):
            for m in range(-top[2], top[2] + 1):
                x = h * cell[0, 0] + k * cell[1, 0] + m * cell[2, 0]
                y = h * cell[0, 1] + k * cell[1, 1] + m * cell[2, 1]
                z = h * cell[0, 2] + k * cell[1, 2] + m * cell[2, 2]
                d = np.sqrt(x * x + y * y + z * z)
                some = False
                for q in range(3):
                    fit = d / lengths[q] < 1.0 + ltol and d / lengths[q] > 1.0 / (1.0 + ltol)
                    fits[q, used] = fit
                    some |= fit
                if some:
                    points[used, 0], points[used, 1], points[used, 2] = h, k, m
                    vectors[used, 0], vectors[used, 1], vectors[used, 2] = x, y, z
                    norms[used] = d
                    used += 1
    return points[:used], vectors[:used], norms[:used], fits[:, :used]


@njit(cache=True)
def _all_near(
    a: np.ndarray,
    a_kind: np.ndarray,
    b: np.ndarray,
    b_kind: np.ndarray,
    shift: np.ndarray,
    tolerance: np.ndarray,
) -> bool:
    """Is a site of ``a`` of the same kind within ``tolerance`` of every shifted site of ``b`` (both fractional)?"""
    for i in range(b.shape[0]):
        found = False
        for j in range(a.shape[0]):
            if a_kind[j] != b_kind[i]:
                continue
            ok = True
            for k in range(3):
                d = b[i, k] + shift[k] - a[j, k]
                if abs(d - np.rint(d)) > tolerance[k]:
                    ok = False
                    break
            if ok:
                found = True
                break
        if not found:
            return False
    return True


@njit(cache=True)
def _largest_shift(
    a: np.ndarray,
    a_kind: np.ndarray,
    b: np.ndarray,
    b_kind: np.ndarray,
    shift: np.ndarray,
    cell: np.ndarray,
    stol: float,
    scale: float,
) -> float:
    """Largest distance of assigned sites (in units of 1 / scale) after the best common translation."""
    n = a.shape[0]
    reduced = lll(cell)
    to_reduced = cell @ np.linalg.inv(reduced)
    for i in range(3):
        for k in range(3):
            to_reduced[i, k] = np.rint(to_reduced[i, k])
    dual = np.linalg.inv(reduced)
    near = np.zeros(3)
    for k in range(3):
        near[k] = 2.0 * np.sqrt((dual[:, k] ** 2).sum()) * stol / scale
    fa, fb = a @ to_reduced, (b + shift) @ to_reduced
    squared = np.full((n, n), _FAR)
    vectors = np.zeros((n, n, 3))
    d = np.zeros(3)
    for i in range(n):
        for j in range(n):
            if a_kind[j] != b_kind[i]:
                continue
            ok = True
            for k in range(3):
                d[k] = fa[j, k] - fb[i, k]
                d[k] -= np.rint(d[k])
                if abs(d[k]) > near[k]:
                    ok = False
                    break
            if not ok:
                continue
            for h in range(-1, 2):
                for k in range(-1, 2):
                    for m in range(-1, 2):
                        p, q, r = d[0] + h, d[1] + k, d[2] + m
                        x = p * reduced[0, 0] + q * reduced[1, 0] + r * reduced[2, 0]
                        y = p * reduced[0, 1] + q * reduced[1, 1] + r * reduced[2, 1]
                        z = p * reduced[0, 2] + q * reduced[1, 2] + r * reduced[2, 2]
                        d2 = x * x + y * y + z * z
                        if d2 < squared[i, j]:
                            squared[i, j] = d2
                            vectors[i, j, 0], vectors[i, j, 1], vectors[i, j, 2] = x, y, z
    column = assign(squared)
    mean = np.zeros(3)
    for i in range(n):
        if squared[i, column[i]] >= _FAR:
            return np.inf
        mean += vectors[i, column[i]]
    mean /= n
    largest = 0.0
    for i in range(n):
        largest = max(largest, ((vectors[i, column[i]] - mean) ** 2).sum())
    return np.sqrt(largest) * scale


@njit(cache=True)
def matches(
    a_kind: np.ndarray,
    a_frac: np.ndarray,
    a_cell: np.ndarray,
    b_kind: np.ndarray,
    b_frac: np.ndarray,
    b_cell: np.ndarray,
    ltol: float,
    stol: float,
    angle_tol: float,
    scale: bool,
) -> bool:
    """Does structure b match structure a? Both must be reduced and have the same composition.

    pymatgen's ``StructureMatcher.fit`` without supercells: every basis of the lattice of a that is like that of b
    within ``ltol`` and ``angle_tol`` (degrees), and every translation that brings a site of the rarest kind of b onto
    one of a, is tried; the sites are then assigned on the average lattice, and the largest distance must be below
    stol (V/n)^(1/3).
    """
    n = a_kind.shape[0]
    if b_kind.shape[0] != n:
        return False
    a_cell, b_cell = a_cell.copy(), b_cell.copy()
    if scale:
        ratio = (abs(np.linalg.det(b_cell)) / abs(np.linalg.det(a_cell))) ** (1.0 / 6.0)
        a_cell *= ratio
        b_cell /= ratio
    counts_a, counts_b = np.zeros(256, dtype=np.int64), np.zeros(256, dtype=np.int64)
    for i in range(n):
        counts_a[a_kind[i]] += 1
        counts_b[b_kind[i]] += 1
    for k in range(256):
        if counts_a[k] != counts_b[k]:
            return False
    anchor = 0
    for i in range(n):
        if counts_b[b_kind[i]] < counts_b[b_kind[anchor]]:
            anchor = i

    target, own, mean = np.zeros(6), np.zeros(6), np.zeros(6)
    _parameters(b_cell, target)
    points, vectors, norms, fits = _near_length(a_cell, target[:3], ltol)
    found = norms.shape[0]
    cosine = vectors @ vectors.T
    angles = np.empty((found, found))
    for i in range(found):
        for j in range(found):
            x = cosine[i, j] / (norms[i] * norms[j])
            angles[i, j] = np.degrees(np.arccos(min(max(x, -1.0), 1.0)))
    cartesian = a_frac @ a_cell
    basis = np.zeros((3, 3))
    tolerance, shift = np.zeros(3), np.zeros(3)
    for i in range(found):
        if not fits[0, i]:
            continue
        for j in range(found):
            if not fits[1, j] or abs(angles[i, j] - target[5]) > angle_tol:
                continue
            for k in range(found):
                if (
                    not fits[2, k]
                    or abs(angles[j, k] - target[3]) > angle_tol
                    or abs(angles[i, k] - target[4]) > angle_tol
                ):
                    continue
                p, q, r = points[i], points[j], points[k]
                det = (
                    p[0] * (q[1] * r[2] - q[2] * r[1])
                    - p[1] * (q[0] * r[2] - q[2] * r[0])
                    + p[2] * (q[0] * r[1] - q[1] * r[0])
                )
                if abs(det) != 1:
                    continue
                basis[0], basis[1], basis[2] = vectors[i], vectors[j], vectors[k]
                _parameters(basis, own)
                for c in range(6):
                    mean[c] = 0.5 * (own[c] + target[c])
                average = _from_parameters(mean)
                dual = np.linalg.inv(average)
                density = (n / abs(np.linalg.det(average))) ** (1.0 / 3.0)
                for c in range(3):
                    tolerance[c] = 2.0 * np.sqrt((dual[:, c] ** 2).sum()) * stol / density
                frac = cartesian @ np.linalg.inv(basis)
                for s in range(n):
                    if a_kind[s] != b_kind[anchor]:
                        continue
                    for c in range(3):
                        shift[c] = frac[s, c] - b_frac[anchor, c]
                    if not _all_near(frac, a_kind, b_frac, b_kind, shift, tolerance):
                        continue
                    if _largest_shift(frac, a_kind, b_frac, b_kind, shift, average, stol, density) < stol:
                        return True
    return False

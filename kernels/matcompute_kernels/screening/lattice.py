"""Lattice reduction: Lenstra-Lenstra-Lovász and Niggli."""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit

__all__ = ["lll", "niggli"]


@njit(cache=True)
def lll(matrix: np.ndarray) -> np.ndarray:
    """Return an LLL-reduced basis (δ = 0.75) of the rows of ``matrix``, f8[3, 3]."""
    a = matrix.copy()
    b = np.zeros((3, 3))
    u = np.zeros((3, 3))
    norm = np.zeros(3)
    k = 1
    for _ in range(1000):
        if k > 2:
            break
        for i in range(3):  # Gram-Schmidt
            b[i] = a[i]
            for j in range(i):
                u[i, j] = (a[i] * b[j]).sum() / norm[j]
                b[i] -= u[i, j] * b[j]
            norm[i] = (b[i] * b[i]).sum()
        for i in range(k - 1, -1, -1):
            q = np.rint(u[k, i])
            if q != 0.0:
                a[k] -= q * a[i]
                for j in range(i):
                    u[k, j] -= q * u[i, j]
                u[k, i] -= q
        if norm[k] >= (0.75 - u[k, k - 1] ** 2) * norm[k - 1] * (1.0 - 1e-12):
            k += 1
        else:
            swap = a[k].copy()
            a[k] = a[k - 1]
            a[k - 1] = swap
            k = max(k - 1, 1)
    return a


@njit(cache=True)
def _first_like(cell: np.ndarray, wanted: np.ndarray, ltol: float, atol: float) -> np.ndarray:
    """Return the first basis of the lattice of ``cell`` with the lengths and angles (atol in degrees) of ``wanted``.

    Several bases of a pseudo-symmetric lattice fit; what depends on the choice (cells that are primitive within a
    tolerance) comes out as in pymatgen only if the choice is the same. Lattice points are therefore taken in the order
    of its cell list: boxes of the search radius around the origin, in each the later image first. A right-handed
    combination goes before the first left-handed one.
    """
    length, angle = np.zeros(3), np.zeros(3)
    for k in range(3):
        length[k] = np.sqrt((wanted[k] * wanted[k]).sum())
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        x = (wanted[i] * wanted[j]).sum() / (length[i] * length[j])
        angle[k] = np.degrees(np.arccos(min(max(x, -1.0), 1.0)))
    radius = length.max() * (1.0 + ltol)
    inverse = np.linalg.inv(cell)
    top = np.zeros(3, dtype=np.int64)
    for k in range(3):
        top[k] = int(np.ceil((radius + 0.15) * np.sqrt((inverse[:, k] ** 2).sum())))
    points = []
    boxes = []
    for h in range(top[0], -top[0] - 1, -1):
        for k in range(top[1], -top[1] - 1, -1):
            for m in range(top[2], -top[2] - 1, -1):
                x = h * cell[0, 0] + k * cell[1, 0] + m * cell[2, 0]
                y = h * cell[0, 1] + k * cell[1, 1] + m * cell[2, 1]
                z = h * cell[0, 2] + k * cell[1, 2] + m * cell[2, 2]
                d = np.sqrt(x * x + y * y + z * z)
                some = False
                for q in range(3):
                    some |= d / length[q] < 1.0 + ltol and d / length[q] > 1.0 / (1.0 + ltol)
                if some:
                    points.append((h, k, m, x, y, z, d))
                    box = 0
                    for v in (x, y, z):
                        box = 3 * box + int(np.floor((v + radius + 2e-8) / radius))
                    boxes.append(box)
    order = np.argsort(np.array(boxes), kind="mergesort")
    n = order.shape[0]
    place, vector, norm = np.zeros((n, 3)), np.zeros((n, 3)), np.zeros(n)
    for p in range(n):
        h, k, m, x, y, z, d = points[order[p]]
        place[p, 0], place[p, 1], place[p, 2] = h, k, m
        vector[p, 0], vector[p, 1], vector[p, 2] = x, y, z
        norm[p] = d
    first = np.zeros((3, 3))
    have = False
    between = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            x = (vector[i] * vector[j]).sum() / (norm[i] * norm[j])
            between[i, j] = np.degrees(np.arccos(min(max(x, -1.0), 1.0)))
    for i in range(n):
        if not 1.0 / (1.0 + ltol) < norm[i] / length[0] < 1.0 + ltol:
            continue
        for j in range(n):
            if (
                not 1.0 / (1.0 + ltol) < norm[j] / length[1] < 1.0 + ltol
                or abs(between[i, j] - angle[2]) > atol
            ):
                continue
            for k in range(n):
                if (
                    not 1.0 / (1.0 + ltol) < norm[k] / length[2] < 1.0 + ltol
                    or abs(between[j, k] - angle[0]) > atol
                    or abs(between[i, k] - angle[1]) > atol
                ):
                    continue
                p, q, r = place[i], place[j], place[k]
                det = (
                    p[0] * (q[1] * r[2] - q[2] * r[1])
                    - p[1] * (q[0] * r[2] - q[2] * r[0])
                    + p[2] * (q[0] * r[1] - q[1] * r[0])
                )
                if abs(det) < 1e-8 or (have and det < 0.0):
                    continue
                first[0], first[1], first[2] = vector[i], vector[j], vector[k]
                if det > 0.0:
                    return first
                have = True
    return first if have else wanted


@njit(cache=True)
def niggli(matrix: np.ndarray) -> np.ndarray:
    """Return a Niggli-reduced, right-handed basis of the rows of ``matrix``, f8[3, 3].

    R. W. Grosse-Kunstleve, N. K. Sauter, P. D. Adams, Acta Cryst. A60, 1 (2004), with pymatgen's order of steps and
    tolerance (10⁻⁵ V^(1/3)), started from the LLL-reduced basis. The steps are applied to the basis itself.
    """
    r = lll(matrix)
    e = 1e-5 * abs(np.linalg.det(matrix)) ** (1.0 / 3.0)
    for _ in range(100):
        g = r @ r.T
        aa, bb, cc = g[0, 0], g[1, 1], g[2, 2]
        ee, nn, yy = 2.0 * g[1, 2], 2.0 * g[0, 2], 2.0 * g[0, 1]
        if bb + e < aa or (abs(aa - bb) < e and abs(ee) > abs(nn) + e):
            first = r[0].copy()
            r[0] = -r[1]
            r[1] = -first
            r[2] = -r[2]
            g = r @ r.T
            aa, bb, cc = g[0, 0], g[1, 1], g[2, 2]
            ee, nn, yy = 2.0 * g[1, 2], 2.0 * g[0, 2], 2.0 * g[0, 1]
        if cc + e < bb or (abs(bb - cc) < e and abs(nn) > abs(yy) + e):
            second = r[1].copy()
            r[0] = -r[0]
            r[1] = -r[2]
            r[2] = -second
            continue
        ll = 0.0 if abs(ee) < e else np.sign(ee)
        mm = 0.0 if abs(nn) < e else np.sign(nn)
        n = 0.0 if abs(yy) < e else np.sign(yy)
        if ll * mm * n == 1.0:
            i = -1.0 if ll == -1.0 else 1.0
            j = -1.0 if mm == -1.0 else 1.0
            k = -1.0 if n == -1.0 else 1.0
        else:
            i = -1.0 if ll == 1.0 else 1.0
            j = -1.0 if mm == 1.0 else 1.0
            k = -1.0 if n == 1.0 else 1.0
            if i * j * k == -1.0:
                if n == 0.0:
                    k = -1.0
                elif mm == 0.0:
                    j = -1.0
                elif ll == 0.0:
                    i = -1.0
        r[0] *= i
        r[1] *= j
        r[2] *= k
        g = r @ r.T
        aa, bb, cc = g[0, 0], g[1, 1], g[2, 2]
        ee, nn, yy = 2.0 * g[1, 2], 2.0 * g[0, 2], 2.0 * g[0, 1]
        if abs(ee) > bb + e or (abs(ee - bb) < e and yy - e > 2.0 * nn) or (abs(ee + bb) < e and -e > yy):
            r[2] -= np.sign(ee) * r[1]
            continue
        if abs(nn) > aa + e or (abs(aa - nn) < e and yy - e > 2.0 * ee) or (abs(aa + nn) < e and -e > yy):
            r[2] -= np.sign(nn) * r[0]
            continue
        if abs(yy) > aa + e or (abs(aa - yy) < e and nn - e > 2.0 * ee) or (abs(aa + yy) < e and -e > nn):
            r[1] -= np.sign(yy) * r[0]
            continue
        total = ee + nn + yy + aa + bb
        if -e > total or (abs(total) < e and e < yy + (aa + nn) * 2.0):
            r[2] += r[0] + r[1]
            continue
        break
    r = _first_like(matrix, r, e, 1.0)
    return -r if np.linalg.det(r) < 0.0 else r

"""Primitive cells within a tolerance."""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.screening.lattice import niggli

__all__ = ["primitive"]


@njit(cache=True)
def _close(x: np.ndarray, y: np.ndarray, tolerance: np.ndarray) -> bool:
    for k in range(3):
        d = x[k] - y[k]
        if not abs(d - np.rint(d)) < tolerance[k]:
            return False
    return True


@njit(cache=True)
def _translations(frac: np.ndarray, ptr: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Return the vectors (from the first site of the rarest element) that map each element onto itself, f8[V, 3]."""
    groups = ptr.shape[0] - 1
    rarest = 0
    for g in range(groups):
        if ptr[g + 1] - ptr[g] < ptr[rarest + 1] - ptr[rarest]:
            rarest = g
    vectors = frac[ptr[rarest] : ptr[rarest + 1]] - frac[ptr[rarest]]
    keep = np.ones(vectors.shape[0], dtype=np.bool_)
    target = np.zeros(3)
    for v in range(vectors.shape[0]):
        for g in range(groups):
            for i in range(ptr[g], ptr[g + 1]):
                for k in range(3):
                    target[k] = frac[i, k] + vectors[v, k]
                found = False
                for j in range(ptr[g], ptr[g + 1]):
                    if _close(frac[j], target, tolerance):
                        found = True
                        break
                if not found:
                    keep[v] = False
                    break
            if not keep[v]:
                break
    return vectors[keep]


@njit(cache=True)
def _fold(
    frac: np.ndarray,
    ptr: np.ndarray,
    apart: np.ndarray,
    cell: np.ndarray,
    h: np.ndarray,
    size: int,
    tolerance: float,
    out: np.ndarray,
) -> bool:
    """Fold the sites into the cell h⁻¹·cell if they form groups of ``size``; averages into out f8[n / size, 3]."""
    smaller = np.linalg.inv(h) @ cell
    near = np.zeros(3)
    for k in range(3):
        near[k] = tolerance / np.sqrt((smaller[k] * smaller[k]).sum())
    n = frac.shape[0]
    inside = frac @ h
    same = np.zeros((n, n), dtype=np.bool_)
    for g in range(ptr.shape[0] - 1):
        for i in range(ptr[g], ptr[g + 1]):
            count = 0
            for j in range(ptr[g], ptr[g + 1]):
                same[i, j] = apart[i, j] and _close(inside[j], inside[i], near)
                count += same[i, j]
            if count != size:
                return False
    for g in range(ptr.shape[0] - 1):
        for i in range(ptr[g], ptr[g + 1]):
            for j in range(ptr[g], ptr[g + 1]):
                if same[i, j]:
                    for k in range(ptr[g], ptr[g + 1]):
                        if same[i, k] and not same[j, k]:
                            return False
    added = np.zeros(n, dtype=np.bool_)
    made = 0
    for i in range(n):
        if added[i]:
            continue
        members = 0
        for j in range(n):
            if not same[i, j]:
                continue
            added[j] = True
            for k in range(3):
                value = inside[j, k] - np.floor(inside[j, k])
                if members == 0:
                    out[made, k] = value
                else:
                    offset = value - out[made, k]
                    out[made, k] += (offset - np.rint(offset)) / (members + 1)
            members += 1
        made += 1
    return True


@njit(cache=True)
def _smaller(
    kind: np.ndarray, frac: np.ndarray, cell: np.ndarray, tolerance: float
) -> tuple[bool, np.ndarray, np.ndarray, np.ndarray]:
    """Return (found, kind, frac, cell) of the first smaller cell; ``kind`` must rise."""
    n = kind.shape[0]
    groups = 0
    ptr = np.zeros(n + 1, dtype=np.int64)
    for i in range(n):
        if i == 0 or kind[i] != kind[i - 1]:
            ptr[groups] = i
            groups += 1
    ptr[groups] = n
    ptr = ptr[: groups + 1]
    units = 0
    for g in range(groups):
        a, b = units, ptr[g + 1] - ptr[g]
        while b != 0:
            a, b = b, a % b
        units = a
    if units == 1:
        return False, kind, frac, cell
    near = np.zeros(3)
    for k in range(3):
        near[k] = tolerance / np.sqrt((cell[k] * cell[k]).sum())
    vectors = _translations(frac, ptr, 2.0 * near)
    apart = np.zeros((n, n), dtype=np.bool_)  # sites that are no neighbours of one another
    for g in range(groups):
        for i in range(ptr[g], ptr[g + 1]):
            for j in range(ptr[g], ptr[g + 1]):
                if i == j:
                    apart[i, j] = True
                    continue
                for k in range(3):
                    d = frac[j, k] - frac[i, k]
                    if abs(d - np.rint(d)) > 2.0 * near[k]:
                        apart[i, j] = True
    h = np.zeros((3, 3))
    row = np.zeros(3)
    for size in range(2, units + 1):
        if units % size != 0:
            continue
        for a in range(1, size + 1):
            if size % a != 0:
                continue
            for e in range(1, size // a + 1):
                if (size // a) % e != 0:
                    continue
                g3 = size // a // e
                for b in range(a):
                    for c in range(a):
                        for f in range(e):
                            h[0, 0], h[0, 1], h[0, 2] = a, b, c
                            h[1, 1], h[1, 2], h[2, 2] = e, f, g3
                            ok = True
                            for k in range(2, -1, -1):
                                # row k of the inverse of the upper triangular h
                                row[0] = 0.0
                                row[1] = 0.0
                                row[k] = 1.0 / h[k, k]
                                if k == 0:
                                    row[1] = -b / (a * float(e))
                                    row[2] = (b * f - c * e) / (a * float(e) * g3)
                                elif k == 1:
                                    row[2] = -f / (e * float(g3))
                                found = False
                                for v in range(vectors.shape[0]):
                                    if _close(row, vectors[v], near):
                                        found = True
                                        break
                                if not found:
                                    ok = False
                                    break
                            if not ok:
                                continue
                            out = np.zeros((n // size, 3))
                            if _fold(frac, ptr, apart, cell, h, size, tolerance, out):
                                folded = np.zeros(n // size, dtype=kind.dtype)
                                at = 0
                                for g in range(groups):
                                    for _ in range((ptr[g + 1] - ptr[g]) // size):
                                        folded[at] = kind[ptr[g]]
                                        at += 1
                                return True, folded, out, np.linalg.inv(h) @ cell
    return False, kind, frac, cell


@njit(cache=True)
def primitive(
    kind: np.ndarray, positions: np.ndarray, cell: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (kind, fractional coordinates, cell) of a Niggli-reduced cell that is primitive within ``tolerance`` Å.

    pymatgen's ``get_reduced_structure`` followed by ``get_primitive_structure``: cells a whole fraction of the present
    one are tried, smaller fractions of the sites first, until none folds all sites onto groups of one element; sites
    of a group are averaged. ``kind`` ranks elements by their symbols; a cell that cannot be made smaller keeps the
    order of its sites, otherwise they come sorted by kind.
    """
    reduced = niggli(cell)
    frac = positions @ np.linalg.inv(reduced)
    order = np.argsort(kind, kind="mergesort")
    found, k, f, c = _smaller(kind[order], frac[order], reduced, tolerance)
    if not found:
        return kind, frac, reduced
    folds = 0
    while found:
        folds += 1
        found, k, f, c = _smaller(k, f, c, tolerance)
    last = c
    for _ in range(folds):  # once for each fold, as in pymatgen's recursion
        last = niggli(last)
    return k, (f @ c) @ np.linalg.inv(last), last

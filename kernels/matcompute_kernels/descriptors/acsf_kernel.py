"""Kernel of the atom-centred symmetry functions.

Neighbours of a site are sorted by element. For each pair of elements the triplets within the cutoff are gathered into
buffers of plain arrays; exponentials, cutoffs and powers of the distinct parameters are then computed on whole
buffers, and every G4 is one dot product of an exponential with a power.
"""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.elementary import cosine_cutoff, exp_negative
from matcompute_kernels.simd import PADDING, append_near

__all__ = ["fill_rows", "sort_by_element"]

#: Triplets that a buffer holds before it is worked off (stays in the second-level cache).
BUFFER = 1024


@njit(cache=True, nogil=True, error_model="numpy")
def sort_by_element(
    begin: int,
    end: int,
    neighbor: np.ndarray,
    element: np.ndarray,
    start: np.ndarray,
    order: np.ndarray,
) -> None:
    """Counting sort of the pairs ``begin:end`` by element of the neighbour.

    OUTPUT: start i8[S + 1] (runs of the elements), order i8[pairs] (pair of each place).
    """
    s = start.shape[0] - 1
    start[:] = 0
    for p in range(begin, end):
        start[element[neighbor[p]] + 1] += 1
    for a in range(s):
        start[a + 1] += start[a]
    for p in range(begin, end):
        a = element[neighbor[p]]
        order[start[a]] = p
        start[a] += 1
    for a in range(s, 0, -1):
        start[a] = start[a - 1]
    start[0] = 0


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _dot(x: np.ndarray, y: np.ndarray, n: int) -> float:
    """``reassoc`` lets the sum run in vector lanes; the order of a sum is free."""
    total = 0.0
    for k in range(n):
        total += x[k] * y[k]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _sum(x: np.ndarray, begin: int, end: int) -> float:
    total = 0.0
    for k in range(begin, end):
        total += x[k]
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _dot_from(x: np.ndarray, y: np.ndarray, begin: int, end: int) -> float:
    total = 0.0
    for k in range(begin, end):
        total += x[k] * y[k]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _power(base: np.ndarray, zeta: float, n: int, square: np.ndarray, out: np.ndarray) -> None:
    """OUTPUT: out f8[n] = base^zeta (binary powers if zeta is an integer); ``square`` is work space."""
    whole = int(zeta)
    if whole != zeta or whole > 4096:
        for k in range(n):
            out[k] = base[k] ** zeta
        return
    if whole == 1:
        for k in range(n):
            out[k] = base[k]
        return
    if whole == 2:
        for k in range(n):
            out[k] = base[k] * base[k]
        return
    if whole == 4:
        for k in range(n):
            x = base[k] * base[k]
            out[k] = x * x
        return
    for k in range(n):
        square[k] = base[k]
        out[k] = base[k] if whole & 1 else 1.0
    whole >>= 1
    while whole > 0:
        odd = (whole & 1) == 1
        for k in range(n):
            x = square[k] * square[k]
            square[k] = x
            out[k] = out[k] * x if odd else out[k]
        whole >>= 1


@njit(cache=True, nogil=True, error_model="numpy")
def _work_off(
    n: int,
    exponent: np.ndarray,
    cosine: np.ndarray,
    cutoff: np.ndarray,
    etas: np.ndarray,
    angular: np.ndarray,
    which: np.ndarray,
    radial: np.ndarray,
    power: np.ndarray,
    base: np.ndarray,
    square: np.ndarray,
    row: np.ndarray,
    column: int,
) -> None:
    """Add the n triplets of a buffer to the functions of a block. OUTPUT: adds to row[column:]."""
    for e in range(etas.shape[0]):
        line, eta = radial[e], etas[e]
        for k in range(n):
            line[k] = exp_negative(-eta * exponent[k]) * cutoff[k]
    for a in range(angular.shape[0]):
        if a == 0 or angular[a, 1] != angular[a - 1, 1]:
            half = 0.5 * angular[a, 1]
            clip = abs(angular[a, 1]) <= 1.0
            for k in range(n):
                x = 0.5 + half * cosine[k]
                base[k] = max(x, 0.0) if clip else x
        _power(base, angular[a, 0], n, square, power[a])
    for t in range(which.shape[0]):
        row[column + t] += 2.0 * _dot(radial[which[t, 0]], power[which[t, 1]], n)


@njit(cache=True, nogil=True, error_model="numpy")
def fill_rows(
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
    etas4: np.ndarray,
    angular4: np.ndarray,
    which4: np.ndarray,
    etas5: np.ndarray,
    angular5: np.ndarray,
    which5: np.ndarray,
    offset: int,
    out: np.ndarray,
) -> None:
    """Symmetry functions of the sites ``first:last``. OUTPUT: out f[., F], row ``i - offset`` for site i."""
    n2, n3, n4, n5 = g2.shape[0], g3.shape[0], which4.shape[0], which5.shape[0]
    radial_columns = 1 + n2 + n3
    room = 0
    for k in range(last - first):
        room = max(room, pair_ptr[k + 1] - pair_ptr[k])
    xyz = np.zeros((3, room + PADDING))
    r, inverse, r2, f, work = np.empty(room), np.empty(room), np.empty(room), np.empty(room), np.empty(room)
    order = np.empty(room, np.int64)
    hits = np.empty(room + PADDING, np.int32)
    start = np.zeros(n_species + 1, np.int64)
    size = BUFFER + room
    exponent, cosine, cutoff = np.empty(size), np.empty(size), np.empty(size)
    base, square = np.empty(size), np.empty(size)
    radial = np.empty((max(len(etas4), len(etas5)), size))
    power = np.empty((max(len(angular4), len(angular5)), size))
    row = np.empty(out.shape[1])
    square_cut = r_cut * r_cut
    inverse_cut = 1.0 / square_cut
    for i in range(first, last):
        begin, end = pair_ptr[i - first], pair_ptr[i - first + 1]
        sort_by_element(begin, end, neighbor, element, start, order)
        count = end - begin
        for k in range(count):
            p = order[k]
            xyz[0, k], xyz[1, k], xyz[2, k] = vector[p, 0], vector[p, 1], vector[p, 2]
            r[k] = distance[p]
        xyz[:, count : count + PADDING] = 1e30
        for k in range(count):
            inverse[k] = 1.0 / r[k]
            r2[k] = r[k] * r[k]
            f[k] = cosine_cutoff(r2[k] * inverse_cut)
        row[:] = 0.0
        for a in range(n_species):
            column = a * radial_columns
            row[column] = _sum(f, start[a], start[a + 1])
        for t in range(n2):
            eta, shift = g2[t, 0], g2[t, 1]
            for k in range(count):
                work[k] = exp_negative(-eta * (r[k] - shift) * (r[k] - shift))
            for a in range(n_species):
                if start[a + 1] > start[a]:
                    row[a * radial_columns + 1 + t] = _dot_from(work, f, start[a], start[a + 1])
        for t in range(n3):
            for a in range(n_species):
                total = 0.0
                for k in range(start[a], start[a + 1]):
                    total += np.cos(g3[t] * r[k]) * f[k]
                row[a * radial_columns + 1 + n2 + t] = total
        for high in range(n_species) if n4 + n5 > 0 else range(0):
            if start[high + 1] == start[high]:
                continue
            for low in range(high + 1):
                if start[low + 1] == start[low]:
                    continue
                column = n_species * radial_columns + (high * (high + 1) // 2 + low) * (n4 + n5)
                for which in range(2):
                    if (n4 if which == 0 else n5) == 0:
                        continue
                    n = 0
                    for p in range(start[high], start[high + 1]):
                        stop = p if low == high else start[low + 1]
                        x, y, z, rp2, fp, half = (
                            xyz[0, p],
                            xyz[1, p],
                            xyz[2, p],
                            r2[p],
                            f[p],
                            0.5 * inverse[p],
                        )
                        if which == 0:
                            found = append_near(x, y, z, xyz, start[low], stop, square_cut, hits, 0)
                            for h in range(found):
                                q = hits[h]
                                dx, dy, dz = xyz[0, q] - x, xyz[1, q] - y, xyz[2, q] - z
                                far2 = dx * dx + dy * dy + dz * dz
                                near2 = rp2 + r2[q]
                                exponent[n + h] = near2 + far2
                                cosine[n + h] = (near2 - far2) * half * inverse[q]
                                cutoff[n + h] = fp * f[q] * cosine_cutoff(far2 * inverse_cut)
                            n += found
                        else:
                            for q in range(start[low], stop):
                                dx, dy, dz = xyz[0, q] - x, xyz[1, q] - y, xyz[2, q] - z
                                near2 = rp2 + r2[q]
                                k = n + q - start[low]
                                exponent[k] = near2
                                cosine[k] = (near2 - (dx * dx + dy * dy + dz * dz)) * half * inverse[q]
                                cutoff[k] = fp * f[q]
                            n += max(0, stop - start[low])
                        if n >= BUFFER or (p == start[high + 1] - 1 and n > 0):
                            if which == 0:
                                _work_off(
                                    n, exponent, cosine, cutoff, etas4, angular4, which4,
                                    radial, power, base, square, row, column,
                                )  # fmt: skip
                            else:
                                _work_off(
                                    n, exponent, cosine, cutoff, etas5, angular5, which5,
                                    radial, power, base, square, row, column + n4,
                                )  # fmt: skip
                            n = 0
        for c in range(out.shape[1]):
            out[i - offset, c] = row[c]

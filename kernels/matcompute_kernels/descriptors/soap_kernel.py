"""Kernels of SOAP: the coefficients c_nlm of a site's neighbours.

Layout of the coefficients: slots (one per channel that is present), in each the rows (l, site of the group, m), in each
row the radial functions, padded to whole vectors. The sum over neighbours is then a small matrix product with vectors
along n.
"""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.descriptors.soap_radial import DEGREE
from matcompute_kernels.harmonics import harmonics8
from matcompute_kernels.vec8 import (
    MANY_REGISTERS,
    add_outer,
    address,
    fma8,
    load8,
    load_rows,
    save_rows,
    shift,
    splat8,
    store8,
)

__all__ = [
    "BLOCK",
    "density_slope",
    "density_weight",
    "expand_site",
    "order_neighbors",
    "slots_of_site",
]

#: Neighbours whose harmonics and radial functions are held at a time.
BLOCK = 64
#: Rows of the expansion kept in registers at a time.
TILE = 7 if MANY_REGISTERS else 6

assert DEGREE == 7


@njit(cache=True, nogil=True)
def density_weight(r: float, kind: int, p: np.ndarray) -> float:
    """Weight of a neighbour at distance r.

    kind 1: featomic, p = (cutoff, smoothing width or 0, Willatt scale or 0, rate, exponent); dscribe's 2 ``poly``
    p = (r0, c, m), 3 ``pow`` p = (r0, c, d, m) and 4 ``exp`` p = (r0, c, d).
    """
    if kind == 1:
        weight = 1.0
        if p[1] > 0.0 and r > p[0] - p[1]:
            weight = 0.5 * (1.0 + np.cos(np.pi * (r - p[0] + p[1]) / p[1])) if r < p[0] else 0.0
        if p[2] > 0.0:
            weight *= p[3] / (p[3] + (r / p[2]) ** p[4])
        return weight
    if kind == 2:
        x = r / p[0]
        return p[1] * max(1.0 + 2.0 * x**3 - 3.0 * x * x, 0.0) ** p[2] if x <= 1.0 else 0.0
    if kind == 3:
        return p[1] / (p[2] + (r / p[0]) ** p[3])
    if kind == 4:
        return p[1] / (p[2] + np.exp(-r / p[0]))
    return 1.0


@njit(cache=True, nogil=True)
def density_slope(r: float, kind: int, p: np.ndarray) -> float:
    """Derivative of :func:`density_weight` by r."""
    if kind == 1:
        smooth, slope = 1.0, 0.0
        if p[1] > 0.0 and r > p[0] - p[1]:
            x = np.pi * (r - p[0] + p[1]) / p[1]
            smooth = 0.5 * (1.0 + np.cos(x)) if r < p[0] else 0.0
            slope = -0.5 * np.pi / p[1] * np.sin(x) if r < p[0] else 0.0
        if p[2] > 0.0:
            power = (r / p[2]) ** p[4]
            scaling = p[3] / (p[3] + power)
            return slope * scaling - smooth * scaling * scaling / p[3] * p[4] * power / max(r, 1e-12)
        return slope
    if kind == 2:
        x = r / p[0]
        base = max(1.0 + 2.0 * x**3 - 3.0 * x * x, 0.0)
        return p[1] * p[2] * base ** (p[2] - 1.0) * 6.0 * (x * x - x) / p[0] if 0.0 < x < 1.0 else 0.0
    if kind == 3:
        power = (r / p[0]) ** p[3]
        return -p[1] * p[3] * power / max(r, 1e-12) / (p[2] + power) ** 2
    if kind == 4:
        decay = np.exp(-r / p[0])
        return p[1] * decay / p[0] / (p[2] + decay) ** 2
    return 0.0


@njit(cache=True, nogil=True)
def slots_of_site(
    site_channel: int,
    j: np.ndarray,
    first: int,
    last: int,
    channel: np.ndarray,
    counts: np.ndarray,
    present: np.ndarray,
) -> int:
    """Channels among the neighbours ``j[first:last]`` and the site itself; return how many.

    OUTPUT: counts i8[channels] of those present (zero before; the caller clears them), present i8[channels], rising.
    """
    n = 0
    counts[site_channel] = 1  # one too many for now: marks it as seen
    present[0] = site_channel
    n = 1
    for p in range(first, last):
        c = channel[j[p]]
        if counts[c] == 0:
            k = n
            while k > 0 and present[k - 1] > c:
                present[k] = present[k - 1]
                k -= 1
            present[k] = c
            n += 1
        counts[c] += 1
    counts[site_channel] -= 1
    return n


@njit(cache=True, nogil=True)
def order_neighbors(
    first: int,
    last: int,
    j: np.ndarray,
    distance: np.ndarray,
    vector: np.ndarray,
    channel: np.ndarray,
    site_weight: np.ndarray,
    kind: int,
    parameters: np.ndarray,
    place: np.ndarray,
    xyzw: np.ndarray,
    r: np.ndarray,
) -> None:
    """Write neighbours in the order of their channels, ``place[c]`` being where channel c begins (moved on).

    OUTPUT: xyzw f8[4, n] (unit vector, weight) and r f8[n], both padded with zeros by a vector.
    """
    for p in range(first, last):
        site = j[p]
        c = channel[site]
        k = place[c]
        place[c] = k + 1
        d = distance[p]
        inverse = 1.0 / max(d, 1e-12)
        xyzw[0, k] = vector[p, 0] * inverse
        xyzw[1, k] = vector[p, 1] * inverse
        xyzw[2, k] = vector[p, 2] * inverse
        weight = site_weight[site]
        if kind != 0:
            weight *= density_weight(d, kind, parameters)
        xyzw[3, k] = weight
        r[k] = d
    for k in range(last - first, last - first + 8):
        xyzw[0, k] = xyzw[1, k] = xyzw[2, k] = xyzw[3, k] = 0.0


@njit(cache=True, nogil=True)
def _radial(pieces: np.ndarray, scale: float, r: np.ndarray, first: int, n: int, out: np.ndarray) -> None:
    """Radial functions of n neighbours, Horner's scheme (OUTPUT: out f8[n, (l_max + 1)·blocks·8])."""
    vectors = pieces.shape[1] * pieces.shape[2]
    last = pieces.shape[0] - 1
    width = vectors * 8
    for k in range(n):
        x = r[first + k] * scale
        interval = min(int(x), last)
        t = splat8(2.0 * (x - interval) - 1.0)
        source = interval * vectors * 64
        target = k * width
        for _ in range(vectors):
            value = fma8(load8(pieces, source), t, load8(pieces, source + 8))
            value = fma8(value, t, load8(pieces, source + 16))
            value = fma8(value, t, load8(pieces, source + 24))
            value = fma8(value, t, load8(pieces, source + 32))
            value = fma8(value, t, load8(pieces, source + 40))
            value = fma8(value, t, load8(pieces, source + 48))
            value = fma8(value, t, load8(pieces, source + 56))
            store8(out, target, value)
            source += 64
            target += 8


@njit(cache=True, nogil=True)
def _sum_neighbors(
    shape: tuple, n: int, y: np.ndarray, radial: np.ndarray, step: int, out: np.ndarray, stride: int
) -> None:
    """out[m, 0:8] += Σ_j y[m, j]·radial[j, 0:8] for ``len(shape)`` rows m (pointers; OUTPUT: out)."""
    rows = load_rows(shape, out, 0, stride)
    at = 0
    for j in range(n):
        rows = add_outer(rows, load8(radial, at), y, j, BLOCK)
        at += step
    save_rows(rows, out, 0, stride)


@njit(cache=True, nogil=True)
def _add_neighbors(
    n_rows: int, n: int, y: np.ndarray, radial: np.ndarray, step: int, out: np.ndarray, stride: int
) -> None:
    """:func:`_sum_neighbors` for 1 to :data:`TILE` rows: one compiled body each, the accumulators are registers."""
    if n_rows == 1:
        _sum_neighbors((0,), n, y, radial, step, out, stride)
    elif n_rows == 3:
        _sum_neighbors((0, 0, 0), n, y, radial, step, out, stride)
    elif n_rows == 5:
        _sum_neighbors((0, 0, 0, 0, 0), n, y, radial, step, out, stride)
    elif n_rows == 7:
        _sum_neighbors((0, 0, 0, 0, 0, 0, 0), n, y, radial, step, out, stride)
    elif n_rows == 4:
        _sum_neighbors((0, 0, 0, 0), n, y, radial, step, out, stride)
    elif n_rows == 6:
        _sum_neighbors((0, 0, 0, 0, 0, 0), n, y, radial, step, out, stride)
    else:
        _sum_neighbors((0, 0), n, y, radial, step, out, stride)


@njit(cache=True, nogil=True)
def expand_site(
    n: int,
    xyzw: np.ndarray,
    r: np.ndarray,
    ends: np.ndarray,
    pieces: np.ndarray,
    scale: float,
    recurrence: np.ndarray,
    harmonics: np.ndarray,
    radial: np.ndarray,
    coefficients: np.ndarray,
    group: int,
    member: int,
) -> None:
    """Add the ordered neighbours of one site to the coefficients.

    ``ends[s]`` is where slot s ends among the neighbours; the site is number ``member`` of a group of ``group``.
    OUTPUT: coefficients f8[slots, group·(l_max + 1)², 8·blocks] (added to). harmonics f8[(l_max + 1)², BLOCK] and
    radial f8[BLOCK, (l_max + 1)·8·blocks] are work space.
    """
    l_max, blocks = pieces.shape[1] - 1, pieces.shape[2]
    wide = 8 * blocks
    slot_size = group * (l_max + 1) ** 2 * wide
    radial_width = (l_max + 1) * wide
    y, functions, out = address(harmonics), address(radial), address(coefficients)
    slot = 0
    for first in range(0, n, BLOCK):
        count = min(BLOCK, n - first)
        for column in range(0, count, 8):
            harmonics8(l_max, xyzw, first + column, recurrence, harmonics, column)
        _radial(pieces, scale, r, first, count, radial)
        begin = 0
        while begin < count:
            while ends[slot] <= first + begin:
                slot += 1
            end = min(count, ends[slot] - first)
            for l in range(l_max + 1):
                n_m = 2 * l + 1
                n_tiles = (n_m + TILE - 1) // TILE
                target = slot * slot_size + (group * l * l + member * n_m) * wide
                m = 0
                for tile in range(n_tiles):
                    rows = (n_m - m + n_tiles - tile - 1) // (n_tiles - tile)
                    for block in range(blocks):
                        _add_neighbors(
                            rows,
                            end - begin,
                            shift(y, (l * l + m) * BLOCK + begin),
                            shift(functions, begin * radial_width + l * wide + 8 * block),
                            radial_width,
                            shift(out, target + m * wide + 8 * block),
                            wide,
                        )
                    m += rows
            begin = end

"""Sums of absolute differences between the rows of two matrices, eight at a time.

Σ|x - y| = 2 Σ max(x, y) - Σ x - Σ y: two operations for each entry in place of three. What this loses by cancellation
is bounded by the sums; where that may be seen, differences are taken after all.
"""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.screening.features import exp_in_place
from matcompute_kernels.vec8 import (
    LANES,
    MANY_REGISTERS,
    add_distance,
    add_max,
    address,
    aligned_zeros,
    load8,
    load_rows,
    save_rows,
    shift,
    splat8,
)

__all__ = ["laplacian"]

#: Rows of x whose sums with eight rows of y are kept in registers.
HEIGHT = 12 if MANY_REGISTERS else 5
#: Rows of x that are packed at a time (they stay in the L2 cache), rows of y whose sums with those are kept, and
#: columns that are gone over at a time (eight rows of y then stay in the L1 cache).
_ROWS, _COLUMNS, _DEPTH = 100 // HEIGHT * HEIGHT, 64, 256
#: Numbers of y that are packed at a time.
_PACKED = 1 << 21
_SHAPE = (0,) * HEIGHT
#: Error of an exponent that maxima may make.
_TOLERANCE = 1e-11


def laplacian(x: np.ndarray, y: np.ndarray, gamma: float, out: np.ndarray) -> None:
    """Write exp(-γ Σ|x - y|) for each row of x and each row of y (contiguous, f8 or f4); OUTPUT: out [n, m]."""
    n, width = x.shape
    x_totals, x_largest = _totals(x)
    y_totals, y_largest = _totals(y)
    rounding = np.sqrt(width) * np.finfo(float).eps
    maxima = gamma * (x_largest + y_largest) * rounding < _TOLERANCE
    columns = max(min(_PACKED // width, len(y)), 1)
    left = aligned_zeros((-(-min(_ROWS, n) // HEIGHT), width, HEIGHT))
    right = aligned_zeros((-(-columns // _COLUMNS) * _COLUMNS // LANES, width, LANES))
    sums = aligned_zeros((_ROWS, _COLUMNS))
    _tiles(x, y, x_totals, y_totals, -gamma, maxima, left, right, sums, 1.0, out)


@njit(cache=True, nogil=True)
def _totals(x: np.ndarray) -> tuple[np.ndarray, float]:
    """Sum of each row in the order of its columns, as maxima are added: a row's distance from itself is 0.

    And the largest sum of absolute values.
    """
    totals, largest = np.zeros(x.shape[0]), 0.0
    sizes = np.zeros(8)
    for first in range(0, x.shape[0], 8):
        last = min(first + 8, x.shape[0])
        sizes[:] = 0.0
        for k in range(x.shape[1]):
            for i in range(first, last):
                value = np.float64(x[i, k])
                totals[i] += value
                sizes[i - first] += abs(value)
        largest = max(largest, sizes.max())
    return totals, largest


@njit(cache=True, nogil=True)
def _pack(a: np.ndarray, first: int, last: int, out: np.ndarray) -> None:
    """OUTPUT: out f8[groups, F, height], rows of a side by side; what is beyond ``last`` keeps old numbers."""
    height = out.shape[2]
    for group in range((last - first + height - 1) // height):
        start, target = first + group * height, out[group]
        here = min(height, last - start)
        for k in range(a.shape[1]):
            for i in range(here):
                target[k, i] = a[start + i, k]


@njit(cache=True, nogil=True)
def _add_maxima(n: int, x: np.ndarray, y: np.ndarray, out: np.ndarray, one: float) -> None:
    """out[r, 0:8] += Σ_k max(x[k, r], y[k, 0:8]) for HEIGHT rows r (pointers; OUTPUT: out)."""
    rows, ones = load_rows(_SHAPE, out, 0, _COLUMNS), splat8(one)
    for k in range(n):
        rows = add_max(rows, load8(y, LANES * k), x, HEIGHT * k, 1, ones)
    save_rows(rows, out, 0, _COLUMNS)


@njit(cache=True, nogil=True)
def _add_distances(n: int, x: np.ndarray, y: np.ndarray, out: np.ndarray, one: float) -> None:
    """out[r, 0:8] += Σ_k |x[k, r] - y[k, 0:8]|."""
    rows, ones = load_rows(_SHAPE, out, 0, _COLUMNS), splat8(one)
    for k in range(n):
        rows = add_distance(rows, load8(y, LANES * k), x, HEIGHT * k, 1, ones)
    save_rows(rows, out, 0, _COLUMNS)


@njit(cache=True, fastmath={"contract", "nsz", "nnan"})
def _finish(
    sums: np.ndarray, totals: np.ndarray, others: np.ndarray, scale: float, maxima: bool, out: np.ndarray
) -> None:
    """Write exp(scale · distance); OUTPUT: out[rows, columns]; sums are overwritten.

    In three passes, because a loop over one short row has hardly begun when it ends.
    """
    rows, columns = out.shape
    for i in range(rows):
        row, total = sums[i], totals[i]
        for k in range(columns):
            distance = 2.0 * row[k] - (total + others[k]) if maxima else row[k]  # same both ways round
            row[k] = scale * (distance if distance > 0.0 else 0.0)
    exp_in_place(sums[:rows].reshape(-1))
    for i in range(rows):
        row, target = sums[i], out[i]
        for k in range(columns):
            target[k] = row[k]


@njit(cache=True, nogil=True)
def _tiles(
    x: np.ndarray,
    y: np.ndarray,
    x_totals: np.ndarray,
    y_totals: np.ndarray,
    scale: float,
    maxima: bool,
    left: np.ndarray,
    right: np.ndarray,
    sums: np.ndarray,
    one: float,
    out: np.ndarray,
) -> None:
    """OUTPUT: out. ``left`` and ``right`` are room for packed rows of x and y; ``one`` is 1.

    The order of the loops is that of a matrix product (Goto and van de Geijn, ACM Trans. Math. Softw. 34, 12, 2008).
    """
    n, m, width = x.shape[0], y.shape[0], x.shape[1]
    wide = right.shape[0] * LANES
    from_x, from_y, to_sums = address(left), address(right), address(sums)
    for begin in range(0, m, wide):
        _pack(y, begin, min(begin + wide, m), right)
        for top in range(0, n, _ROWS):
            bottom = min(top + _ROWS, n)
            _pack(x, top, bottom, left)
            for first in range(begin, min(begin + wide, m), _COLUMNS):
                last = min(first + _COLUMNS, m)
                sums[:] = 0.0
                for start in range(0, width, _DEPTH):
                    depth = min(_DEPTH, width - start)
                    for panel in range((last - first + LANES - 1) // LANES):
                        group = (first - begin) // LANES + panel
                        source = shift(from_y, (group * width + start) * LANES)
                        for i in range((bottom - top + HEIGHT - 1) // HEIGHT):
                            rows = shift(from_x, (i * width + start) * HEIGHT)
                            target = shift(to_sums, i * HEIGHT * _COLUMNS + LANES * panel)
                            if maxima:
                                _add_maxima(depth, rows, source, target, one)
                            else:
                                _add_distances(depth, rows, source, target, one)
                _finish(
                    sums,
                    x_totals[top:bottom],
                    y_totals[first:last],
                    scale,
                    maxima,
                    out[top:bottom, first:last],
                )

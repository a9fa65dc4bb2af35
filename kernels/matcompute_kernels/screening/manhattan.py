"""Sums of absolute differences between the rows of two matrices, eight at a time.

Σ|x - y| = 2 Σ max(x, y) - Σ x - Σ y: two operations for each entry in place of three. What this loses by cancellation
is bounded by the sums; where that may be seen, differences are taken after all.
"""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.screening.features import exp_one
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
#: Rows of y that are packed at a time, and columns that are gone over at a time: x and y then stay in the L1 cache.
_COLUMNS, _DEPTH = 64, 256
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
    tail = np.zeros((HEIGHT, width))
    tail[: n % HEIGHT] = x[n - n % HEIGHT :]
    space = aligned_zeros((_COLUMNS // LANES, width, LANES)), aligned_zeros((HEIGHT, _COLUMNS))
    _tiles(x.astype(np.float64, copy=False), tail, y, x_totals, y_totals, gamma, maxima, *space, 1.0, out)


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
def _pack(y: np.ndarray, first: int, last: int, out: np.ndarray) -> None:
    """OUTPUT: out f8[panels, F, 8], eight rows of y side by side; what is beyond ``last`` keeps old numbers."""
    for j in range(first, last):
        panel, lane = (j - first) // 8, (j - first) % 8
        for k in range(y.shape[1]):
            out[panel, k, lane] = y[j, k]


@njit(cache=True, nogil=True)
def _add_maxima(n: int, x: np.ndarray, stride: int, y: np.ndarray, out: np.ndarray, one: float) -> None:
    """out[r, 0:8] += Σ_k max(x[r, k], y[k, 0:8]) for HEIGHT rows r (pointers; OUTPUT: out)."""
    rows, ones = load_rows(_SHAPE, out, 0, _COLUMNS), splat8(one)
    for k in range(n):
        rows = add_max(rows, load8(y, 8 * k), x, k, stride, ones)
    save_rows(rows, out, 0, _COLUMNS)


@njit(cache=True, nogil=True)
def _add_distances(n: int, x: np.ndarray, stride: int, y: np.ndarray, out: np.ndarray, one: float) -> None:
    """out[r, 0:8] += Σ_k |x[r, k] - y[k, 0:8]|."""
    rows, ones = load_rows(_SHAPE, out, 0, _COLUMNS), splat8(one)
    for k in range(n):
        rows = add_distance(rows, load8(y, 8 * k), x, k, stride, ones)
    save_rows(rows, out, 0, _COLUMNS)


@njit(cache=True, fastmath={"contract", "nsz", "nnan"})
def _finish(
    sums: np.ndarray, total: float, totals: np.ndarray, gamma: float, maxima: bool, out: np.ndarray
) -> None:
    """OUTPUT: out[k]."""
    for k in range(out.shape[0]):
        distance = 2.0 * sums[k] - total - totals[k] if maxima else sums[k]
        out[k] = exp_one(-gamma * (distance if distance > 0.0 else 0.0))


@njit(cache=True, nogil=True)
def _tiles(
    x: np.ndarray,
    tail: np.ndarray,
    y: np.ndarray,
    x_totals: np.ndarray,
    y_totals: np.ndarray,
    gamma: float,
    maxima: bool,
    packed: np.ndarray,
    sums: np.ndarray,
    one: float,
    out: np.ndarray,
) -> None:
    """OUTPUT: out. ``tail`` holds the last rows of x, those that are less than HEIGHT; ``one`` is 1."""
    n, m, width = x.shape[0], y.shape[0], x.shape[1]
    whole = n - n % HEIGHT
    from_x, from_tail, to_y, to_sums = address(x), address(tail), address(packed), address(sums)
    for first in range(0, m, _COLUMNS):
        last = min(first + _COLUMNS, m)
        _pack(y, first, last, packed)
        for top in range(0, n, HEIGHT):
            rows = shift(from_x, top * width) if top < whole else shift(from_tail, 0)
            sums[:] = 0.0
            for begin in range(0, width, _DEPTH):
                depth = min(_DEPTH, width - begin)
                for panel in range((last - first + 7) // 8):
                    source, target = (panel * width + begin) * 8, 8 * panel
                    left, right = shift(rows, begin), shift(to_y, source)
                    if maxima:
                        _add_maxima(depth, left, width, right, shift(to_sums, target), one)
                    else:
                        _add_distances(depth, left, width, right, shift(to_sums, target), one)
            for row in range(top, min(top + HEIGHT, n)):
                _finish(
                    sums[row - top],
                    x_totals[row],
                    y_totals[first:last],
                    gamma,
                    maxima,
                    out[row, first:last],
                )

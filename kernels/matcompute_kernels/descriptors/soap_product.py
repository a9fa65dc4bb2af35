"""Kernel of SOAP: products of the coefficients c_nlm, the power spectrum.

The sum over m is a small matrix product with vectors along n, as the sum over neighbours is in
:mod:`matcompute_kernels.descriptors.soap_kernel`.
"""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.vec8 import (
    MANY_REGISTERS,
    add_full,
    add_outer,
    add_rows,
    address,
    load8,
    shift,
    store_full,
    store_rows,
    zero_rows,
)

__all__ = ["contract"]

#: Rows of a product kept in registers at a time.
HIGH = 8 if MANY_REGISTERS else 4
_WHOLE = (0,) * HIGH


@njit(cache=True, nogil=True)
def _sum_m(
    shape: tuple,
    n: int,
    a: np.ndarray,
    b: np.ndarray,
    step: int,
    out: np.ndarray,
    stride: int,
    triangle: int,
    low: int,
    high: int,
    factor: float,
    add: bool,
) -> None:
    rows = zero_rows(shape)
    at = 0
    for _ in range(n):
        rows = add_outer(rows, load8(b, at), a, at, 1)
        at += step
    if add:
        add_rows(out, 0, stride, triangle, low, high, factor, rows)
    else:
        store_rows(out, 0, stride, triangle, low, high, factor, rows)


@njit(cache=True, nogil=True)
def _sum_whole(
    shape: tuple,
    n: int,
    a: np.ndarray,
    b: np.ndarray,
    step: int,
    out: np.ndarray,
    stride: int,
    triangle: int,
    low: int,
    factor: float,
    add: bool,
) -> None:
    rows = zero_rows(shape)
    at = 0
    for _ in range(n):
        rows = add_outer(rows, load8(b, at), a, at, 1)
        at += step
    if add:
        add_full(out, 0, stride, triangle, low, factor, rows)
    else:
        store_full(out, 0, stride, triangle, low, factor, rows)


@njit(cache=True, nogil=True)
def _multiply_few(
    n_rows: int,
    n: int,
    a: np.ndarray,
    b: np.ndarray,
    step: int,
    out: np.ndarray,
    stride: int,
    triangle: int,
    low: int,
    high: int,
    factor: float,
    add: bool,
) -> None:
    """:func:`_multiply_rows` for 1 to 4 rows."""
    if n_rows == 4:
        _sum_m((0, 0, 0, 0), n, a, b, step, out, stride, triangle, low, high, factor, add)
    elif n_rows == 3:
        _sum_m((0, 0, 0), n, a, b, step, out, stride, triangle, low, high, factor, add)
    elif n_rows == 2:
        _sum_m((0, 0), n, a, b, step, out, stride, triangle, low, high, factor, add)
    else:
        _sum_m((0,), n, a, b, step, out, stride, triangle, low, high, factor, add)


@njit(cache=True, nogil=True)
def _multiply_many(
    n_rows: int,
    n: int,
    a: np.ndarray,
    b: np.ndarray,
    step: int,
    out: np.ndarray,
    stride: int,
    triangle: int,
    low: int,
    high: int,
    factor: float,
    add: bool,
) -> None:
    """:func:`_multiply_rows` for 1 to 8 rows."""
    if n_rows == 8:
        _sum_m((0, 0, 0, 0, 0, 0, 0, 0), n, a, b, step, out, stride, triangle, low, high, factor, add)
    elif n_rows == 7:
        _sum_m((0, 0, 0, 0, 0, 0, 0), n, a, b, step, out, stride, triangle, low, high, factor, add)
    elif n_rows == 6:
        _sum_m((0, 0, 0, 0, 0, 0), n, a, b, step, out, stride, triangle, low, high, factor, add)
    elif n_rows == 5:
        _sum_m((0, 0, 0, 0, 0), n, a, b, step, out, stride, triangle, low, high, factor, add)
    else:
        _multiply_few(n_rows, n, a, b, step, out, stride, triangle, low, high, factor, add)


_multiply_rest = _multiply_many if HIGH > 4 else _multiply_few


@njit(cache=True, nogil=True)
def _multiply_rows(
    n_rows: int,
    n: int,
    a: np.ndarray,
    b: np.ndarray,
    step: int,
    out: np.ndarray,
    stride: int,
    triangle: int,
    low: int,
    high: int,
    factor: float,
    add: bool,
) -> None:
    """out[row, low:high] (+)= factor·Σ_k a[k, row]·b[k, low:high] for 1 to HIGH rows (pointers; OUTPUT: out).

    ``step`` from k to k + 1 in a and b; the rows of the output as :data:`matcompute_kernels.vec8.store_rows` says.
    Lanes below ``low`` may be written too: by calls for the rows from the last to the first they get their own values.
    """
    if n_rows == HIGH and high == 8:
        _sum_whole(_WHOLE, n, a, b, step, out, stride, triangle, low, factor, add)
    else:
        _multiply_rest(n_rows, n, a, b, step, out, stride, triangle, low, high, factor, add)


@njit(cache=True, nogil=True)
def contract(
    first: np.ndarray,
    slot_a: int,
    second: np.ndarray,
    slot_b: int,
    group: int,
    n_max: int,
    l_max: int,
    wide: int,
    l_scale: np.ndarray,
    factor: float,
    triangle: int,
    out: np.ndarray,
    offset: int,
    add: bool,
) -> None:
    """One block of the power spectrum: factor·l_scale[l]·Σ a[n]·b[n'] over the m and the sites of the group.

    a and b are slots of two arrays of coefficients (the same for a spectrum, one of derivatives for its derivative).
    Columns l, n, n' from ``offset`` of the contiguous ``out`` on (OUTPUT), n' ≥ n only if ``triangle``.
    """
    slot_size = group * (l_max + 1) ** 2 * wide
    per_l = n_max * (n_max + 1) // 2 if triangle else n_max * n_max
    c_first, c_second, features = address(first), address(second), address(out)
    for l in range(l_max + 1):
        rows_first = group * l * l * wide
        a, b = slot_a * slot_size + rows_first, slot_b * slot_size + rows_first
        for top in range((n_max - 1) // HIGH * HIGH, -1, -HIGH):  # from the last, see _multiply_rows
            for left in range(top // 8 * 8 if triangle else 0, n_max, 8):
                target = offset + l * per_l + top * n_max + left
                if triangle == 1:
                    target -= top * (top + 1) // 2
                _multiply_rows(
                    min(HIGH, n_max - top),
                    group * (2 * l + 1),
                    shift(c_first, a + top),
                    shift(c_second, b + left),
                    wide,
                    shift(features, target),
                    n_max - triangle * (top + 1),
                    triangle,
                    triangle * (top - left),
                    min(8, n_max - left),
                    factor * l_scale[l],
                    add,
                )

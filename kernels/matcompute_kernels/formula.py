"""Reduced formulas of packed structures as fixed-width bytes."""

from __future__ import annotations

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.elements import ALPHABETICAL, MAX_Z, SYMBOL_BYTES

__all__ = ["formula_bytes"]


@njit(cache=True)
def _formulas(
    numbers: np.ndarray, ptr: np.ndarray, order: np.ndarray, symbols: np.ndarray, out: np.ndarray
) -> int:
    """Write each formula into a row of ``out`` (OUTPUT, u1[N, W]); return the longest length.

    A length beyond W is counted and not written: the caller allocates again and calls again.
    """
    counts = np.zeros(order.shape[0], dtype=np.int64)
    digits = np.zeros(20, dtype=np.uint8)
    longest = 0
    width = out.shape[1]
    for i in range(ptr.shape[0] - 1):
        counts[:] = 0
        for k in range(ptr[i], ptr[i + 1]):
            counts[numbers[k]] += 1
        divisor = 0
        for z in range(counts.shape[0]):
            a, b = divisor, counts[z]
            while b != 0:
                a, b = b, a % b
            divisor = a
        length = 0
        for z in order:
            if counts[z] == 0:
                continue
            for c in symbols[z]:
                if c != 0:
                    if length < width:
                        out[i, length] = c
                    length += 1
            n = counts[z] // divisor
            if n > 1:
                used = 0
                while n > 0:
                    digits[used] = 48 + n % 10
                    n //= 10
                    used += 1
                for d in range(used - 1, -1, -1):
                    if length < width:
                        out[i, length] = digits[d]
                    length += 1
        longest = max(longest, length)
    return longest


def formula_bytes(numbers: np.ndarray, ptr: np.ndarray) -> np.ndarray:
    """Return reduced formulas, symbols in alphabetical order, as an S array of the width that is needed.

    Parameters
    ----------
    numbers
        Atomic numbers, u1[M], at most 118.
    ptr
        Site offsets, i8[N + 1].

    Returns
    -------
    numpy.ndarray
        S[N]; a structure without sites has the empty formula.

    Raises
    ------
    ValueError
        If an atomic number is not known.
    """
    if numbers.size and numbers.max() > MAX_Z:
        raise ValueError(f"atomic numbers must lie between 0 and {MAX_Z}")
    n, width = ptr.shape[0] - 1, 24
    while True:
        out = np.zeros((n, width), dtype=np.uint8)
        longest = _formulas(numbers, ptr, ALPHABETICAL, SYMBOL_BYTES, out)
        if longest <= width:
            break
        width = longest
    out = np.ascontiguousarray(out[:, : max(longest, 1)])
    return out.view(f"S{out.shape[1]}").reshape(n)

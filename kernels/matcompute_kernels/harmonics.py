"""Real orthonormal spherical harmonics of eight directions at a time.

Y_lm with m = -l..l at l² + l + m, without the Condon–Shortley phase: Y_1 = √(3/4π)·(y, z, x). With Q_lm the
normalised associated Legendre functions divided by sin^m θ (polynomials in z), C_m + i·S_m = (x + i·y)^m:

    Y_l0 = Q_l0,   Y_lm = √2 Q_lm C_m,   Y_l,-m = √2 Q_lm S_m,
    Q_lm = a_lm z Q_(l-1)m - b_lm Q_(l-2)m,
    a_lm² = (4l² - 1)/(l² - m²),   b_lm = a_lm / a_(l-1)m      (the stable recurrence of the normalised functions).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from matcompute_kernels.compiled import njit
from matcompute_kernels.vec8 import fma8, load8, splat8, store8

__all__ = ["harmonics8", "recurrence"]


@lru_cache(maxsize=32)
def recurrence(l_max: int) -> np.ndarray:
    """Coefficients of the recurrence, f8[3, l_max + 1, l_max + 1]: a_lm, b_lm, and Q_mm (with its √2) at [2, m, m]."""
    table = np.zeros((3, l_max + 1, l_max + 1))
    diagonal = np.sqrt(0.25 / np.pi)
    for m in range(l_max + 1):
        if m > 0:
            diagonal *= np.sqrt((2 * m + 1) / (2 * m))
        table[2, m, m] = diagonal * (np.sqrt(2.0) if m > 0 else 1.0)
        for l in range(m + 1, l_max + 1):
            table[0, l, m] = np.sqrt((4 * l * l - 1) / (l * l - m * m))
            if l > m + 1:
                table[1, l, m] = table[0, l, m] * np.sqrt(((l - 1) ** 2 - m * m) / (4 * (l - 1) ** 2 - 1))
    table.setflags(write=False)
    return table


@njit(cache=True, nogil=True)
def harmonics8(
    l_max: int, xyzw: np.ndarray, first: int, coefficients: np.ndarray, out: np.ndarray, column: int
) -> None:
    """Write w·Y_lm of eight unit vectors.

    ``xyzw`` is f8[4, n]: x, y, z and a factor w; the eight from ``first`` on are done.
    OUTPUT: out f8[(l_max + 1)², k], the eight columns from ``column`` on.
    """
    given, width = xyzw.shape[1], out.shape[1]
    x, y, z = load8(xyzw, first), load8(xyzw, given + first), load8(xyzw, 2 * given + first)
    cosine, sine = load8(xyzw, 3 * given + first), splat8(0.0)
    for m in range(l_max + 1):
        if m > 0:
            cosine, sine = x * cosine - y * sine, fma8(x, sine, y * cosine)
        before, now = splat8(0.0), splat8(coefficients[2, m, m])
        for l in range(m, l_max + 1):
            if l > m:
                after = splat8(coefficients[0, l, m]) * z * now - splat8(coefficients[1, l, m]) * before
                before, now = now, after
            centre = (l * l + l) * width + column
            store8(out, centre + m * width, now * cosine)
            if m > 0:
                store8(out, centre - m * width, now * sine)

"""Gaussian broadening of many values on one grid, without an exponential or error function per value.

The peer's grid (dscribe, ``MBTR.gaussian``): bin m spans min + (m ± 1/2) dx with dx = (max - min)/(n - 1) and holds
the mean of the normal density over it, that is [Φ((e_{m+1} - x)/σ) - Φ((e_m - x)/σ)]/dx.

As a function of the place t of a value inside a cell of width h ≤ σ/5 this is, for every bin, a polynomial of degree 7
to 1e-13 of the peak (Chebyshev interpolation). So a value adds only w·(1, t, …, t⁷) to its cell (:func:`deposit`), and
the cells are turned into bins once at the end (:func:`collect`). Values farther than 8.3 σ from a bin give it nothing,
as in double precision. A grid much coarser than σ (h = dx/q would need q > 32) is filled directly instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev

from matcompute_kernels.checks import check_integer, check_positive
from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError

__all__ = ["Broadening", "collect", "deposit"]

#: Terms of the polynomials.
TERMS = 8
#: Cells per σ at least.
CELLS_PER_SIGMA = 5.0
#: More cells a bin than this: fill directly.
MAX_CELLS_PER_BIN = 32
#: Cells on either side of a Gaussian's centre.
MAX_CELLS = 1 << 22
#: Where the normal distribution ends in double precision, in σ.
REACH = 8.3


@dataclass(frozen=True, eq=False)
class Broadening:
    """A grid and its polynomials.

    Attributes
    ----------
    n
        Bins.
    cells
        Cells that a block of work space has (the bins themselves in a directly filled grid).
    table
        Coefficients, f8[q, 8, …] by phase of the cell in its bin, power and bin; f8[0, 8, 1] for direct filling.
    numbers
        f8[7]: lower end of the cells, 1/h, q, margin in cells; lower edge of bin 0, dx, 1/(σ√2).
    """

    n: int
    cells: int
    table: np.ndarray
    numbers: np.ndarray

    @classmethod
    def on_grid(cls, low: float, high: float, sigma: float, n: int) -> Broadening:
        """Make the polynomials for n bin centres from ``low`` to ``high``."""
        dx = (high - low) / (n - 1)
        start = low - dx / 2
        q = max(1, math.ceil(CELLS_PER_SIGMA * dx / sigma))
        tail = np.array([start, dx, 1.0 / (sigma * math.sqrt(2.0))])
        if q > MAX_CELLS_PER_BIN:
            return cls(n, n, np.zeros((0, TERMS, 1)), np.concatenate([[start, 1.0 / dx, 1.0, 0.0], tail]))
        h = dx / q
        if REACH * sigma / h > MAX_CELLS:
            raise KernelInputError(
                f"sigma {sigma:g} is too large for {n} bins from {low:g} to {high:g}: give fewer bins"
            )
        margin = math.ceil(REACH * sigma / h)
        rows = -(-(2 * margin + q + 1) // q) + 1
        offset = -margin - q + np.arange(q)[:, None] + q * np.arange(rows)  # lower edge - cell, in cells
        nodes = np.cos(np.pi * (np.arange(TERMS) + 0.5) / TERMS)
        place = (nodes + 1.0) / 2.0
        upper = (offset + q - place[:, None, None]) * (h / sigma)
        lower = (offset - place[:, None, None]) * (h / sigma)
        values = _normal_between(lower, upper) / dx  # [node, q, rows]
        fit = chebyshev.chebfit(nodes, values.reshape(TERMS, -1), TERMS - 1)
        to_powers = np.zeros((TERMS, TERMS))
        for k in range(TERMS):
            power = chebyshev.cheb2poly(np.eye(TERMS)[k])
            to_powers[: len(power), k] = power
        table = (to_powers @ fit).reshape(TERMS, q, rows).transpose(1, 0, 2)
        head = np.array([start - margin * h, 1.0 / h, q, margin])
        return cls(n, n * q + 2 * margin, np.ascontiguousarray(table), np.concatenate([head, tail]))

    @classmethod
    def from_grid(cls, grid: Mapping[str, Any]) -> Broadening:
        """Check a grid such as ``{"min": 0, "max": 1, "sigma": 0.02, "n": 100}`` and make its polynomials.

        Raises
        ------
        KernelInputError
            If a value is missing or wrong.
        """
        for key in ("min", "max", "sigma", "n"):
            if not isinstance(grid, Mapping) or key not in grid:
                raise KernelInputError(f"grid needs 'min', 'max', 'sigma' and 'n'; {key!r} is missing")
        n = int(grid["n"]) if isinstance(grid["n"], float) and grid["n"].is_integer() else grid["n"]
        check_integer(2, 10_000_000, **{"grid['n']": n})
        check_positive(**{"grid['sigma']": grid["sigma"]})
        low, high = grid["min"], grid["max"]
        if not all(isinstance(x, Real) and math.isfinite(float(x)) for x in (low, high)) or not low < high:
            raise KernelInputError(f"grid['min'] must be below grid['max'], not {low!r} and {high!r}")
        return cls.on_grid(float(low), float(high), float(grid["sigma"]), int(n))

    def centers(self) -> np.ndarray:
        """Centres of the bins, f8[n]."""
        start, dx = self.numbers[4], self.numbers[5]
        return start + dx * (np.arange(self.n) + 0.5)

    def work(self, blocks: int) -> np.ndarray:
        """Zeros for ``blocks`` spectra at a time, f8[blocks, cells, 8] (f8[blocks, n, 1] in the direct case)."""
        return np.zeros((max(1, blocks), self.cells, TERMS if self.table.shape[0] else 1))


def _normal_between(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Φ(upper) - Φ(lower) without cancellation in the upper tail."""
    from scipy.special import ndtr

    flip = lower > 0
    return np.where(flip, ndtr(-lower) - ndtr(-upper), ndtr(upper) - ndtr(lower))


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def deposit(work: np.ndarray, block: int, x: float, w: float, numbers: np.ndarray) -> None:
    """Add a Gaussian at ``x`` with area ``w``. OUTPUT: adds to work f8[blocks, cells, 8 or 1]."""
    if work.shape[2] == 1:
        _deposit_direct(work, block, x, w, numbers)
    else:
        u = (x - numbers[0]) * numbers[1]
        if u >= 0.0 and u < work.shape[1]:
            b = int(u)
            t = 2.0 * (u - b) - 1.0
            t2 = t * t
            t4 = t2 * t2
            cell = work[block, b]
            cell[0] += w
            cell[1] += w * t
            cell[2] += w * t2
            cell[3] += w * t2 * t
            cell[4] += w * t4
            cell[5] += w * t4 * t
            cell[6] += w * t4 * t2
            cell[7] += w * t4 * (t2 * t)


@njit(cache=True, nogil=True, error_model="numpy")
def _deposit_direct(work: np.ndarray, block: int, x: float, w: float, numbers: np.ndarray) -> None:
    n, start, dx, scale = work.shape[1], numbers[4], numbers[5], numbers[6]
    reach = REACH / (scale * math.sqrt(2.0))
    first = max(0.0, math.floor((x - reach - start) / dx))
    last = min(n - 1.0, math.floor((x + reach - start) / dx))
    if not first <= last:
        return
    low = 0.5 * w * (1.0 + math.erf((start + first * dx - x) * scale))
    for m in range(int(first), int(last) + 1):
        high = 0.5 * w * (1.0 + math.erf((start + (m + 1) * dx - x) * scale))
        work[block, m, 0] += (high - low) / dx
        low = high


@njit(cache=True, nogil=True, error_model="numpy")
def collect(work: np.ndarray, block: int, table: np.ndarray, numbers: np.ndarray, out: np.ndarray) -> None:
    """Turn the cells of a block into bins and clear them.

    OUTPUT: adds to out f[n]; work[block] is zero afterwards.
    """
    n = out.shape[0]
    if work.shape[2] == 1:
        for m in range(n):
            out[m] += work[block, m, 0]
            work[block, m, 0] = 0.0
        return
    q, margin, rows = int(numbers[2]), int(numbers[3]), table.shape[2]
    for b in range(work.shape[1]):
        cell = work[block, b]
        a0 = cell[0]
        if a0 == 0.0:  # areas are positive
            continue
        a1, a2, a3, a4, a5, a6, a7 = cell[1], cell[2], cell[3], cell[4], cell[5], cell[6], cell[7]
        cell[:] = 0.0
        phase = (2 * margin - b) % q
        shift = (2 * margin - b - phase) // q + 1
        m0, m1 = max(0, -shift), min(n, rows - shift)
        for m in range(m0, m1):
            k = m + shift
            low = (table[phase, 0, k] * a0 + table[phase, 1, k] * a1) + (
                table[phase, 2, k] * a2 + table[phase, 3, k] * a3
            )
            high = (table[phase, 4, k] * a4 + table[phase, 5, k] * a5) + (
                table[phase, 6, k] * a6 + table[phase, 7, k] * a7
            )
            out[m] += low + high

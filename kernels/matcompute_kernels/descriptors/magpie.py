"""Composition statistics of elemental properties: Magpie's 132 features."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from matcompute_kernels.checks import check_dtype
from matcompute_kernels.compiled import njit
from matcompute_kernels.compositions import as_compositions
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.tables import element_table

__all__ = ["labels", "magpie"]

_TABLE = "magpie_elements.csv"
_STATISTICS = ("minimum", "maximum", "range", "mean", "avg_dev", "mode")


@njit(cache=True)
def _statistics(
    numbers: np.ndarray, amounts: np.ndarray, ptr: np.ndarray, table: np.ndarray, out: np.ndarray
) -> None:
    """Write minimum, maximum, range, mean, mean deviation and mode of each property, OUTPUT f8[N, P, 6]."""
    for i in range(ptr.shape[0] - 1):
        first, last = ptr[i], ptr[i + 1]
        total = 0.0
        largest = 0.0
        for k in range(first, last):
            total += amounts[k]
            largest = max(largest, amounts[k])
        frequent = largest - (1e-8 + 1e-5 * largest)  # numpy.isclose
        for p in range(table.shape[1]):
            low, high, mode, mean = np.inf, -np.inf, np.inf, 0.0
            unknown = False
            for k in range(first, last):
                value = table[numbers[k], p]
                unknown |= np.isnan(value)
                mean += amounts[k] * value
                low = min(low, value)
                high = max(high, value)
                if amounts[k] >= frequent:
                    mode = min(mode, value)
            mean /= total
            deviation = 0.0
            for k in range(first, last):
                deviation += amounts[k] * abs(table[numbers[k], p] - mean)
            if unknown:
                low = high = mean = deviation = np.nan
                for k in range(first, last):
                    if amounts[k] >= frequent and np.isnan(table[numbers[k], p]):
                        mode = np.nan
            out[i, p, 0] = low
            out[i, p, 1] = high
            out[i, p, 2] = high - low
            out[i, p, 3] = mean
            out[i, p, 4] = deviation / total
            out[i, p, 5] = mode


def magpie(formulas: Any, *, impute_nan: bool = True, dtype: Any = np.float64) -> np.ndarray:
    """Return Magpie's statistics of 22 elemental properties over each composition.

    Parameters
    ----------
    formulas
        Formulas, mappings symbol → amount, pymatgen Compositions, a Batch or an amount table (see
        :func:`matcompute_kernels.compositions.as_compositions`).
    impute_nan
        Replace what is not known of an element by the mean over the elements that have it (matminer's default since
        0.9.1); otherwise features that need it are NaN.
    dtype
        float64 or float32.

    Returns
    -------
    numpy.ndarray
        [N, 132]: minimum, maximum, range, mean, mean absolute deviation and mode (the smallest of several) for each
        property, the property slowest; matminer's order, see :func:`labels`.

    Raises
    ------
    KernelInputError
        If a formula cannot be read; ``index`` names it.

    Notes
    -----
    matminer's ``ElementProperty.from_preset("magpie")``; L. Ward et al., npj Comput. Mater. 2, 16028 (2016).
    """
    dtype = check_dtype(dtype)
    compositions = as_compositions(formulas)
    table = _properties(bool(impute_nan))
    out = np.empty((len(compositions), table.shape[1], len(_STATISTICS)), dtype=dtype)
    _statistics(compositions.numbers, compositions.amounts, compositions.ptr, table, out)
    return out.reshape(len(compositions), table.shape[1] * len(_STATISTICS))


def labels(**_: Any) -> list[str]:
    """Return matminer's name of each of the 132 columns."""
    return [f"MagpieData {s} {name}" for name in element_table(_TABLE)[0] for s in _STATISTICS]


@cache
def _properties(impute: bool) -> np.ndarray:
    table = element_table(_TABLE)[1].copy()
    if len(table) != len(SYMBOLS):
        raise KernelInputError(f"{_TABLE} does not have {len(SYMBOLS)} elements")
    if impute:
        for column in table.T:
            column[np.isnan(column)] = np.nanmean(column[1:])
    return table

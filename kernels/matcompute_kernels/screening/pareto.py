"""Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from matcompute_kernels.checks import check_integer
from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.screening.features import feature_matrix

__all__ = ["pareto_front"]


@njit(cache=True)
def _front(values: np.ndarray, order: np.ndarray, left: np.ndarray, rank: int, kept: np.ndarray) -> int:
    """Give ``rank`` to the points of no rank that no other such point dominates (all to be minimised).

    ``order`` is lexicographic, so a point can only be dominated by one before it that is on the front itself. A point
    that dominates is moved forward, since it is likely to dominate the next as well. left (i8, -1 = no rank) is
    OUTPUT, kept scratch.
    """
    front = 0
    columns = values.shape[1]
    for i in order:
        if left[i] >= 0:
            continue
        dominated = False
        for f in range(front):
            other = values[kept[f]]
            no_worse, better = True, False
            for c in range(columns):
                if other[c] > values[i, c]:
                    no_worse = False
                    break
                better |= other[c] < values[i, c]
            if no_worse and better:
                dominated = True
                kept[f // 2], kept[f] = kept[f], kept[f // 2]
                break
        if not dominated:
            kept[front] = i
            front += 1
    for f in range(front):
        left[kept[f]] = rank
    return front


def pareto_front(values: Any, maximize: bool | Sequence[bool] = False, *, fronts: int = 1) -> np.ndarray:
    """Return which items no other item dominates.

    Parameters
    ----------
    values
        [N, C], one column a criterion.
    maximize
        Whether more is better, one for all or for each column.
    fronts
        1: the front as a mask. More: peel off so many fronts, and return ranks.

    Returns
    -------
    numpy.ndarray
        bool[N]; for ``fronts`` > 1 i8[N], 0 for the first front and −1 for items beyond the last.

    Raises
    ------
    KernelInputError
        If values are no finite matrix (``index`` names the row) or maximize does not fit.

    Notes
    -----
    An item dominates another if it is no worse in any criterion and better in one; equal items stay together.
    """
    table = feature_matrix(values, "values").astype(np.float64)
    check_integer(1, 1_000_000, fronts=fronts)
    flags = np.asarray(maximize)
    flags = np.full(table.shape[1], flags) if flags.ndim == 0 else flags
    if flags.dtype != bool or flags.shape != (table.shape[1],):
        raise KernelInputError(f"maximize must be a bool, or one for each of {table.shape[1]} columns")
    table = np.where(flags, -table, table)
    order = np.lexsort(table.T[::-1])
    ranks = np.full(len(table), -1, dtype=np.int64)
    kept = np.empty(len(table), dtype=np.int64)
    found = 0
    for rank in range(fronts):
        found += _front(table, order, ranks, rank, kept)
        if found == len(table):
            break
    return ranks == 0 if fronts == 1 else ranks

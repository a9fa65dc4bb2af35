"""Rows of a release's table: which are wanted (`Filter`), and some of them (`Page`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Filter", "Page", "array", "matches"]


@dataclass(frozen=True)
class Filter:
    """Which rows of the table.

    Parameters
    ----------
    text
        An entry's id, or the beginning of a formula.
    elements
        All of them must be in the entry.
    column, low, high
        A column of numbers and its range, ends included.
    """

    text: str = ""
    elements: tuple[str, ...] = ()
    column: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Page:
    """Some rows: each a dictionary with ``row`` (its place in the release); ``next`` is None on the last page."""

    rows: list[dict[str, Any]]
    next: int | None


def array(column: Any) -> np.ndarray:
    """Return a column of numbers as f8, NaN where there is none."""
    import pyarrow as pa

    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=float)


def matches(block: pa.Table, where: Filter) -> np.ndarray:
    """Return which rows of a block a filter lets through, bool[n]."""
    import pyarrow.compute as pc

    mask = np.ones(block.num_rows, dtype=bool)
    if where.text:
        same = pc.equal(block["id"], where.text)
        begins = pc.starts_with(block["formula"], where.text)
        mask &= _truth(pc.or_(same, begins))
    for symbol in where.elements:
        mask &= _truth(pc.match_substring_regex(block["elements"], rf"(^|-){symbol}(-|$)"))
    if where.column:
        values = array(block[where.column])
        with np.errstate(invalid="ignore"):
            mask &= np.isfinite(values)
            if where.low is not None:
                mask &= values >= where.low
            if where.high is not None:
                mask &= values <= where.high
    return mask


def _truth(column: Any) -> np.ndarray:
    return np.asarray(column.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)

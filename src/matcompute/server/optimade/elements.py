"""Sets of elements as two integers of 60 bits: the questions of a filter become arithmetic on two columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlalchemy import BigInteger, ColumnElement, and_, false, literal, or_

from matcompute.server.optimade.tables import structures
from matcompute_kernels.elements import SYMBOLS

__all__ = ["all_of", "any_of", "masks", "only_of", "symbols_where"]

_HALF = 60
_NUMBER = {symbol: z for z, symbol in enumerate(SYMBOLS)}


def masks(elements: Iterable[str]) -> tuple[int, int]:
    """Return the bits of X and the elements 1 … 59, and of 60 … 118; what is no symbol has none."""
    mask = 0
    for symbol in elements:
        if symbol in _NUMBER:
            mask |= 1 << _NUMBER[symbol]
    return mask & ((1 << _HALF) - 1), mask >> _HALF


def symbols_where(test: Callable[[str], bool]) -> list[str]:
    """Return the elements whose symbols pass a test (``HAS < "C"`` means those before C in the alphabet)."""
    return [symbol for symbol in _NUMBER if test(symbol)]


def any_of(symbols: Iterable[str]) -> ColumnElement[bool]:
    """Whether an entry holds one of these."""
    lo, hi = masks(symbols)
    parts = [
        column.bitwise_and(literal(mask, BigInteger)) != 0
        for column, mask in ((structures.c.elements_lo, lo), (structures.c.elements_hi, hi))
        if mask
    ]
    return or_(false(), *parts)


def all_of(symbols: Iterable[str]) -> ColumnElement[bool]:
    """Whether an entry holds each of these; they must be elements."""
    lo, hi = masks(symbols)
    parts = [
        column.bitwise_and(literal(mask, BigInteger)) == mask
        for column, mask in ((structures.c.elements_lo, lo), (structures.c.elements_hi, hi))
        if mask
    ]
    return and_(*parts)


def only_of(symbols: Iterable[str]) -> ColumnElement[bool]:
    """Whether an entry holds nothing but these."""
    lo, hi = masks(symbols)
    full = (1 << _HALF) - 1
    return and_(
        structures.c.elements_lo.bitwise_and(literal(full & ~lo, BigInteger)) == 0,
        structures.c.elements_hi.bitwise_and(literal(full & ~hi, BigInteger)) == 0,
    )

"""Numbers, times, sizes and formulas as the pages show them."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup, escape

from matcompute.units import format_unit

__all__ = ["element_places", "format_formula", "format_number", "format_size", "format_time", "format_units"]

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def format_number(value: Any, digits: int = 5) -> str:
    """Return a number as people write it: ``1 234 567``, ``0.123``, ``1.2×10⁻⁷``; ``–`` for none."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "−")
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}×10{raised}"
    return text.replace("-", "−")


def format_size(size: int) -> str:
    """Return a number of bytes in powers of 1000: ``1.5 MB``."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_SIZES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g}\u202f{_SIZES[unit]}"


def format_time(text: str) -> str:
    """Return the day and minute of an ISO time: ``2026-01-31 12:00 UTC``."""
    return f"{text[:10]} {text[11:16]} UTC" if len(text) > 16 else text


def format_formula(formula: str) -> Markup:
    """Return a formula with its numbers as subscripts."""
    return Markup(re.sub(r"(?<=[A-Za-z)\]])(\d+)", r"<sub>\1</sub>", str(escape(formula))))


def format_units(units: str) -> str:
    """Return a unit as people write it (``Å³/atom``); nothing for a pure number."""
    return "" if units in ("", "1") else format_unit(units)


def element_places() -> list[tuple[str, int, int]]:
    """Return symbol, column (1 to 18) and row (1 to 9) of every element in the long form of the table."""
    from matcompute_kernels.elements import MAX_Z, SYMBOLS

    places = []
    starts = ((1, 1), (3, 2), (11, 3), (19, 4), (37, 5), (55, 6), (87, 7))
    for z in range(1, MAX_Z + 1):
        first, period = max(start for start in starts if start[0] <= z)
        offset = z - first
        if z in (1, 2):
            column, row = (1, 1) if z == 1 else (18, 1)
        elif period in (2, 3):
            column, row = (offset + 1 if offset < 2 else offset + 11), period
        elif period in (4, 5) or offset < 2:
            column, row = offset + 1, period
        elif offset < 17:
            column, row = offset + 1, period + 2  # lanthanides and actinides stand below
        else:
            column, row = offset - 13, period
        places.append((SYMBOLS[z], column, row))
    return places

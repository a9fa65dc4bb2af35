"""Quantities with units in campaign files and expressions, converted to the canonical unit of a column."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from matcompute.errors import InputError

if TYPE_CHECKING:
    import pint

__all__ = ["convert", "format_unit", "parse_quantity", "registry", "split_quantity"]

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*$")


@cache
def registry() -> pint.UnitRegistry:
    """Return the pint registry, with ``atom`` and ``core`` as units of their own."""
    import pint

    ureg: pint.UnitRegistry = pint.UnitRegistry(cache_folder=None)
    ureg.define("atom = [particle]")
    ureg.define("core = [compute_core]")
    ureg.define("kB = 1024 * byte")
    # As first-principles codes write them.
    ureg.define("@alias hartree = Ha = Hartree")
    ureg.define("@alias rydberg = Rydberg")
    return ureg


def convert(value: float, unit: str, to: str) -> float:
    """Convert a number from one unit to another.

    Parameters
    ----------
    value, unit
        The number and the unit in which it was written; an empty unit means the target's own.
    to
        The canonical unit of the column or parameter (``"1"`` for a pure number).

    Raises
    ------
    InputError
        If the unit is unknown or has another dimension.
    """
    if not unit or unit == to:
        return value
    import pint

    ureg = registry()
    target = "dimensionless" if to in {"1", ""} else to
    try:
        return float(ureg.Quantity(value, unit).to(target).magnitude)
    except pint.UndefinedUnitError as error:
        raise InputError(f"unknown unit '{unit}'", hint=f"expected a unit that converts to {to}") from error
    except pint.DimensionalityError as error:
        raise InputError(f"'{value:g} {unit}' is not a quantity in {to}") from error
    except Exception as error:  # pint's own parser raises several kinds for malformed text
        raise InputError(f"'{unit}' is not a unit", hint=f"expected a unit that converts to {to}") from error


def parse_quantity(text: str | float | int, unit: str) -> float:
    """Read ``"0.05 eV/angstrom"`` or a plain number in the canonical unit.

    Parameters
    ----------
    text
        A number, or a number followed by a unit.
    unit
        The canonical unit of the result.

    Raises
    ------
    InputError
        If the text is no quantity of that dimension.
    """
    if isinstance(text, bool):
        raise InputError(f"expected a quantity in {unit}, not {text}")
    if isinstance(text, int | float):
        return float(text)
    try:
        value, written = split_quantity(text)
    except InputError as error:
        raise InputError(error.message, hint=f"write a number and a unit, for example '1 {unit}'") from None
    return convert(value, written, unit)


def split_quantity(text: str) -> tuple[float, str]:
    """Split ``"0.05 eV/atom"`` into its number and its unit (empty if none is written)."""
    match = _NUMBER.match(text)
    if match is None:
        raise InputError(f"'{text}' is not a quantity")
    return float(match.group(1)), match.group(2)


def format_unit(unit: str) -> str:
    """Return a unit as people print it (``eV/Å``, ``μ_B``; nothing for a pure number)."""
    if unit == "1":
        return ""
    return unit.replace("angstrom", "Å").replace("mu_B", "μ_B").replace("^3", "³").replace("^2", "²")

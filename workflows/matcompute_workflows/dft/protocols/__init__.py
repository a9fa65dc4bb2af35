"""Protocols as data: what ``fast``, ``balanced`` and ``stringent`` mean for a code, and tables that codes share."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

__all__ = ["hubbard_u", "protocol", "protocol_names", "valence_orbital"]


@cache
def _read(name: str) -> dict[str, Any]:
    text = (resources.files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def protocol_names(code: str) -> tuple[str, ...]:
    """Return the names of a code's protocols."""
    return tuple(_read(code)["protocols"])


def protocol(code: str, name: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a protocol's values; those that are overridden by a value other than None are replaced."""
    values = dict(_read(code)["protocols"][name])
    values.pop("title")
    values.update({key: value for key, value in (overrides or {}).items() if value is not None})
    return values


def valence_orbital(symbol: str) -> str:
    """Return the orbital of an element that takes a U: ``3d``, ``4f`` …"""
    table = _read("hubbard")
    found = (orbital for orbital, symbols in table["orbitals"].items() if symbol in symbols)
    return next(found, str(table["orbital"]))


def hubbard_u(
    species: set[str], overrides: Mapping[str, float] | None = None
) -> dict[str, tuple[str, float]]:
    """Return symbol → (orbital, U in eV) for a compound; empty where no U applies.

    Parameters
    ----------
    species
        Symbols of the compound.
    overrides
        Symbol → U; used whatever the anions are, 0 for none. None: the table.
    """
    table = _read("hubbard")
    if overrides is not None:
        return {
            symbol: (valence_orbital(symbol), float(u))
            for symbol, u in overrides.items()
            if symbol in species and u
        }
    if not species & set(table["anions"]):
        return {}
    return {
        symbol: (valence_orbital(symbol), float(u)) for symbol, u in table["u"].items() if symbol in species
    }

"""Elemental ground states that a hull needs and the campaign's structures lack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from matcompute.errors import InputError
from matcompute.structures.elements import ground_state
from matcompute_kernels.batch import Batch

__all__ = ["Reference", "elemental_references"]


@dataclass(frozen=True)
class Reference:
    """A reference crystal of one element, or why there is none.

    Attributes
    ----------
    symbol
        The element.
    origin
        Structure type, lattice constants and where they come from.
    problem
        Set, and ``origin`` empty, if no crystal is known.
    """

    symbol: str
    origin: str
    problem: str = ""


def elemental_references(symbols: Iterable[str]) -> tuple[Batch, list[Reference], list[Reference]]:
    """Return ground-state crystals of elements.

    Parameters
    ----------
    symbols
        Elements; each is taken once, in alphabetical order.

    Returns
    -------
    batch
        One primitive cell for each known element.
    known
        Its origin, in the order of the batch.
    unknown
        Elements for which no crystal is known.
    """
    atoms, known, unknown = [], [], []
    for symbol in sorted(set(symbols)):
        try:
            crystal, origin = ground_state(symbol)
        except InputError as error:
            unknown.append(Reference(symbol, "", str(error)))
            continue
        atoms.append(crystal)
        known.append(Reference(symbol, origin))
    return Batch.from_atoms(atoms), known, unknown

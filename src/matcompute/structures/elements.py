"""Elements by symbol and by group, their ground-state crystals, and the volumes that guess a compound's cell."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from matcompute.errors import InputError, did_you_mean
from matcompute_kernels.elements import SYMBOLS

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["atomic_volumes", "element_data", "element_groups", "expand_elements", "ground_state"]


@cache
def element_data() -> dict[str, Any]:
    """Return the package's ``elements.yaml``: structures, volumes and groups."""
    text = (resources.files("matcompute.structures") / "data" / "elements.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return data


def element_groups() -> dict[str, tuple[str, ...]]:
    """Return the named groups of elements (``3d``, ``transition-metals``, …)."""
    return {name: tuple(symbols) for name, symbols in element_data()["groups"].items()}


def expand_elements(names: Iterable[str]) -> list[str]:
    """Return symbols for a list of symbols and group names, each once, in the order given.

    Raises
    ------
    ValueError
        If a name is neither; the nearest one is given.
    """
    groups = element_groups()
    found: dict[str, None] = {}
    for name in names:
        if name in groups:
            found.update(dict.fromkeys(groups[name]))
        elif name in SYMBOLS[1:]:
            found[name] = None
        elif name.capitalize() in SYMBOLS[1:]:
            raise ValueError(f"'{name}' is not a chemical symbol; did you mean '{name.capitalize()}'?")
        else:
            options = [*groups, *SYMBOLS[1:]]
            hint = did_you_mean(name, options) if len(name) > 2 else f"; groups are {', '.join(groups)}"
            raise ValueError(f"'{name}' is neither a chemical symbol nor a group of elements{hint}")
    return list(found)


@cache
def _ground_state(symbol: str) -> tuple[Any, str]:
    from ase.build import bulk
    from ase.data import reference_states

    entry = element_data()["structures"].get(symbol)
    if entry is not None:
        from ase.spacegroup import crystal

        sites = entry["sites"]
        atoms = crystal(
            [symbol] * len(sites),
            basis=sites,
            spacegroup=entry["space_group"],
            cellpar=entry["cell"],
            primitive_cell=True,
            symprec=1e-3,
        )
        return atoms, str(entry["origin"])
    number = SYMBOLS.index(symbol)
    state = reference_states[number] if number < len(reference_states) else None
    try:
        atoms = bulk(symbol)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"no ground-state crystal of {symbol} is known",
            hint=f"add a structure of pure {symbol} to the campaign, or a reference entry to the hull",
        ) from error
    assert state is not None
    shape = ", ".join(f"{key} = {state[key]:.4g}" for key in ("a", "c/a", "alpha") if key in state)
    return atoms, f"{state['symmetry']}, {shape} (ase.data.reference_states)"


def ground_state(symbol: str) -> tuple[Atoms, str]:
    """Return an element's ground-state crystal (primitive cell) and where its data come from.

    Raises
    ------
    InputError
        If none is known (At, Fr, Rn and elements beyond Es).
    """
    atoms, origin = _ground_state(symbol)
    return atoms.copy(), origin


@cache
def atomic_volumes() -> np.ndarray:
    """Return the volume in Å^3 an atom that each element takes in a guessed compound, f8[119]; NaN if unknown."""
    volumes = np.full(len(SYMBOLS), np.nan)
    own = element_data()["volumes"]
    for number, symbol in enumerate(SYMBOLS[1:], start=1):
        if symbol in own:
            volumes[number] = own[symbol]
            continue
        try:
            atoms, _ = _ground_state(symbol)
        except InputError:
            continue
        volumes[number] = atoms.get_volume() / len(atoms)
    return volumes

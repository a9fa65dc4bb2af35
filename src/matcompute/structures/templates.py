"""Prototype definitions (data/prototypes.yaml) built into undecorated primitive cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import numpy as np
import yaml

from matcompute.errors import did_you_mean

__all__ = ["Template", "prototype_names", "template"]


@dataclass(frozen=True)
class Template:
    """One prototype.

    Attributes
    ----------
    name
        As in the data file.
    labels
        Kinds of sites, in the order of the data file.
    aliases
        Other spellings of labels.
    site_label
        i8[k], which label each site of the primitive cell has.
    fractional, cell
        f8[k,3] and f8[3,3]; the cell has the volume 1.
    swap
        Two label indices whose exchange gives the same crystal, or None.
    volume
        How the volume is guessed.
    bonds
        (label, label, distance at volume 1) for ``volume == "bonds"``.
    reference
        Origin of the definition.
    """

    name: str
    labels: tuple[str, ...]
    aliases: Mapping[str, str]
    site_label: np.ndarray
    fractional: np.ndarray
    cell: np.ndarray
    swap: tuple[int, int] | None
    volume: Literal["atomic", "bonds"]
    bonds: tuple[tuple[int, int, float], ...]
    reference: str

    @property
    def counts(self) -> np.ndarray:
        """Sites of each label in the primitive cell, i8[labels]."""
        return np.bincount(self.site_label, minlength=len(self.labels))

    def resolve(self, label: str) -> int | None:
        """Return the index of a label or of its other spelling; None if it has none."""
        label = self.aliases.get(label, label) if label not in self.labels else label
        return self.labels.index(label) if label in self.labels else None


@cache
def _data() -> dict[str, dict[str, Any]]:
    text = (resources.files("matcompute.structures") / "data" / "prototypes.yaml").read_text(encoding="utf-8")
    data: dict[str, dict[str, Any]] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return data


@cache
def _spellings() -> dict[str, str]:
    names = {name: name for name in _data()}
    for name, entry in _data().items():
        for alias in entry.get("aliases", ()):
            names.setdefault(alias, name)
    return names


def prototype_names() -> list[str]:
    """Return the names of all prototypes."""
    return list(_data())


@cache
def template(name: str) -> Template:
    """Return a prototype by name or alias (``rocksalt``, ``B1``, ``NaCl``).

    Raises
    ------
    ValueError
        If there is none; the nearest name is given.
    """
    from ase.spacegroup import crystal

    spellings = _spellings()
    if name not in spellings:
        folded = {key.lower(): key for key in spellings}
        if name.lower() in folded:
            raise ValueError(f"unknown prototype '{name}'; did you mean '{folded[name.lower()]}'?")
        near = did_you_mean(name, spellings)
        raise ValueError(
            f"unknown prototype '{name}'" + (near if "mean" in near else f"; known: {', '.join(_data())}")
        )
    name = spellings[name]
    entry = _data()[name]
    labels = tuple(entry["sites"])
    # Labels become elements H, He, … for the space-group machinery, and are read back from the numbers.
    basis = [site for label in labels for site in entry["sites"][label]]
    species = [index + 1 for index, label in enumerate(labels) for _ in entry["sites"][label]]
    atoms = crystal(
        species,
        basis=basis,
        spacegroup=entry["space_group"],
        setting=entry.get("setting", 1),
        cellpar=entry.get("cell", [1, 1, 1, 90, 90, 90]),
        primitive_cell=True,
        symprec=1e-5,
    )
    length = atoms.get_volume() ** (1 / 3)
    cell = np.asarray(atoms.cell.array) / length
    site_label = np.asarray(atoms.numbers) - 1
    fractional = atoms.get_scaled_positions(wrap=True)
    # Fractions such as 1/3 come back with the rounding of the data file and of the symmetry operations.
    fractional = np.round(fractional, 10) % 1.0
    swap = tuple(labels.index(label) for label in entry["swap"]) if "swap" in entry else None
    bonds = []
    for first, second in entry.get("bonds", ()):
        i, j = labels.index(first), labels.index(second)
        bonds.append((i, j, _shortest(fractional, cell, site_label == i, site_label == j)))
    for array in (site_label, fractional, cell):
        array.setflags(write=False)
    return Template(
        name=name,
        labels=labels,
        aliases=entry.get("label_aliases", {}),
        site_label=site_label,
        fractional=fractional,
        cell=cell,
        swap=swap,  # type: ignore[arg-type]
        volume=entry.get("volume", "atomic"),
        bonds=tuple(bonds),
        reference=entry["reference"],
    )


def _shortest(fractional: np.ndarray, cell: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Return the shortest distance between sites of two kinds, periodic images included."""
    shifts = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    vectors = fractional[second][None, :, None, :] + shifts - fractional[first][:, None, None, :]
    distances = np.linalg.norm(vectors @ cell, axis=-1)
    return float(distances[distances > 1e-6].min())

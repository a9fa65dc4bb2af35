"""Energy above hull and formation energy of a campaign's entries, by the kernel of all chemical systems at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from matcompute.dataset import Status
from matcompute.errors import InputError

if TYPE_CHECKING:
    from matcompute.dataset import Dataset

__all__ = ["References", "hull_columns", "read_references"]


@dataclass
class References:
    """Further entries that shape the hull.

    Parameters
    ----------
    formulas
        Formula of each.
    energies
        Total energy of the formula as written, eV.
    """

    formulas: list[str] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)

    def add(self, formula: str, energy: float) -> None:
        """Add an entry."""
        self.formulas.append(formula)
        self.energies.append(energy)


def hull_columns(
    structures: Dataset, energy: np.ndarray, usable: np.ndarray, references: References | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[int, str]]:
    """Return the hull columns of all entries.

    Parameters
    ----------
    structures
        N structures.
    energy
        ``f8[N]``, total energy per cell in eV.
    usable
        ``bool[N]``: entries whose energy counts (elemental references included).
    references
        Further entries.

    Returns
    -------
    e_above_hull, formation_energy
        ``f8[N]`` in eV/atom, NaN where undefined.
    status
        ``u1[N]`` (:class:`matcompute.dataset.Status`).
    messages
        Row → reason, for the entries that have none.

    Notes
    -----
    Same definition as pymatgen's ``PhaseDiagram`` (S. P. Ong et al., Chem. Mater. 20, 1798 (2008)).
    """
    from matcompute_kernels.compositions import as_compositions
    from matcompute_kernels.elements import SYMBOLS
    from matcompute_kernels.screening.hull import hull

    n = len(structures)
    e_hull, e_form = np.full(n, np.nan), np.full(n, np.nan)
    status = np.full(n, int(Status.NOT_ATTEMPTED), dtype=np.uint8)
    rows = np.flatnonzero(usable)
    if not rows.size:
        return e_hull, e_form, status, {}
    table = as_compositions(structures.batch(rows))
    extra = references if references is not None and references.formulas else None
    more = None if extra is None else (extra.formulas, np.array(extra.energies))
    found = hull(table, energy[rows], references=more, missing="nan")
    e_hull[rows], e_form[rows] = found.e_above_hull, found.formation_energy
    known = np.isfinite(found.e_above_hull)
    status[rows] = np.where(known, int(Status.OK), int(Status.MISSING_REFERENCE))

    pure = {int(table.numbers[table.ptr[i]]) for i in np.flatnonzero(np.diff(table.ptr) == 1)}
    if extra is not None:
        others = as_compositions(extra.formulas)
        pure |= {int(others.numbers[others.ptr[i]]) for i in np.flatnonzero(np.diff(others.ptr) == 1)}
    messages: dict[int, str] = {}
    for i in np.flatnonzero(~known):
        missing = sorted(SYMBOLS[z] for z in table.numbers[table.ptr[i] : table.ptr[i + 1]] if z not in pure)
        messages[int(rows[i])] = (
            f"no energy of elemental {', '.join(missing)} in the campaign or its references"
        )
    return e_hull, e_form, status, messages


def read_references(path: Path) -> References:
    """Read entries for the hull: a dataset v1 with energies, or structures with an energy that ASE reads.

    Raises
    ------
    InputError
        If the file cannot be read or a structure in it has no energy.
    """
    from matcompute.dataset import Dataset

    path = Path(path)
    found = References()
    if not path.exists():
        raise InputError(f"{path}: no such reference file")
    if path.suffix in {".h5", ".hdf5"}:
        with Dataset(path) as shard:
            if "energy" not in shard.properties:
                raise InputError(f"{path}: the dataset has no column 'energy'")
            energies, status = shard.column("energy"), shard.status("energy")
            for k, atoms in enumerate(shard.iter_atoms()):
                if status[k] == int(Status.OK):
                    found.add(atoms.get_chemical_formula(), float(energies[k]))
        return found
    import ase.io

    try:
        frames = ase.io.read(path, index=":")
    except Exception as error:  # each ASE reader raises its own kinds
        raise InputError(f"{path}: cannot be read as structures: {error}") from error
    for k, atoms in enumerate(frames):
        energy = atoms.info.get("energy", atoms.calc.results.get("energy") if atoms.calc else None)
        if energy is None:
            raise InputError(
                f"{path}: structure {k + 1} ({atoms.get_chemical_formula()}) has no energy",
                hint="write energy=<total energy in eV> into its extxyz comment line",
            )
        found.add(atoms.get_chemical_formula(), float(energy))
    return found

"""Energy above hull and formation energy of a campaign's entries, by pymatgen's PhaseDiagram."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from matcompute.dataset import Status
from matcompute.errors import InputError

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PDEntry

    from matcompute.dataset import Dataset

__all__ = ["hull_columns", "maximal_systems", "read_references"]


def hull_columns(
    structures: Dataset, energy: np.ndarray, usable: np.ndarray, references: Iterable[PDEntry]
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
    """
    from ase.data import chemical_symbols
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition

    n = len(structures)
    e_hull, e_form = np.full(n, np.nan), np.full(n, np.nan)
    status = np.full(n, int(Status.NOT_ATTEMPTED), dtype=np.uint8)
    messages: dict[int, str] = {}

    entries: dict[int, PDEntry] = {}
    systems: dict[int, frozenset[str]] = {}
    row = 0
    for batch in structures.iter_batches():
        for k in range(len(batch)):
            if usable[row]:
                numbers, counts = np.unique(
                    batch.numbers[batch.ptr[k] : batch.ptr[k + 1]], return_counts=True
                )
                amounts = {chemical_symbols[z]: int(c) for z, c in zip(numbers, counts, strict=True)}
                entries[row] = PDEntry(Composition(amounts), float(energy[row]))
                systems[row] = frozenset(amounts)
            row += 1

    extra = list(references)
    extra_systems = [frozenset(e.symbol for e in entry.composition.elements) for entry in extra]
    unary = {next(iter(s)) for s in [*systems.values(), *extra_systems] if len(s) == 1}
    solvable: dict[int, frozenset[str]] = {}
    for row, system in systems.items():
        missing = sorted(system - unary)
        if missing:
            status[row] = int(Status.MISSING_REFERENCE)
            messages[row] = f"no energy of elemental {', '.join(missing)} in the campaign or its references"
        else:
            solvable[row] = system

    by_system: dict[frozenset[str], list[int]] = {}
    for row, system in solvable.items():
        by_system.setdefault(system, []).append(row)
    extra_by_system: dict[frozenset[str], list[PDEntry]] = {}
    for entry, system in zip(extra, extra_systems, strict=True):
        extra_by_system.setdefault(system, []).append(entry)

    for space in maximal_systems(by_system):
        inside = [system for system in by_system if system <= space]
        rows = [row for system in inside for row in by_system[system]]
        pool = [entries[row] for row in rows]
        pool += [e for system, some in extra_by_system.items() if system <= space for e in some]
        diagram = PhaseDiagram(pool)
        for row in rows:
            if status[row] == int(Status.OK):
                continue
            e_hull[row] = diagram.get_e_above_hull(entries[row])
            e_form[row] = diagram.get_form_energy_per_atom(entries[row])
            status[row] = int(Status.OK)
    return e_hull, e_form, status, messages


def maximal_systems(systems: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    """Return the chemical systems that are not part of another one, in a fixed order.

    An entry's energy above hull is the same in every space that holds it, so one diagram per maximal system serves all.
    """
    unique = sorted(set(systems), key=lambda s: (-len(s), sorted(s)))
    kept: list[frozenset[str]] = []
    holders: dict[str, list[frozenset[str]]] = {}
    for system in unique:
        rarest = min((holders.get(element, []) for element in system), key=len)
        if any(system <= other for other in rarest):
            continue
        kept.append(system)
        for element in system:
            holders.setdefault(element, []).append(system)
    return kept


def read_references(path: Path) -> list[PDEntry]:
    """Read entries for the hull: a dataset v1 with energies, or structures with an energy that ASE reads.

    Raises
    ------
    InputError
        If the file cannot be read or a structure in it has no energy.
    """
    from pymatgen.analysis.phase_diagram import PDEntry
    from pymatgen.core import Composition

    from matcompute.dataset import Dataset

    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such reference file")
    if path.suffix in {".h5", ".hdf5"}:
        with Dataset(path) as shard:
            if "energy" not in shard.properties:
                raise InputError(f"{path}: the dataset has no column 'energy'")
            energies, status = shard.column("energy"), shard.status("energy")
            return [
                PDEntry(Composition(atoms.get_chemical_formula()), float(energies[k]))
                for k, atoms in enumerate(shard.iter_atoms())
                if status[k] == int(Status.OK)
            ]
    import ase.io

    try:
        frames = ase.io.read(path, index=":")
    except Exception as error:  # each ASE reader raises its own kinds
        raise InputError(f"{path}: cannot be read as structures: {error}") from error
    entries = []
    for k, atoms in enumerate(frames):
        energy = atoms.info.get("energy", atoms.calc.results.get("energy") if atoms.calc else None)
        if energy is None:
            raise InputError(
                f"{path}: structure {k + 1} ({atoms.get_chemical_formula()}) has no energy",
                hint="write energy=<total energy in eV> into its extxyz comment line",
            )
        entries.append(PDEntry(Composition(atoms.get_chemical_formula()), float(energy)))
    return entries

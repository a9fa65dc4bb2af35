"""Observables that tasks share, and the guard that stops a calculation which has left physics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["MECHANICAL", "Exploded", "Guard", "observe"]

#: Property names that :func:`observe` gives.
MECHANICAL = ("energy", "energy_per_atom", "forces", "stress", "max_force", "volume_per_atom")


class Exploded(Exception):
    """Energy, forces or volume are not finite or out of bounds."""


class Guard:
    """Checks a structure during a calculation.

    Parameters
    ----------
    atoms
        The starting structure; its volume is the reference.
    max_force
        Largest force on an atom in eV/Å.
    max_volume_ratio
        Largest factor by which the volume may grow or shrink.
    """

    def __init__(self, atoms: Atoms, *, max_force: float, max_volume_ratio: float = np.inf) -> None:
        self.max_force = max_force
        self.max_volume_ratio = max_volume_ratio
        self.volume = abs(float(np.linalg.det(atoms.cell.array)))

    def check(self, atoms: Atoms, when: str = "at the start", *, fresh: bool = False) -> None:
        """Evaluate (or reuse) energy and forces.

        Parameters
        ----------
        atoms
            The structure now.
        when
            For the message.
        fresh
            The calculator has just evaluated this very structure, so that its results need no comparison of all
            positions (which would cost as much as a step of a cheap potential).

        Raises
        ------
        Exploded
            If a value is not finite or out of bounds.
        """
        ratio = abs(float(np.linalg.det(atoms.cell.array))) / self.volume
        if not 1 / self.max_volume_ratio <= ratio <= self.max_volume_ratio:
            raise Exploded(
                f"volume is {ratio:.3g} times the initial one {when} (limit {self.max_volume_ratio:g} either way)"
            )
        results = getattr(atoms.calc, "results", None) if fresh else None
        energy = results.get("energy") if results else None
        if energy is None:
            energy = atoms.get_potential_energy()
        if not np.isfinite(energy):
            raise Exploded(f"energy is {energy} {when}")
        forces = results.get("forces") if results else None
        if forces is None:
            forces = atoms.get_forces(apply_constraint=False)
        force = float(np.sqrt(np.einsum("ij,ij->i", forces, forces).max()))
        if not force <= self.max_force:
            raise Exploded(f"largest force is {force:.3g} eV/Å {when} (limit {self.max_force:g})")


def observe(atoms: Atoms, *, magmoms: bool = False) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return entry-level and per-site values of a structure that has a calculator.

    Returns
    -------
    tuple
        ``energy`` eV, ``energy_per_atom`` eV/atom, ``stress`` GPa (6, Voigt, tension positive), ``max_force`` eV/Å,
        ``volume_per_atom`` Å^3/atom; and ``forces`` eV/Å [n_sites, 3], ``magmom`` μ_B [n_sites] if asked for and given.
    """
    from ase.units import GPa

    n = len(atoms)
    energy = float(atoms.get_potential_energy())
    forces = np.asarray(atoms.get_forces(apply_constraint=False), dtype=float)
    values: dict[str, Any] = {
        "energy": energy,
        "energy_per_atom": energy / n,
        "max_force": float(np.sqrt((forces**2).sum(axis=1).max())),
        "volume_per_atom": float(atoms.get_volume()) / n,
    }
    if atoms.pbc.all():
        values["stress"] = np.asarray(atoms.get_stress(apply_constraint=False), dtype=float) / GPa
    site_values = {"forces": forces}
    if magmoms and "magmoms" in getattr(atoms.calc, "implemented_properties", ()):
        site_values["magmom"] = np.asarray(atoms.get_magnetic_moments(), dtype=float).reshape(n)
    return values, site_values

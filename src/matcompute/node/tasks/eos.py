"""Equation of state: energies at a few volumes and a third-order Birch–Murnaghan fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from matcompute.node.adapters import Deadline, Parameters, TaskAdapter, TaskResult

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

    from matcompute.dataset import PropertyInfo

__all__ = ["EOSParameters", "EOSTask", "EquationOfState"]


class EOSParameters(Parameters):
    """Parameters of the task ``eos``."""

    strain: float = Field(
        0.06,
        gt=0,
        le=0.3,
        description="Volumes (1 ± strain)·V around the input's; 0.06 with 7 points is the Delta-test protocol.",
        json_schema_extra={"unit": "1"},
    )
    points: int = Field(
        7, ge=5, le=41, description="Number of volumes (odd numbers include the input's own)."
    )
    recentre: int = Field(
        2,
        ge=0,
        le=10,
        description="How often the window may be moved onto a minimum that lies outside of it.",
    )
    relax_positions: bool = Field(
        False, description="Relax the positions at each volume, the cell shape kept."
    )
    fmax: float = Field(
        0.02,
        gt=0,
        description="Force threshold of that relaxation.",
        json_schema_extra={"unit": "eV/angstrom"},
    )
    steps: int = Field(200, ge=1, description="At most so many steps of that relaxation.")
    max_rms_error: float = Field(
        0.01,
        gt=0,
        description="A fit with a larger root-mean-square error fails.",
        json_schema_extra={"unit": "eV/atom"},
    )


class EOSTask(TaskAdapter):
    """Isotropic strain of the cell, fractional coordinates kept (or relaxed)."""

    name = "eos"
    title = "Birch–Murnaghan equation of state: V0, B0, B0′, fit error"
    Parameters = EOSParameters

    def output_names(self, parameters: EOSParameters) -> Sequence[str]:
        return [
            "equilibrium_volume",
            "bulk_modulus",
            "bulk_modulus_derivative",
            "eos_rms_error",
            "eos_volume",
            "eos_energy",
        ]

    def outputs(self, parameters: EOSParameters) -> list[PropertyInfo]:
        infos = super().outputs(parameters)
        curves = {"eos_volume", "eos_energy"}
        return [dataclasses.replace(i, shape=(parameters.points,)) if i.name in curves else i for i in infos]

    def evaluations(self, parameters: EOSParameters) -> float:
        return float(parameters.points * (8 if parameters.relax_positions else 1))

    def run(
        self, atoms: Atoms, calc: BaseCalculator, parameters: EOSParameters, deadline: Deadline
    ) -> TaskResult:
        from matcompute.dataset import Status
        from matcompute.node.tasks.birch_murnaghan import FitError, fit_birch_murnaghan
        from matcompute.node.tasks.observables import Exploded

        centre = 1.0
        strains = np.linspace(-parameters.strain, parameters.strain, parameters.points)
        values: dict[str, float | np.ndarray] = {}
        message = ""
        for _ in range(parameters.recentre + 1):
            try:
                volumes, energies, unconverged = _scan(
                    atoms, calc, centre * (1 + strains), parameters, deadline
                )
            except Exploded as error:
                return TaskResult(Status.EXPLODED, values, {}, atoms, str(error))
            values = {"eos_volume": volumes, "eos_energy": energies}
            try:
                fit = fit_birch_murnaghan(volumes, energies)
            except FitError as error:
                message = str(error)
                # Move onto the lowest energy seen; when that is the centre already, another scan would tell nothing.
                lowest = int(np.argmin(energies))
                if lowest not in (0, len(energies) - 1):
                    break
                centre *= 1 + strains[lowest]
                continue
            values |= {
                "equilibrium_volume": fit.volume,
                "bulk_modulus": fit.bulk_modulus,
                "bulk_modulus_derivative": fit.bulk_modulus_derivative,
                "eos_rms_error": fit.rms_error,
            }
            if fit.rms_error > parameters.max_rms_error:
                message = f"rms error of the fit is {fit.rms_error:.3g} eV/atom (limit {parameters.max_rms_error:g})"
                break
            if unconverged:
                message = (
                    f"positions not converged to {parameters.fmax:g} eV/Å at {unconverged} of the volumes"
                )
                return TaskResult(Status.NOT_CONVERGED, values, {}, atoms, message)
            return TaskResult(Status.OK, values, {}, atoms)
        return TaskResult(Status.FIT_FAILED, values, {}, atoms, message)


def _scan(
    atoms: Atoms, calc: BaseCalculator, ratios: np.ndarray, parameters: EOSParameters, deadline: Deadline
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return volumes [Å^3/atom], energies [eV/atom] and how many volumes did not converge."""
    from matcompute.node.tasks.observables import Guard

    energies = np.empty(len(ratios))
    unconverged = 0
    n = len(atoms)
    volumes = ratios * (atoms.get_volume() / n)
    for i, ratio in enumerate(ratios):
        deadline.check()
        strained = atoms.copy()
        strained.set_constraint()
        strained.set_cell(atoms.cell.array * ratio ** (1 / 3), scale_atoms=True)
        strained.calc = calc
        Guard(strained, max_force=1000.0).check(strained, f"at {100 * (ratio - 1):+.1f} % volume")
        if parameters.relax_positions:
            from ase.optimize import BFGS

            converged = False
            for converged in BFGS(strained, logfile=None).irun(fmax=parameters.fmax, steps=parameters.steps):
                if not converged:
                    deadline.check()
            unconverged += not converged
        energies[i] = strained.get_potential_energy() / n
    return volumes, energies, unconverged


#: The entry point ``eos``.
EquationOfState = EOSTask()

"""Relaxation of positions, or of positions and cell, to a force threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from matcompute.node.adapters import Deadline, Parameters, TaskAdapter, TaskResult

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

__all__ = ["Relax", "RelaxParameters", "RelaxTask"]


class RelaxParameters(Parameters):
    """Parameters of the task ``relax``."""

    cell: bool = Field(True, description="Relax the cell together with the positions.")
    fmax: float = Field(
        0.05,
        gt=0,
        description="Converged when no force component vector exceeds it (with cell: nor the virial per atom).",
        json_schema_extra={"unit": "eV/angstrom"},
    )
    steps: int = Field(500, ge=1, description="At most so many optimiser steps; then not_converged.")
    optimizer: Literal["FIRE", "FIRE2", "LBFGS", "BFGS", "BFGSLineSearch", "LBFGSLineSearch"] = Field(
        "LBFGS",
        description="Optimiser of ase.optimize; LBFGS takes a third of FIRE's steps, FIRE copes with worse starts.",
    )
    keep_symmetry: bool = Field(False, description="Keep the space group of the input (needs spglib).")
    symprec: float = Field(
        0.01,
        gt=0,
        description="Tolerance with which the space group is found.",
        json_schema_extra={"unit": "angstrom"},
    )
    pressure: float = Field(
        0.0, description="External hydrostatic pressure (with cell).", json_schema_extra={"unit": "GPa"}
    )
    max_volume_ratio: float = Field(
        2.0,
        gt=1,
        description="Exploded when the volume leaves [V0/ratio, V0·ratio].",
        json_schema_extra={"unit": "1"},
    )
    max_force_limit: float = Field(
        1000.0,
        gt=0,
        description="Exploded when the force on any atom exceeds it.",
        json_schema_extra={"unit": "eV/angstrom"},
    )
    magmoms: bool = Field(
        False, description="Also record the site magnetic moments, of calculators that have them."
    )


class RelaxTask(TaskAdapter):
    """ASE optimiser on the atoms, or on ASE's Fréchet cell filter of them."""

    name = "relax"
    title = "relax positions, or positions and cell"
    Parameters = RelaxParameters

    def packages(self, parameters: RelaxParameters) -> Sequence[str]:
        return ("spglib",) if parameters.keep_symmetry else ()

    def output_names(self, parameters: RelaxParameters) -> Sequence[str]:
        from matcompute.node.tasks.observables import MECHANICAL

        extra = ["magmom"] if parameters.magmoms else []
        return [*MECHANICAL, "initial_volume_per_atom", "n_steps", *extra]

    def evaluations(self, parameters: RelaxParameters) -> float:
        # Seen with LBFGS over decorated prototypes: 2 to 25 steps with the cell; FIRE takes two to three times as many.
        steps = (15 if parameters.cell else 10) * (3 if parameters.optimizer in {"FIRE", "FIRE2"} else 1)
        return float(min(parameters.steps, steps)) + 1.0

    def run(
        self, atoms: Atoms, calc: BaseCalculator, parameters: RelaxParameters, deadline: Deadline
    ) -> TaskResult:
        from matcompute.dataset import Status
        from matcompute.node.tasks.observables import Exploded, Guard, observe

        atoms.calc = calc
        initial = atoms.get_volume() / len(atoms)
        guard = Guard(
            atoms, max_force=parameters.max_force_limit, max_volume_ratio=parameters.max_volume_ratio
        )
        steps = -1
        converged = False
        deadline.check()
        try:
            guard.check(atoms)
            for converged in _optimizer(atoms, parameters).irun(fmax=parameters.fmax, steps=parameters.steps):
                steps += 1
                guard.check(atoms, f"after {steps} steps", fresh=True)
                if not converged:
                    deadline.check()
        except Exploded as error:
            atoms.set_constraint()
            return TaskResult(Status.EXPLODED, {"n_steps": max(steps, 0)}, {}, atoms, str(error))
        # Values are those of the free structure: symmetry is kept by the forces themselves at convergence.
        atoms.set_constraint()
        values, site_values = observe(atoms, magmoms=parameters.magmoms)
        values |= {"initial_volume_per_atom": initial, "n_steps": steps}
        if converged:
            return TaskResult(Status.OK, values, site_values, atoms)
        message = (
            f"not converged to {parameters.fmax:g} eV/Å in {steps} steps of {parameters.optimizer} "
            f"(largest force {values['max_force']:.3g} eV/Å)"
        )
        return TaskResult(Status.NOT_CONVERGED, values, site_values, atoms, message)


def _optimizer(atoms: Atoms, parameters: RelaxParameters) -> Any:
    import ase.optimize
    from ase.units import GPa

    from matcompute.node.tasks.cell_filter import CachedCellFilter

    target: Any = atoms
    if parameters.keep_symmetry:
        from ase.constraints import FixSymmetry

        atoms.set_constraint(FixSymmetry(atoms, symprec=parameters.symprec))
    if parameters.cell:
        target = CachedCellFilter(atoms, scalar_pressure=parameters.pressure * GPa)
    return getattr(ase.optimize, parameters.optimizer)(target, logfile=None)


#: The entry point ``relax``.
Relax = RelaxTask()

"""Energy, forces and stress of a structure as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from matcompute.node.adapters import Deadline, Parameters, TaskAdapter, TaskResult

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

__all__ = ["Static", "StaticParameters", "StaticTask"]


class StaticParameters(Parameters):
    """Parameters of the task ``static``."""

    magmoms: bool = Field(
        False, description="Also record the site magnetic moments, of calculators that have them."
    )
    max_force_limit: float = Field(
        1000.0,
        gt=0,
        description="A larger force on any atom means overlapping atoms or a broken model: status exploded.",
        json_schema_extra={"unit": "eV/angstrom"},
    )


class StaticTask(TaskAdapter):
    """One evaluation."""

    name = "static"
    title = "energy, forces and stress of the structure as it is"
    Parameters = StaticParameters

    def output_names(self, parameters: StaticParameters) -> Sequence[str]:
        from matcompute.node.tasks.observables import MECHANICAL

        return [*MECHANICAL, *(["magmom"] if parameters.magmoms else [])]

    def evaluations(self, parameters: StaticParameters) -> float:
        return 1.0

    def run(
        self, atoms: Atoms, calc: BaseCalculator, parameters: StaticParameters, deadline: Deadline
    ) -> TaskResult:
        from matcompute.dataset import Status
        from matcompute.node.tasks.observables import Exploded, Guard, observe

        atoms.calc = calc
        deadline.check()
        try:
            Guard(atoms, max_force=parameters.max_force_limit).check(atoms)
        except Exploded as error:
            return TaskResult(Status.EXPLODED, atoms=atoms, message=str(error))
        values, site_values = observe(atoms, magmoms=parameters.magmoms)
        return TaskResult(Status.OK, values, site_values, atoms)


#: The entry point ``static``.
Static = StaticTask()

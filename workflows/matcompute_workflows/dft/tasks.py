"""Tasks of per-structure calculators: their parameters and the columns that they give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from matcompute.dataset import PropertyInfo

__all__ = ["BandsTask", "EosTask", "RelaxTask", "StaticTask", "StructureTask"]

_MECHANICAL = ("energy", "energy_per_atom", "forces", "stress", "max_force", "volume_per_atom")
_MAGNETIC = ("magmom", "total_magnetization")


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StructureTask(ABC):
    """What is computed for a structure by a process of its own.

    It answers the questions of :class:`matcompute.node.adapters.TaskAdapter` that a campaign asks before anything runs.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    Parameters: ClassVar[type[BaseModel]]
    needs_calculator: ClassVar[bool] = True
    #: Only calculators that work structure by structure have it.
    per_structure: ClassVar[bool] = True

    @abstractmethod
    def output_names(self, parameters: Any) -> Sequence[str]:
        """Return the names of the columns."""

    def outputs(self, parameters: Any) -> list[PropertyInfo]:
        """Return the description of each column, ``cpu_time`` included."""
        from matcompute.dataset import PROPERTIES

        return [PROPERTIES[name] for name in (*self.output_names(parameters), "cpu_time")]

    def evaluations(self, parameters: Any) -> float:
        """Return the expected number of energies."""
        return 1.0


class StaticParameters(_Parameters):
    """Parameters of ``static``."""

    magmoms: bool = Field(
        False,
        description="Also record the moments of the sites and of the cell, where the code is spin-polarised.",
    )


class StaticTask(StructureTask):
    """One self-consistent calculation."""

    name = "static"
    title = "energy, forces and stress of the structure as it is"
    Parameters = StaticParameters

    def output_names(self, parameters: StaticParameters) -> Sequence[str]:
        return (*_MECHANICAL, *(_MAGNETIC if parameters.magmoms else ()))


class RelaxParameters(_Parameters):
    """Parameters of ``relax``."""

    cell: bool = Field(True, description="Relax the cell together with the positions.")
    fmax: float | None = Field(
        None,
        gt=0,
        description="Converged when no force exceeds it; by default the protocol's.",
        json_schema_extra={"unit": "eV/angstrom"},
    )
    pressure: float = Field(
        0.0, description="External hydrostatic pressure (with cell).", json_schema_extra={"unit": "GPa"}
    )
    steps: int = Field(60, ge=1, description="At most so many steps of the geometry; then not_converged.")
    magmoms: bool = Field(
        False,
        description="Also record the moments of the sites and of the cell, where the code is spin-polarised.",
    )


class RelaxTask(StructureTask):
    """Geometry optimisation by the code itself."""

    name = "relax"
    title = "relax positions, or positions and cell"
    Parameters = RelaxParameters

    def output_names(self, parameters: RelaxParameters) -> Sequence[str]:
        extra = _MAGNETIC if parameters.magmoms else ()
        return (*_MECHANICAL, "initial_volume_per_atom", "n_steps", *extra)

    def evaluations(self, parameters: RelaxParameters) -> float:
        # From a structure that a potential has relaxed: 3 to 8 steps with the cell, 2 to 6 without.
        return float(min(parameters.steps, 7 if parameters.cell else 5)) + 1.0


class EosParameters(_Parameters):
    """Parameters of ``eos``."""

    strain: float = Field(
        0.06,
        gt=0,
        le=0.3,
        description="Volumes (1 ± strain)·V around the input's; 0.06 with 7 points is the Delta-test protocol.",
        json_schema_extra={"unit": "1"},
    )
    points: int = Field(7, ge=5, le=41, description="Number of volumes.")
    recentre: int = Field(
        2,
        ge=0,
        le=10,
        description="How often the window may be moved onto a minimum that lies outside of it.",
    )
    relax_positions: bool = Field(
        False, description="Relax the positions at each volume, the cell shape kept."
    )
    max_rms_error: float = Field(
        0.01,
        gt=0,
        description="A fit with a larger root-mean-square error fails.",
        json_schema_extra={"unit": "eV/atom"},
    )


class EosTask(StructureTask):
    """Energies at a few volumes and a Birch–Murnaghan fit."""

    name = "eos"
    title = "Birch–Murnaghan equation of state: V0, B0, B0′, fit error"
    Parameters = EosParameters

    def output_names(self, parameters: EosParameters) -> Sequence[str]:
        return (
            "equilibrium_volume",
            "bulk_modulus",
            "bulk_modulus_derivative",
            "eos_rms_error",
            "eos_volume",
            "eos_energy",
        )

    def outputs(self, parameters: EosParameters) -> list[PropertyInfo]:
        curves = {"eos_volume", "eos_energy"}
        return [
            replace(info, shape=(parameters.points,)) if info.name in curves else info
            for info in super().outputs(parameters)
        ]

    def evaluations(self, parameters: EosParameters) -> float:
        return float(parameters.points * (5 if parameters.relax_positions else 1))


class BandsParameters(_Parameters):
    """Parameters of ``bands``."""

    dos: bool = Field(True, description="Also the density of states, on a denser mesh.")
    window: tuple[float, float] = Field(
        (-10.0, 10.0), description="Energies of the density of states around the Fermi level, in eV."
    )
    points: int = Field(401, ge=11, le=20001, description="Energies in that window.")


class BandsTask(StructureTask):
    """Band structure along the standard path, and density of states."""

    name = "bands"
    title = "band structure and density of states: gap, Fermi level, DOS"
    Parameters = BandsParameters

    def output_names(self, parameters: BandsParameters) -> Sequence[str]:
        return (
            "band_gap",
            "gap_is_direct",
            "fermi_energy",
            *(("dos_energy", "dos") if parameters.dos else ()),
        )

    def outputs(self, parameters: BandsParameters) -> list[PropertyInfo]:
        curves = {"dos_energy", "dos"}
        return [
            replace(info, shape=(parameters.points,)) if info.name in curves else info
            for info in super().outputs(parameters)
        ]

    def evaluations(self, parameters: BandsParameters) -> float:
        return 6.0 if parameters.dos else 3.0


#: The entry point ``bands``; the other tasks have one of the node program.
Bands = BandsTask()

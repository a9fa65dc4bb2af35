"""The registry of properties: canonical name, unit, shape and definition of every result column."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from matcompute.dataset.errors import DatasetError
from matcompute.errors import did_you_mean

__all__ = ["PROPERTIES", "VOIGT", "PropertyInfo", "lookup"]

_NAME = re.compile(r"([a-z0-9][a-z0-9_-]*__)?[a-z][a-z0-9_]*")

#: Order of the six stress components.
VOIGT: tuple[str, ...] = ("xx", "yy", "zz", "yz", "xz", "xy")


@dataclass(frozen=True)
class PropertyInfo:
    """One column of ``/results`` (per entry) or of ``/sites`` (per site).

    Parameters
    ----------
    name
        Column name: lower-case letters, digits and underscores.
    units
        Unit, ``"1"`` for a pure number.
    long_name
        A few words for axes and tables.
    dtype
        ``f8``, ``f4``, ``i4``, ``i8`` or ``u1``.
    shape
        Shape of one value; -1 for a length that the first values written fix.
    per
        ``"entry"`` or ``"site"``.
    definition
        How the number is defined (stored as ``property_definition``).
    dims
        Dimension names of ``shape``; made from the name when empty.
    """

    name: str
    units: str
    long_name: str = ""
    dtype: str = "f8"
    shape: tuple[int, ...] = ()
    per: Literal["entry", "site"] = "entry"
    definition: str = ""
    dims: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise DatasetError(
                f"property name '{self.name}' must be lower-case letters, digits and underscores",
                hint="a stage in front of it ends with two underscores: eos-2__bulk_modulus",
            )
        if self.dtype not in {"f8", "f4", "i4", "i8", "u1"}:
            raise DatasetError(
                f"property '{self.name}': dtype '{self.dtype}' is not one of f8, f4, i4, i8, u1"
            )
        if not self.units:
            raise DatasetError(f"property '{self.name}' has no units; write '1' for a pure number")

    @property
    def fill(self) -> float | int:
        """What stands where there is no value: NaN, or -1 for integers (255 for u1)."""
        return float("nan") if self.dtype[0] == "f" else (255 if self.dtype == "u1" else -1)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Dimension names of one value."""
        return self.dims or tuple(f"{self.name}_dim{k}" for k in range(len(self.shape)))

    @property
    def components(self) -> list[str]:
        """Names of the components of a one-dimensional value (``xx`` … for stress), for tables."""
        if self.dims == ("voigt",):
            return list(VOIGT)
        if self.dims == ("xyz",):
            return ["x", "y", "z"]
        size = 1
        for n in self.shape:
            size *= n
        return [str(k) for k in range(size)]


def _p(name: str, units: str, long_name: str, definition: str, **more: object) -> PropertyInfo:
    return PropertyInfo(name, units, long_name, definition=definition, **more)  # type: ignore[arg-type]


_ATOM_VOLUME = "angstrom^3/atom"

#: Every property that matcompute itself writes, by name.
PROPERTIES: dict[str, PropertyInfo] = {
    info.name: info
    for info in (
        _p("energy", "eV", "total energy", "Potential energy of the whole cell as given by the calculator."),
        _p("energy_per_atom", "eV/atom", "total energy per atom", "energy / number of sites."),
        _p(
            "forces",
            "eV/angstrom",
            "forces",
            "Negative gradient of the energy with respect to the position of each site.",
            shape=(3,),
            per="site",
            dims=("xyz",),
        ),
        _p(
            "stress",
            "GPa",
            "stress",
            "Strain derivative of the energy per volume, Voigt order xx yy zz yz xz xy, tension positive (as in ASE).",
            shape=(6,),
            dims=("voigt",),
        ),
        _p("magmom", "mu_B", "magnetic moment", "Magnetic moment of each site.", per="site"),
        _p(
            "total_magnetization",
            "mu_B",
            "total magnetization",
            "Difference of the numbers of electrons of the two spins in the cell.",
        ),
        _p("max_force", "eV/angstrom", "largest force", "Largest norm of the force on a site."),
        _p(
            "volume_per_atom",
            _ATOM_VOLUME,
            "volume per atom",
            "Cell volume of the final structure / number of sites.",
        ),
        _p(
            "initial_volume_per_atom",
            _ATOM_VOLUME,
            "initial volume per atom",
            "Cell volume of the structure before relaxation / number of sites.",
        ),
        _p("n_steps", "1", "optimizer steps", "Steps taken by the optimizer.", dtype="i4"),
        _p(
            "equilibrium_volume",
            _ATOM_VOLUME,
            "equilibrium volume",
            "V0 of the Birch-Murnaghan fit per atom.",
        ),
        _p("bulk_modulus", "GPa", "bulk modulus", "B0 of the Birch-Murnaghan fit at V0."),
        _p(
            "bulk_modulus_derivative",
            "1",
            "pressure derivative of the bulk modulus",
            "B0' = dB/dP of the fit at V0.",
        ),
        _p(
            "eos_rms_error",
            "eV/atom",
            "fit error",
            "Root mean square of the fit's residuals in energy per atom.",
        ),
        _p(
            "eos_volume",
            _ATOM_VOLUME,
            "volumes of the equation of state",
            "Volumes per atom at which energies were computed.",
            shape=(-1,),
            dims=("eos_point",),
        ),
        _p(
            "eos_energy",
            "eV/atom",
            "energies of the equation of state",
            "Energies per atom at eos_volume.",
            shape=(-1,),
            dims=("eos_point",),
        ),
        _p(
            "selection_rank",
            "1",
            "rank in the selection",
            "Place in the order in which entries were chosen, from 1.",
            dtype="i4",
        ),
        _p(
            "selection_distance",
            "1",
            "distance to the selection",
            "Distance of the descriptor to that of the nearest selected entry, 0 for a selected one.",
        ),
        _p(
            "novelty",
            "1",
            "novelty",
            "Distance of the descriptor to those of the nearest reference entries.",
        ),
        _p("pareto_rank", "1", "Pareto front", "Number of the Pareto front, from 1.", dtype="i4"),
        _p(
            "duplicate_group",
            "1",
            "group of duplicates",
            "Number of the group of structures that are the same within tolerances, from 1.",
            dtype="i4",
        ),
        _p(
            "band_gap",
            "eV",
            "band gap",
            "Lowest empty less highest occupied eigenvalue over the mesh and the path of k-points; 0 for a metal.",
        ),
        _p(
            "gap_is_direct",
            "1",
            "direct gap",
            "1 if both edges of the gap are at the same k-point, else 0; -1 without a gap.",
            dtype="i4",
        ),
        _p(
            "fermi_energy",
            "eV",
            "Fermi energy",
            "Fermi level on the code's own zero of energy: of the densest mesh; where there is a gap, its middle.",
        ),
        _p(
            "dos_energy",
            "eV",
            "energies of the density of states",
            "Energies at which the density of states is given, less the Fermi energy.",
            shape=(-1,),
            dims=("dos_point",),
        ),
        _p(
            "dos",
            "1/eV",
            "density of states",
            "States of both spins in the cell per energy at dos_energy.",
            shape=(-1,),
            dims=("dos_point",),
        ),
        _p("cpu_time", "s", "processor time", "Processor time spent on this entry."),
        _p(
            "e_above_hull",
            "eV/atom",
            "energy above hull",
            "Distance in energy per atom to the convex hull of the campaign's entries and references.",
        ),
        _p(
            "formation_energy",
            "eV/atom",
            "formation energy",
            "Energy per atom less the composition average of the elemental references.",
        ),
        _p(
            "space_group_number",
            "1",
            "space group number",
            "International number of the final structure.",
            dtype="i4",
        ),
        _p("density", "g/cm^3", "density", "Mass of the sites / cell volume of the final structure."),
    )
}


def lookup(name: str, declared: dict[str, PropertyInfo] | None = None) -> PropertyInfo:
    """Return what is known about a property, among the declared ones and the registry.

    A name ``<stage>__<property>`` is the property as an earlier stage gave it.

    Raises
    ------
    DatasetError
        If the name is unknown; the nearest spelling is given.
    """
    declared = declared or {}
    known = {**PROPERTIES, **declared}
    if name in known:
        return known[name]
    stage, _, base = name.rpartition("__")
    if stage and base in known:
        info = known[base]
        # A stage may have its own number of points, so a free length gets a dimension of its own.
        dims = tuple(f"{stage}__{d}" if n == -1 else d for d, n in zip(info.dimensions, info.shape))
        return replace(info, name=name, long_name=f"{info.long_name} ({stage})", dims=dims)
    raise DatasetError(
        f"unknown property '{name}'{did_you_mean(name, known)}",
        hint="declare a new one first: writer.declare(PropertyInfo(name, units, long_name))",
    )

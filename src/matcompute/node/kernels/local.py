"""Descriptors of sites, averaged over the structure: symmetry functions, Steinhardt's parameters, local MBTR."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, field_validator

from matcompute.node.descriptors import (
    Average,
    DescriptorParameters,
    KernelAdapter,
    Species,
    neighbour_count,
    quantity,
)
from matcompute.node.kernels.many_body import ManyBodyParameters

__all__ = ["Acsf", "LocalMbtr", "Steinhardt"]


class AcsfParameters(DescriptorParameters):
    """Parameters of ``acsf``."""

    species: Species = "auto"
    r_cut: quantity("angstrom") = Field(gt=0, le=100, description="Cutoff.")  # type: ignore[valid-type]
    g2: list[tuple[float, float]] | None = Field(None, description="Pairs [eta in 1/Å², r_s in Å].")
    g3: list[float] | None = Field(None, description="kappa in 1/Å.")
    g4: list[tuple[float, float, float]] | None = Field(None, description="Triplets [eta, zeta, lambda].")
    g5: list[tuple[float, float, float]] | None = Field(None, description="Triplets [eta, zeta, lambda].")
    periodic: bool = Field(True, description="False: lattices are ignored.")
    average: Average = "outer"

    def count(self, s: int) -> int:
        """Return the number of columns for ``s`` elements."""
        pairs = len(self.g4 or ()) + len(self.g5 or ())
        return (1 + len(self.g2 or ()) + len(self.g3 or ())) * s + pairs * (s * (s + 1) // 2)


class AcsfAdapter(KernelAdapter):
    """Atom-centred symmetry functions."""

    name = "acsf"
    title = "atom-centred symmetry functions G1 to G5"
    definition = "dscribe 2.1 ACSF"
    Parameters = AcsfParameters
    per_site = True
    own = ("average",)

    def width(self, parameters: AcsfParameters) -> int:
        return parameters.count(len(parameters.species))

    def site_cost(self, parameters: AcsfParameters, n_sites: np.ndarray) -> Any:
        p = neighbour_count(parameters.r_cut)
        angular = len(parameters.g4 or ()) + len(parameters.g5 or ())
        radial = 1 + len(parameters.g2 or ()) + len(parameters.g3 or ())
        return 1e-8 * p * radial + 1.2e-9 * p * p * angular


class SteinhardtParameters(DescriptorParameters):
    """Parameters of ``steinhardt``."""

    r_cut: quantity("angstrom") = Field(gt=0, le=100, description="Cutoff of the neighbours.")  # type: ignore[valid-type]
    l: list[int] = Field(default_factory=lambda: [4, 6], min_length=1, description="Degrees, 0 to 30.")
    w: bool = Field(True, description="Add the w_l.")
    normalize_w: bool = Field(True, description="The w_l of the normalised q_lm.")
    local_average: bool = Field(False, description="Lechner and Dellago's averages over the neighbours.")
    average: Average = "outer"

    @field_validator("l", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, int) else value

    @field_validator("l")
    @classmethod
    def _in_range(cls, value: list[int]) -> list[int]:
        if any(not 0 <= l <= 30 for l in value):
            raise ValueError(f"degrees are from 0 to 30, found {value}")
        return value


class SteinhardtAdapter(KernelAdapter):
    """Bond-orientational order."""

    name = "steinhardt"
    title = "Steinhardt order parameters q_l and w_l"
    definition = "P. J. Steinhardt, D. R. Nelson, M. Ronchetti, Phys. Rev. B 28, 784 (1983)"
    Parameters = SteinhardtParameters
    per_site = True
    own = ("average", "local_average")

    def arguments(self, parameters: SteinhardtParameters) -> dict[str, Any]:
        # The kernel's own `average` is that over neighbours.
        return super().arguments(parameters) | {"average": parameters.local_average}

    def width(self, parameters: SteinhardtParameters) -> int:
        return len(parameters.l) * (2 if parameters.w else 1)

    def site_cost(self, parameters: SteinhardtParameters, n_sites: np.ndarray) -> Any:
        return 5e-8 * neighbour_count(parameters.r_cut) * len(parameters.l)


class LocalMbtrParameters(ManyBodyParameters):
    """Parameters of ``local_mbtr``."""

    average: Average = "outer"


class LocalMbtrAdapter(KernelAdapter):
    """Many-body tensor representation of sites."""

    name = "local_mbtr"
    title = "local many-body tensor representation (k = 2 or 3)"
    definition = "dscribe 2.1 LMBTR"
    Parameters = LocalMbtrParameters
    per_site = True
    own = ("average",)

    def width(self, parameters: LocalMbtrParameters) -> int:
        s = len(parameters.species)
        blocks = s + 1 if parameters.degree == 2 else (s + 1) * (s + 2) // 2 + s * (s + 1)
        return blocks * parameters.grid.n

    def site_cost(self, parameters: LocalMbtrParameters, n_sites: np.ndarray) -> Any:
        return 2e-5 + 3 * parameters.site_seconds()


#: Entry points.
Acsf, Steinhardt, LocalMbtr = AcsfAdapter(), SteinhardtAdapter(), LocalMbtrAdapter()

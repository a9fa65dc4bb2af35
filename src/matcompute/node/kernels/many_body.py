"""Many-body tensor representation and Valle–Oganov fingerprints."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from matcompute.node.adapters import Parameters
from matcompute.node.descriptors import (
    DescriptorParameters,
    KernelAdapter,
    Species,
    neighbour_count,
    quantity,
)

__all__ = ["ManyBodyParameters", "Mbtr", "ValleOganov"]

#: Degree k of each geometry.
_DEGREE = {"atomic_number": 1, "distance": 2, "inverse_distance": 2, "angle": 3, "cosine": 3}


class Grid(Parameters):
    """Bins, in the unit of the geometry: Å, 1/Å, degrees, or none."""

    min: float
    max: float
    sigma: float = Field(gt=0, description="Width of the Gaussians.")
    n: int = Field(ge=1, description="Bins.")

    @model_validator(mode="after")
    def _rises(self) -> Grid:
        if not self.min < self.max:
            raise ValueError(f"min must be below max, found {self.min:g} and {self.max:g}")
        return self


class Weighting(Parameters):
    """How far terms count."""

    function: Literal["unity", "exp", "inverse_square", "smooth_cutoff"]
    r_cut: quantity("angstrom") | None = Field(None, gt=0)  # type: ignore[valid-type]
    scale: float | None = Field(None, gt=0, description="Of exp, in 1/Å, in place of r_cut.")
    threshold: float | None = Field(None, gt=0, lt=1, description="Of exp: smaller terms are left out.")
    sharpness: float | None = Field(None, gt=0, description="Of smooth_cutoff.")


class ManyBodyParameters(DescriptorParameters):
    """Parameters that ``mbtr`` and ``local_mbtr`` share."""

    species: Species = "auto"
    geometry: Literal["atomic_number", "distance", "inverse_distance", "angle", "cosine"] = Field(
        "inverse_distance", description="What is histogrammed: k = 1, 2 or 3."
    )
    grid: Grid
    weighting: Weighting | None = Field(
        None, description="Crystals need one that decays: exp, inverse_square (k = 2), smooth_cutoff (k = 3)."
    )
    normalization: Literal["none", "l2", "n_atoms", "valle_oganov"] = "none"
    normalize_gaussians: bool = Field(True, description="Gaussians of area 1 (or of height 1).")
    periodic: bool = Field(True, description="False: lattices are ignored.")

    @property
    def degree(self) -> int:
        """Bodies of a term."""
        return _DEGREE[self.geometry]

    @model_validator(mode="after")
    def _decays(self) -> ManyBodyParameters:
        weak = self.weighting is None or self.weighting.function == "unity"
        if weak and self.periodic and self.degree > 1:
            raise ValueError(
                "a crystal has no end: give a weighting that decays, such as "
                "{function: exp, r_cut: 8 angstrom, threshold: 0.001}, or `periodic: false`"
            )
        return self

    def keywords(self) -> dict[str, Any]:
        found = super().keywords()
        if "weighting" in found:
            found["weighting"] = {k: v for k, v in found["weighting"].items() if v is not None}
        return found

    def site_seconds(self) -> float:
        """Return the estimated core-seconds of a site."""
        if self.degree == 1:
            return 1e-6
        r_cut = 8.0 if self.weighting is None or self.weighting.r_cut is None else self.weighting.r_cut
        if self.degree == 2:
            return 3e-8 * neighbour_count(r_cut)
        # The perimeter of a triangle is at least twice its longest side.
        return 1.4e-7 * neighbour_count(r_cut / 2) ** 2


class MbtrAdapter(KernelAdapter):
    """Many-body tensor representation."""

    name = "mbtr"
    title = "many-body tensor representation (k = 1, 2 or 3)"
    definition = "dscribe 2.1 MBTR"
    Parameters = ManyBodyParameters

    def width(self, parameters: ManyBodyParameters) -> int:
        s = len(parameters.species)
        blocks = {1: s, 2: s * (s + 1) // 2, 3: s * s * (s + 1) // 2}[parameters.degree]
        return blocks * parameters.grid.n

    def site_cost(self, parameters: ManyBodyParameters, n_sites: np.ndarray) -> Any:
        return parameters.site_seconds()


class ValleOganovParameters(DescriptorParameters):
    """Parameters of ``valle_oganov``."""

    species: Species = "auto"
    function: Literal["distance", "angle"] = "distance"
    n: int = Field(100, ge=1, description="Bins.")
    sigma: float = Field(0.05, gt=0, description="Width of the Gaussians, in Å or degrees.")
    r_cut: quantity("angstrom") = Field(8.0, gt=0, le=100, description="Cutoff.")  # type: ignore[valid-type]


class ValleOganovAdapter(KernelAdapter):
    """Valle and Oganov's fingerprint of a crystal."""

    name = "valle_oganov"
    title = "Valle–Oganov fingerprint"
    definition = "dscribe 2.1 ValleOganov"
    Parameters = ValleOganovParameters

    def width(self, parameters: ValleOganovParameters) -> int:
        s = len(parameters.species)
        return parameters.n * (
            s * (s + 1) // 2 if parameters.function == "distance" else s * s * (s + 1) // 2
        )

    def site_cost(self, parameters: ValleOganovParameters, n_sites: np.ndarray) -> Any:
        p = neighbour_count(parameters.r_cut)
        return 4e-8 * p if parameters.function == "distance" else 2e-8 * p * p


#: Entry points.
Mbtr, ValleOganov = MbtrAdapter(), ValleOganovAdapter()

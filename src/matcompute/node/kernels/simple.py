"""Descriptors of composition, electron shells and packing."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from matcompute.node.descriptors import DescriptorParameters, KernelAdapter

__all__ = ["Magpie", "OrbitalField", "Packing"]


class MagpieParameters(DescriptorParameters):
    """Parameters of ``magpie``."""

    impute_nan: bool = Field(
        True, description="Put the mean over the elements where a property is not known of one."
    )


class MagpieAdapter(KernelAdapter):
    """Statistics of elemental properties."""

    name = "magpie"
    title = "Magpie's statistics of 22 elemental properties over the composition"
    definition = "matminer 0.10 ElementProperty magpie"
    Parameters = MagpieParameters
    threaded = False

    def width(self, parameters: MagpieParameters) -> int:
        return 132

    def site_cost(self, parameters: MagpieParameters, n_sites: np.ndarray) -> Any:
        return 1e-7


class OrbitalFieldParameters(DescriptorParameters):
    """Parameters of ``orbital_field_matrix``."""

    period_tag: bool = Field(False, description="Add the seven periods to the 32 shells.")


class OrbitalFieldAdapter(KernelAdapter):
    """Mean orbital field matrix."""

    name = "orbital_field_matrix"
    title = "mean orbital field matrix"
    definition = "matminer 0.10 OrbitalFieldMatrix, all sites"
    units = "1/bohr"
    Parameters = OrbitalFieldParameters
    threaded = False

    def width(self, parameters: OrbitalFieldParameters) -> int:
        return 1521 if parameters.period_tag else 1024

    def site_cost(self, parameters: OrbitalFieldParameters, n_sites: np.ndarray) -> Any:
        return 1e-4


class PackingAdapter(KernelAdapter):
    """Density and packing."""

    name = "packing"
    title = "density, volume per atom, packing fraction and packing efficiency"
    definition = "matminer 0.10 DensityFeatures and MaximumPackingEfficiency"
    Parameters = DescriptorParameters
    threaded = False

    def width(self, parameters: DescriptorParameters) -> int:
        return 4

    def site_cost(self, parameters: DescriptorParameters, n_sites: np.ndarray) -> Any:
        return 1e-5


#: Entry points.
Magpie, OrbitalField, Packing = MagpieAdapter(), OrbitalFieldAdapter(), PackingAdapter()

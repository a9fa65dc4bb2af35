"""Distribution functions of distances and angles, and powder diffraction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from matcompute.errors import did_you_mean
from matcompute.node.descriptors import (
    DescriptorParameters,
    KernelAdapter,
    Species,
    neighbour_count,
    quantity,
)

if TYPE_CHECKING:
    from matcompute_kernels import Batch

__all__ = ["Adf", "Prdf", "Rdf", "Xrd"]


def _bin_count(r_cut: float, bin_size: float) -> int:
    """Return the number of bins up to a cutoff, as the kernels make them."""
    return len(np.arange(0, r_cut + bin_size, bin_size)) - 1


class RdfParameters(DescriptorParameters):
    """Parameters of ``rdf``."""

    r_cut: quantity("angstrom") = Field(20.0, gt=0, le=100, description="Cutoff.")  # type: ignore[valid-type]
    bin_size: quantity("angstrom") = Field(0.1, gt=0, description="Width of the bins.")  # type: ignore[valid-type]
    per_atom: bool = Field(False, description="Divide by the number of atoms (not the peer's).")

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return _bin_count(self.r_cut, self.bin_size)


class RdfAdapter(KernelAdapter):
    """Radial distribution function."""

    name = "rdf"
    title = "radial distribution function"
    definition = "matminer 0.10 RadialDistributionFunction"
    Parameters = RdfParameters

    def width(self, parameters: RdfParameters) -> int:
        return parameters.n_bins

    def site_cost(self, parameters: RdfParameters, n_sites: np.ndarray) -> Any:
        return 1e-8 * neighbour_count(parameters.r_cut)


class PrdfParameters(DescriptorParameters):
    """Parameters of ``prdf``."""

    species: Species = "auto"
    r_cut: quantity("angstrom") = Field(20.0, gt=0, le=100, description="Cutoff.")  # type: ignore[valid-type]
    bin_size: quantity("angstrom") = Field(0.1, gt=0, description="Width of the bins.")  # type: ignore[valid-type]


class PrdfAdapter(KernelAdapter):
    """Partial radial distribution functions."""

    name = "prdf"
    title = "partial radial distribution functions"
    definition = "matminer 0.10 PartialRadialDistributionFunction"
    units = "1/angstrom^3"
    Parameters = PrdfParameters

    def width(self, parameters: PrdfParameters) -> int:
        s = len(parameters.species)
        return s * (s + 1) // 2 * _bin_count(parameters.r_cut, parameters.bin_size)

    def site_cost(self, parameters: PrdfParameters, n_sites: np.ndarray) -> Any:
        return 1.2e-8 * neighbour_count(parameters.r_cut)


class AdfParameters(DescriptorParameters):
    """Parameters of ``adf``."""

    r_cut: quantity("angstrom") = Field(gt=0, le=100, description="Cutoff of the neighbours.")  # type: ignore[valid-type]
    n_bins: int = Field(180, ge=1, description="Bins from 0° to 180°.")
    species: Species | None = Field(
        None, description="Elements of separate histograms; auto: all; left out: one histogram."
    )
    normalization: Literal["density", "per_atom", "none"] = "density"


class AdfAdapter(KernelAdapter):
    """Angular distribution function."""

    name = "adf"
    title = "angular distribution function"
    definition = "bond angle distribution, as OVITO's"
    Parameters = AdfParameters

    def width(self, parameters: AdfParameters) -> int:
        s = 1 if parameters.species is None else len(parameters.species)
        return parameters.n_bins * (s * s * (s + 1) // 2)

    def site_cost(self, parameters: AdfParameters, n_sites: np.ndarray) -> Any:
        return 5e-9 * neighbour_count(parameters.r_cut) ** 2


class XrdParameters(DescriptorParameters):
    """Parameters of ``xrd``."""

    wavelength: str | quantity("angstrom") = Field(  # type: ignore[valid-type]
        "CuKa", description="Radiation such as CuKa or MoKa1, or a wavelength."
    )
    two_theta_range: tuple[float, float] = Field((0.0, 90.0), description="Degrees.")
    bins: int = Field(451, ge=2, description="Points of the pattern.")
    fwhm: float = Field(0.5, gt=0, description="Width of a peak in degrees.")

    @field_validator("wavelength", mode="before")
    @classmethod
    def _radiation(cls, value: Any) -> Any:
        from matcompute_kernels.descriptors.xrd import WAVELENGTHS

        if isinstance(value, str) and value[:1].isalpha() and value not in WAVELENGTHS:
            raise ValueError(f"radiation '{value}' is not known{did_you_mean(value, WAVELENGTHS)}")
        if isinstance(value, str) and value not in WAVELENGTHS:
            from matcompute.errors import InputError
            from matcompute.units import parse_quantity

            try:
                value = parse_quantity(value, "angstrom")
            except InputError as error:
                raise ValueError(str(error)) from error
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"a wavelength is above 0, found {value}")
        return value

    @field_validator("two_theta_range")
    @classmethod
    def _rises(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] < value[1] <= 180:
            raise ValueError(f"must rise within 0 … 180 degrees, found {list(value)}")
        return value


class XrdAdapter(KernelAdapter):
    """Powder pattern on a grid of angles."""

    name = "xrd"
    title = "powder X-ray diffraction pattern, the strongest peak 100"
    definition = "pymatgen XRDCalculator, peaks as Gaussians"
    Parameters = XrdParameters
    threaded = False

    def call(self, batch: Batch, arguments: Mapping[str, Any]) -> np.ndarray:
        from matcompute_kernels.descriptors.xrd import xrd_profile

        return xrd_profile(batch, **arguments)

    def width(self, parameters: XrdParameters) -> int:
        return parameters.bins

    def site_cost(self, parameters: XrdParameters, n_sites: np.ndarray) -> Any:
        return 2e-5


#: Entry points.
Adf, Prdf, Rdf, Xrd = AdfAdapter(), PrdfAdapter(), RdfAdapter(), XrdAdapter()

"""SOAP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

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

if TYPE_CHECKING:
    from matcompute.dataset.descriptors import BlockSparse
    from matcompute_kernels import Batch

__all__ = ["Soap", "SoapAdapter", "SoapParameters"]


class Compression(Parameters):
    """Fewer columns by joining or leaving out pairs of elements."""

    mode: Literal["off", "mu1nu1", "mu2", "crossover", "groups"] = "off"
    groups: list[list[str]] | None = Field(None, description="Elements that share a channel.")
    pairs: list[tuple[str, str]] | None = Field(None, description="The only pairs of elements to write.")
    species_weighting: dict[str, float] | None = Field(
        None, description="Factor of each element's density; all of species."
    )


class Weighting(Parameters):
    """Radial weighting of the density, dscribe's."""

    function: Literal["poly", "pow", "exp"] | None = None
    r0: quantity("angstrom") | None = Field(None, gt=0)  # type: ignore[valid-type]
    c: float | None = None
    d: float | None = None
    m: float | None = None
    w0: float | None = Field(None, ge=0, description="Weight of the central atom.")


class Scaling(Parameters):
    """Radial scaling of Willatt et al.: rate / (rate + (r / scale)^exponent)."""

    scale: quantity("angstrom") = Field(gt=0)  # type: ignore[valid-type]
    rate: float = Field(ge=0)
    exponent: float = Field(ge=0)


class SoapParameters(DescriptorParameters):
    """Parameters of ``soap``."""

    species: Species = "auto"
    r_cut: quantity("angstrom") = Field(gt=0, le=100, description="Cutoff.")  # type: ignore[valid-type]
    n_max: int = Field(ge=1, le=64, description="Radial functions.")
    l_max: int = Field(ge=0, le=20, description="Highest angular momentum.")
    sigma: quantity("angstrom") = Field(0.5, gt=0, description="Width of the atoms' Gaussians.")  # type: ignore[valid-type]
    convention: Literal["dscribe-gto", "featomic-gto", "polynomial"] = Field(
        "dscribe-gto", description="Whose definition and column order."
    )
    average: Literal["inner", "outer", "off"] = Field(
        "outer",
        description="inner: power spectrum of the mean density; outer: mean power spectrum; off: a row per site, "
        "stored in blocks by pair of elements.",
    )
    compression: Literal["mu1nu1", "mu2", "crossover"] | Compression | None = Field(
        None, description="Fewer columns (Darby et al., npj Comput. Mater. 8, 166 (2022))."
    )
    weighting: Weighting | None = Field(None, description="Radial weighting of the density.")
    smoothing: quantity("angstrom") | None = Field(  # type: ignore[valid-type]
        None, gt=0, description="Width of the shifted-cosine smoothing below r_cut; none: a step."
    )
    scaling: Scaling | None = Field(None, description="Radial scaling of the density.")

    @model_validator(mode="after")
    def _columns_exist(self) -> SoapParameters:
        if self.species != "auto":
            from matcompute_kernels import KernelInputError

            try:
                _layout(self)
            except KernelInputError as error:
                raise ValueError(str(error)) from error
        return self

    def keywords(self) -> dict[str, Any]:
        return {key: _without_none(value) for key, value in super().keywords().items()}


def _without_none(value: Any) -> Any:
    return (
        {key: item for key, item in value.items() if item is not None}
        if isinstance(value, Mapping)
        else value
    )


def _layout(parameters: SoapParameters) -> Any:
    from matcompute_kernels.descriptors.soap import checked_layout

    given = parameters.keywords()
    return checked_layout(
        given["species"], given["n_max"], given["l_max"], given["convention"], given.get("compression")
    )


class SoapAdapter(KernelAdapter):
    """Smooth overlap of atomic positions."""

    name = "soap"
    title = "SOAP power spectrum"
    definition = "dscribe 2.1 SOAP, or featomic 0.6 soap_power_spectrum, by `convention`"
    Parameters = SoapParameters

    def compute(
        self, batch: Batch, parameters: SoapParameters, *, threads: int = 1
    ) -> np.ndarray | BlockSparse:
        arguments = self.arguments(parameters) | ({"threads": threads} if threads > 1 else {})
        if parameters.average != "off" or not self.sparse(parameters):
            return self.call(batch, arguments)
        return _blocks(self.call(batch, arguments | {"sparse": True}))

    def sparse(self, parameters: SoapParameters) -> bool:
        """Return whether rows per site are stored in blocks: every channel is one element."""
        return "+" not in "".join(_layout(parameters).names)

    def width(self, parameters: SoapParameters) -> int:
        return int(_layout(parameters).n_features)

    def site_cost(self, parameters: SoapParameters, n_sites: np.ndarray) -> Any:
        neighbours = neighbour_count(parameters.r_cut + 3.7 * parameters.sigma)
        spectrum = neighbours * parameters.n_max * (parameters.l_max + 1) ** 2
        return 1.5e-10 * spectrum + 1e-9 * min(self.width(parameters), 20_000)


def _blocks(rows: Any) -> BlockSparse:
    """Return the kernel's blocks in the layout of the file: pairs of atomic numbers in place of channels."""
    from matcompute.dataset.descriptors import BlockSparse

    layout = rows.layout
    # Channel k holds one element; the sum of all of them (mu1nu1) is written as 0.
    number = np.zeros(len(layout.names) + 1, dtype="u1")
    number[layout.channel] = layout.species
    kinds = number[layout.pairs].reshape(-1, 2)
    return BlockSparse(
        ptr=np.asarray(rows.row_ptr, dtype="i8"),
        pairs=kinds[rows.block].reshape(-1, 2),
        values=rows.values.astype("f4"),
        kinds=kinds,
        offset=np.asarray(layout.offset, dtype="i8"),
    )


#: The entry point ``soap``.
Soap = SoapAdapter()

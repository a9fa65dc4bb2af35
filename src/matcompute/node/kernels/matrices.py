"""Coulomb, sine and Ewald matrices."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from matcompute.node.descriptors import DescriptorParameters, KernelAdapter, quantity

__all__ = ["Coulomb", "Ewald", "Sine"]


class MatrixParameters(DescriptorParameters):
    """Parameters of ``coulomb_matrix`` and ``sine_matrix``."""

    n_atoms_max: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="Atoms that a row has room for; auto: the largest of the structures."
    )
    permutation: Literal["none", "sorted_l2", "eigenspectrum"] = Field(
        "sorted_l2", description="Order of the rows of the matrix; eigenspectrum: its eigenvalues instead."
    )


class EwaldParameters(MatrixParameters):
    """Parameters of ``ewald_matrix``."""

    accuracy: float = Field(1e-5, gt=0, lt=1, description="Largest term left out.")
    w: float = Field(1.0, gt=0, description="Cost of a real-space term over that of a reciprocal one.")
    r_cut: quantity("angstrom") | None = Field(None, gt=0, description="Cutoff; both or none.")  # type: ignore[valid-type]
    g_cut: quantity("1/angstrom") | None = Field(  # type: ignore[valid-type]
        None, gt=0, description="Cutoff in reciprocal space; both or none."
    )
    a: quantity("1/angstrom") | None = Field(None, gt=0, description="Screening parameter.")  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _both_or_none(self) -> EwaldParameters:
        if (self.r_cut is None) != (self.g_cut is None):
            raise ValueError("give r_cut and g_cut, or none of them")
        return self


class _MatrixAdapter(KernelAdapter):
    Parameters = MatrixParameters
    threaded = False

    def width(self, parameters: MatrixParameters) -> int:
        n = int(parameters.n_atoms_max)
        return n if parameters.permutation == "eigenspectrum" else n * n

    def site_cost(self, parameters: MatrixParameters, n_sites: np.ndarray) -> Any:
        return 5e-9 * n_sites + 5e-9 * n_sites**2 * (parameters.permutation == "eigenspectrum")


class CoulombAdapter(_MatrixAdapter):
    """Coulomb matrix of a molecule."""

    name = "coulomb_matrix"
    title = "Coulomb matrix or its eigenspectrum (lattices are ignored)"
    definition = "dscribe 2.1 CoulombMatrix"
    units = "e^2/angstrom"


class SineAdapter(_MatrixAdapter):
    """Sine matrix of a crystal."""

    name = "sine_matrix"
    title = "sine matrix or its eigenspectrum"
    definition = "dscribe 2.1 SineMatrix"
    units = "e^2/angstrom"


class EwaldAdapter(_MatrixAdapter):
    """Ewald sum matrix of a crystal."""

    name = "ewald_matrix"
    title = "Ewald sum matrix or its eigenspectrum"
    definition = "dscribe 2.1 EwaldSumMatrix"
    units = "e^2/angstrom"
    Parameters = EwaldParameters

    def site_cost(self, parameters: MatrixParameters, n_sites: np.ndarray) -> Any:
        return 5e-6 + super().site_cost(parameters, n_sites)


#: Entry points.
Coulomb, Sine, Ewald = CoulombAdapter(), SineAdapter(), EwaldAdapter()

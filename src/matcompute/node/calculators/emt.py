"""ASE's effective-medium theory: quick and analytic; for tests, teaching and the quickest campaigns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from matcompute.node.adapters import CalculatorAdapter, Parameters

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator

__all__ = ["EMT", "EMTCalculator", "EMTParameters"]


class EMTParameters(Parameters):
    """Parameters of ``ase.calculators.emt.EMT``."""

    asap_cutoff: bool = Field(
        False, description="Take the cutoff from the largest atom present, as ASAP does."
    )


class EMTCalculator(CalculatorAdapter):
    """K. W. Jacobsen, P. Stoltze, J. K. Nørskov, Surf. Sci. 366, 394 (1996), as implemented in ASE.

    Only the seven fcc metals that the potential was fitted to; ASE's "extra parameters, just for fun" for H, C, N and
    O are refused, since a screening result made with them would be meaningless.
    """

    name = "emt"
    package = "ase"
    species = frozenset({"Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt"})
    Parameters = EMTParameters

    def fork_safe(self, parameters: Mapping[str, Any]) -> bool:
        return True

    def load(self, parameters: Mapping[str, Any], model_path: Path | None, threads: int) -> BaseCalculator:
        from ase.calculators.emt import EMT as AseEMT

        return AseEMT(asap_cutoff=EMTParameters(**parameters).asap_cutoff)

    def evaluation_cost(self, n_sites: Any) -> Any:
        # Measured with ASE 3.29: 0.5 ms and 0.05 ms a site, and 5 ms for the step of ASE's cell filter around it,
        # which is what most evaluations are for; for slower calculators that step does not count.
        return 5.5e-3 + 1e-4 * n_sites

    def method(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {"model": "EMT (Jacobsen, Stoltze, Nørskov 1996)", "functional": "effective-medium theory"}


#: The entry point ``emt``.
EMT = EMTCalculator()

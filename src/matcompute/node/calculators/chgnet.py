"""CHGNet, a universal machine-learned potential whose weights ship in its wheel."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from matcompute.node.adapters import CalculatorAdapter, Parameters
from matcompute.node.errors import ModelError

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator

__all__ = ["CHGNet", "CHGNetAdapter", "CHGNetParameters"]

_WEIGHTS = {
    "0.3.0": "0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
    "r2scan": "r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
}
_FUNCTIONAL = {"0.3.0": "PBE, PBE+U (MPtrj)", "r2scan": "r2SCAN (transfer learning from MPtrj)"}

# The 89 elements of MPtrj (Deng et al. 2023): Z ≤ 94 without Po, At, Rn, Fr and Ra.
_SPECIES = """
H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb
Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu
Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Ac Th Pa U Np Pu
"""


class CHGNetParameters(Parameters):
    """Parameters of the CHGNet calculator."""

    weights: Literal["0.3.0", "r2scan"] = Field(
        "0.3.0", description="Which of the shipped checkpoints to use."
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="Where the network is evaluated.")


class CHGNetAdapter(CalculatorAdapter):
    """B. Deng et al., Nature Machine Intelligence 5, 1031 (2023)."""

    name = "chgnet"
    package = "chgnet"
    species = frozenset(_SPECIES.split())
    Parameters = CHGNetParameters
    extra_site_properties = frozenset({"magmom"})

    def fork_safe(self, parameters: Mapping[str, Any]) -> bool:
        # Loading runs no backward pass and, on one thread, starts no OpenMP team: both would not survive a fork.
        return CHGNetParameters(**parameters).device == "cpu"

    def model_path(self, parameters: Mapping[str, Any] | None = None) -> Path | None:
        # find_spec of the top-level package imports nothing, so asking for the weights costs no torch.
        spec = util.find_spec("chgnet")
        if spec is None or spec.origin is None:
            return None
        weights = CHGNetParameters(**(parameters or {})).weights
        return Path(spec.origin).parent / "pretrained" / _WEIGHTS[weights]

    def load(self, parameters: Mapping[str, Any], model_path: Path | None, threads: int) -> BaseCalculator:
        import contextlib
        import io
        import pickle
        import warnings

        import torch

        # One while loading; the worker that computes sets its own number.
        torch.set_num_threads(1)
        from chgnet.model.dynamics import CHGNetCalculator
        from chgnet.model.model import CHGNet as Network

        params = CHGNetParameters(**parameters)
        path = model_path or self.model_path(parameters)
        if path is None or not path.is_file():
            raise ModelError(
                f"CHGNet checkpoint {path} is missing", hint="reinstall chgnet, or give a model file"
            )
        # The package prints its banner to stdout and warns at each evaluation; both would swamp a job's logs.
        for text in (".*isolated atom.*", ".*requires_grad=True to a scalar.*", ".*Only FixAtoms.*"):
            warnings.filterwarnings("ignore", message=f"(?s){text}")
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                # A checkpoint may come from anywhere: tensors and plain containers only, no code is unpickled.
                state = torch.load(path, map_location="cpu", weights_only=True)["model"]
                network = Network.from_dict(state, mlp_out_bias=False, version=params.weights)
            except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, EOFError, TypeError) as error:
                first = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise ModelError(
                    f"{path} is no CHGNet checkpoint that can be loaded safely: {first}",
                    hint='expected a torch file {"model": {"state_dict", "model_args"}} without pickled code',
                ) from error
            network.eval()
            return CHGNetCalculator(network, use_device=params.device, on_isolated_atoms="warn")

    def evaluation_cost(self, n_sites: Any) -> Any:
        # Measured on one core with one thread, 1 to 32 atoms of fcc copper: 14 ms and 5.7 ms a site.
        return 0.014 + 0.0057 * n_sites

    def method(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        weights = CHGNetParameters(**parameters).weights
        return {"model": f"CHGNet {weights}", "functional": _FUNCTIONAL[weights]}


#: The entry point ``chgnet``.
CHGNet = CHGNetAdapter()

"""Quantum ESPRESSO through aiida-quantumespresso: the calculator ``qe``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.errors import InputError
from matcompute_workflows.dft import qe_outcome, qe_results
from matcompute_workflows.dft.adapter import Found, Outcome, Prepared, Remedy, StructureCalculator
from matcompute_workflows.dft.qe_parameters import (
    RY,
    QeParameters,
    resolved,
    u_values,
)
from matcompute_workflows.dft.tasks import BandsTask, EosTask, RelaxTask, StaticTask

if TYPE_CHECKING:
    from aiida.engine import ProcessBuilder
    from aiida.orm import AbstractCode, Data, ProcessNode

__all__ = ["Qe", "QuantumEspresso", "cutoffs_of", "pseudos_for"]

_PW = "quantumespresso.pw"


class QuantumEspresso(StructureCalculator):
    """P. Giannozzi et al., J. Phys.: Condens. Matter 29, 465901 (2017)."""

    name = "qe"
    title = "Quantum ESPRESSO (pw.x)"
    package = "aiida-quantumespresso"
    Parameters = QeParameters
    tasks = {task.name: task for task in (StaticTask(), RelaxTask(), EosTask(), BandsTask())}

    # ------------------------------------------------------------------ before anything runs
    def plugins(self, kind: str, task: Any) -> Sequence[str]:
        if kind == "bands" and task.dos:
            return (_PW, "quantumespresso.dos")
        return (_PW,)

    def covered(self, parameters: QeParameters) -> frozenset[str]:
        from matcompute_workflows.dft.pseudos import find

        return frozenset(find(parameters.pseudo_family).elements)

    def settings(self, parameters: QeParameters, species: Sequence[str]) -> dict[str, Any]:
        from matcompute_workflows.dft.pseudos import describe, find

        family = describe(find(parameters.pseudo_family))
        mine = {symbol: family.potentials[symbol] for symbol in species if symbol in family.potentials}
        wfc, rho = cutoffs_of(parameters, [(p.cutoff_wfc * RY, p.cutoff_rho * RY) for p in mine.values()])
        return {
            "calculator_parameters": parameters.model_dump(mode="json"),
            "protocol": resolved(parameters),
            # The largest over all species of the campaign; a structure takes the largest over its own.
            "cutoff_wfc_eV": round(wfc, 6),
            "cutoff_rho_eV": round(rho, 6),
            "hubbard_u_eV": {s: u for s, (_, u) in u_values(parameters, set(species)).items()},
            "pseudo_family": family.name,
            "functional": family.functional,
            "pseudopotentials": {
                symbol: {"file": p.file, "sha256": p.sha256, "md5": p.md5, "z_valence": p.z_valence}
                for symbol, p in sorted(mine.items())
            },
        }

    def evaluation_cost(self, n_sites: Any, parameters: QeParameters | None = None) -> Any:
        values = resolved(parameters or QeParameters())
        n = np.asarray(n_sites, dtype=float)
        # k-points: a cell of 16 Å^3 an atom, half of the mesh by time reversal, a third of that by symmetry.
        volume = 16.0 * n
        kpoints = np.maximum(1.0, (2 * np.pi / values["kpoint_spacing"]) ** 3 / volume / 6.0)
        # Measured on one core: 2 atoms, 8 to 10 electrons an atom, 0.25 s a k-point and self-consistency; the
        # diagonalisation grows with the cube of the size, the rest with its square.
        each = 0.06 * n**2 + 0.004 * n**3 + 0.02
        return 0.7 + each * kpoints * values["cutoff_factor"] ** 1.5

    def stored_bytes(self, kind: str, task: Any, parameters: QeParameters, n_sites: float) -> float:
        # Seen for 1 to 2 atoms: output 60 kB, 25 kB more a step of the geometry; XML 55 kB; 8 bytes an eigenvalue.
        values = resolved(parameters)
        kpoints = max(1.0, (2 * np.pi / values["kpoint_spacing"]) ** 3 / (16.0 * n_sites) / 6.0)
        eigenvalues = 16.0 * kpoints * 6.0 * n_sites
        one = 60e3 + 3e3 * n_sites + 45e3 + 3 * eigenvalues
        if kind == "eos":
            return float(task.points) * one
        if kind == "bands":
            # Seen for silicon: 450 kB at `fast`. Eigenvalues are kept as text and as arrays.
            along = 4.5 / values["path_spacing"] + kpoints / values["mesh_refinement"] ** 3 * task.dos
            return 3 * (60e3 + 3e3 * n_sites + 45e3) + 4 * 16.0 * along * 8.0 * n_sites
        return one + (25e3 * 6 if kind == "relax" else 0.0) + eigenvalues * parameters.bands

    def jobs(self, kind: str, task: Any) -> int:
        return int(task.points) if kind == "eos" else 1

    # ------------------------------------------------------------------ a structure
    def builder(
        self,
        prepared: Prepared,
        kind: str,
        task: Any,
        parameters: QeParameters,
        *,
        codes: Mapping[str, AbstractCode],
        options: Mapping[str, Any],
        ranks: int = 0,
        remedy: Remedy | None = None,
    ) -> ProcessBuilder:
        from matcompute_workflows.dft import qe_builders

        make = {
            "static": qe_builders.static,
            "relax": qe_builders.relax,
            "eos": qe_builders.eos,
            "bands": qe_builders.bands,
        }[kind]
        built: ProcessBuilder = make(
            self, prepared, task, parameters, codes, dict(options), ranks, remedy or Remedy()
        )
        return built

    def outcome(self, process: ProcessNode, remedy: Remedy | None = None) -> Outcome:
        return qe_outcome.outcome(process, remedy or Remedy())

    def outputs(self, process: ProcessNode) -> dict[str, Data]:
        return qe_results.nodes_of(process)

    def read(self, kind: str, task: Any, nodes: Mapping[str, Data], n_sites: int) -> Found:
        return qe_results.read(kind, task, nodes, n_sites)

    def code_version(self, nodes: Mapping[str, Data]) -> str:
        return qe_results.code_version(nodes)


def cutoffs_of(parameters: QeParameters, recommended: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the cutoffs of wavefunctions and density in eV: given, else the largest recommended times the factor."""
    factor = float(resolved(parameters)["cutoff_factor"])
    wfc = parameters.cutoff_wfc or factor * max((w for w, _ in recommended), default=0.0)
    rho = parameters.cutoff_rho or factor * max((r for _, r in recommended), default=0.0)
    if not parameters.cutoff_rho and parameters.cutoff_wfc and recommended:
        # Who gives one of the two means the ratio of the family.
        rho = wfc * max(r / w for w, r in recommended)
    return wfc, max(rho, 4.0 * wfc)


@lru_cache(maxsize=32)
def _family_data(name: str | None, _uuid: str) -> Any:
    from matcompute_workflows.dft.pseudos import describe, find

    family = find(name)
    return describe(family), {node.element: node for node in family.nodes}


def pseudos_for(
    parameters: QeParameters, symbols: Sequence[str]
) -> tuple[dict[str, Any], tuple[float, float]]:
    """Return symbol → UpfData, and the cutoffs in eV, for a structure.

    Raises
    ------
    InputError
        If the family has no potential of an element.
    """
    from matcompute_workflows.dft.pseudos import find

    described, nodes = _family_data(parameters.pseudo_family, find(parameters.pseudo_family).uuid)
    missing = sorted(set(symbols) - set(nodes))
    if missing:
        raise InputError(
            f"the pseudopotential family '{described.name}' has none of {', '.join(missing)}",
            hint="choose another `pseudo_family`, or leave these elements out",
        )
    mine = [described.potentials[symbol] for symbol in symbols]
    wanted = cutoffs_of(parameters, [(p.cutoff_wfc * RY, p.cutoff_rho * RY) for p in mine])
    return {symbol: nodes[symbol] for symbol in symbols}, wanted


#: The entry point ``qe``.
Qe = QuantumEspresso()

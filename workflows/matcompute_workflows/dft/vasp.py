"""VASP through aiida-vasp: the calculator ``vasp``.

VASP is licensed. This adapter was written and tested without the program: its inputs are checked by AiiDA's dry run
with made-up POTCAR files, its reading on output nodes as the plugin documents them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute_workflows.dft import vasp_outcome, vasp_results
from matcompute_workflows.dft.adapter import Found, Outcome, Prepared, Remedy, StructureCalculator
from matcompute_workflows.dft.protocols import hubbard_u
from matcompute_workflows.dft.tasks import RelaxTask, StaticTask
from matcompute_workflows.dft.vasp_parameters import VaspParameters, resolved

if TYPE_CHECKING:
    from aiida.engine import ProcessBuilder
    from aiida.orm import AbstractCode, Data, ProcessNode

__all__ = ["Vasp", "ViennaPackage"]


class ViennaPackage(StructureCalculator):
    """G. Kresse, J. Furthmüller, Phys. Rev. B 54, 11169 (1996); PAW: G. Kresse, D. Joubert, ibid. 59, 1758 (1999)."""

    name = "vasp"
    title = "VASP"
    package = "aiida-vasp"
    Parameters = VaspParameters
    tasks = {task.name: task for task in (StaticTask(), RelaxTask())}

    # ------------------------------------------------------------------ before anything runs
    def plugins(self, kind: str, task: Any) -> Sequence[str]:
        return ("vasp.vasp",)

    def covered(self, parameters: VaspParameters) -> frozenset[str]:
        from matcompute_workflows.dft.vasp_potentials import potentials

        return frozenset(potentials(parameters))

    def settings(self, parameters: VaspParameters, species: Sequence[str]) -> dict[str, Any]:
        from matcompute_workflows.dft.vasp_potentials import find, potentials

        found = potentials(parameters)
        values = resolved(parameters)
        given = None if parameters.hubbard in ("auto", "none") else parameters.hubbard
        table = {} if parameters.hubbard == "none" else hubbard_u(set(species), given)  # type: ignore[arg-type]
        return {
            "calculator_parameters": parameters.model_dump(mode="json"),
            "protocol": values,
            "cutoff_wfc_eV": values["cutoff"],
            "hubbard_u_eV": {symbol: u for symbol, (_, u) in table.items()},
            "pseudo_family": find(parameters.potential_family).label,
            "functional": parameters.functional,
            # The files are licensed: who has them can tell by the checksum that they are the same.
            "pseudopotentials": {
                symbol: {
                    "name": found[symbol].name,
                    "title": found[symbol].title,
                    "sha512": found[symbol].sha512,
                }
                for symbol in sorted(set(species) & set(found))
            },
        }

    def evaluation_cost(self, n_sites: Any, parameters: VaspParameters | None = None) -> Any:
        values = resolved(parameters or VaspParameters())
        n = np.asarray(n_sites, dtype=float)
        # Not measured: as that of pw.x (which see), with the plane waves of a cutoff of 520 eV as the unit.
        kpoints = np.maximum(1.0, (2 * np.pi / values["kpoint_spacing"]) ** 3 / (16.0 * n) / 6.0)
        each = 0.06 * n**2 + 0.004 * n**3 + 0.02
        return 2.0 + each * kpoints * (values["cutoff"] / 520.0) ** 1.5

    def stored_bytes(self, kind: str, task: Any, parameters: VaspParameters, n_sites: float) -> float:
        # vasprun.xml, OUTCAR, CONTCAR and vasp_output are kept. Of the plugin's own recorded runs of one and two
        # atoms: 150 kB an OUTCAR, 100 kB a vasprun.xml without the eigenvalues, which are text in both.
        values = resolved(parameters)
        kpoints = max(1.0, (2 * np.pi / values["kpoint_spacing"]) ** 3 / (16.0 * n_sites) / 6.0)
        one = 250e3 + 3e3 * n_sites + 2 * 40.0 * kpoints * 6.0 * n_sites
        return one if kind == "static" else 3 * one

    # ------------------------------------------------------------------ a structure
    def builder(
        self,
        prepared: Prepared,
        kind: str,
        task: Any,
        parameters: VaspParameters,
        *,
        codes: Mapping[str, AbstractCode],
        options: Mapping[str, Any],
        ranks: int = 0,
        remedy: Remedy | None = None,
    ) -> ProcessBuilder:
        from matcompute_workflows.dft import vasp_builders

        make = {"static": vasp_builders.static, "relax": vasp_builders.relax}[kind]
        built: ProcessBuilder = make(prepared, task, parameters, codes, options, ranks, remedy or Remedy())
        return built

    def outcome(self, process: ProcessNode, remedy: Remedy | None = None) -> Outcome:
        return vasp_outcome.outcome(process, remedy or Remedy())

    def outputs(self, process: ProcessNode) -> dict[str, Data]:
        return vasp_results.nodes_of(process)

    def read(self, kind: str, task: Any, nodes: Mapping[str, Data], n_sites: int) -> Found:
        return vasp_results.read(kind, task, nodes, n_sites)

    def code_version(self, nodes: Mapping[str, Data]) -> str:
        return vasp_results.code_version(nodes)


#: The entry point ``vasp``.
Vasp = ViennaPackage()

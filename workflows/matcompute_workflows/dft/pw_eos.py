"""``PwEosWorkChain``: energies of pw.x at a few volumes and a Birch–Murnaghan fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida.engine import ExitCode, ToContext, WorkChain, calcfunction, while_
from aiida.orm import Dict, List, StructureData
from aiida_quantumespresso.calculations.functions.create_kpoints_from_distance import (
    create_kpoints_from_distance,
)
from aiida_quantumespresso.workflows.pw.base import PwBaseWorkChain

__all__ = ["PwEosWorkChain", "fit_equation_of_state", "strained_structures"]


class PwEosWorkChain(WorkChain):
    """Equation of state of a structure.

    All volumes are computed at once, each by a ``PwBaseWorkChain``, with the k-point mesh of the input's volume. If the
    minimum lies outside of the window, the window is moved onto the lowest energy.
    """

    @classmethod
    def define(cls, spec: Any) -> None:
        """Define inputs, outline, outputs and exit codes."""
        super().define(spec)
        spec.expose_inputs(PwBaseWorkChain, namespace="base", exclude=("clean_workdir", "pw.structure"))
        spec.input("structure", valid_type=StructureData, help="The structure; its volume is the middle.")
        spec.input(
            "settings", valid_type=Dict, help="strain, points, recentre, max_rms_error of the task eos."
        )
        step: Any = cls
        spec.outline(step.setup, while_(step.should_scan)(step.run_points, step.inspect_points), step.results)
        spec.output("eos", valid_type=Dict, required=False, help="status, message, values, code_version.")
        spec.exit_code(400, "ERROR_POINT_FAILED", message="The energy at {where} could not be computed.")
        spec.exit_code(410, "ERROR_NO_FIT", message="No equation of state fits the energies: {detail}")

    def setup(self) -> None:
        """Start at the input's own volume."""
        self.ctx.settings = self.inputs.settings.get_dict()
        self.ctx.centre = 1.0
        self.ctx.scans = 0
        self.ctx.fit = None
        self.ctx.failed = None
        if "kpoints" in self.inputs.base:
            self.ctx.kpoints = self.inputs.base.kpoints
        else:
            self.ctx.kpoints = create_kpoints_from_distance(
                self.inputs.structure,
                self.inputs.base.kpoints_distance,
                self.inputs.base.kpoints_force_parity,
                metadata={"call_link_label": "create_kpoints_from_distance"},
            )

    def should_scan(self) -> bool:
        """Whether there is no fit yet, and the window may still be moved."""
        if self.ctx.failed is not None:
            return False
        if self.ctx.fit is None:
            return True
        found = self.ctx.fit.get_dict()
        if found.get("move") is None or self.ctx.scans > int(self.ctx.settings["recentre"]):
            return False
        self.ctx.centre *= float(found["move"])
        self.report(f"the minimum is outside of the window, which is moved to {self.ctx.centre:.4f} V")
        return True

    def run_points(self) -> ToContext:
        """Submit all volumes."""
        settings = self.ctx.settings
        strains = np.linspace(-settings["strain"], settings["strain"], int(settings["points"]))
        ratios = [float(self.ctx.centre * (1 + strain)) for strain in strains]
        self.ctx.scans += 1
        self.ctx.ratios = ratios
        structures = strained_structures(self.inputs.structure, List(ratios))
        running = {}
        for number in range(len(ratios)):
            inputs = self.exposed_inputs(PwBaseWorkChain, namespace="base")
            inputs.pw.structure = structures[f"s_{number}"]
            inputs.pop("kpoints_distance", None)
            inputs.kpoints = self.ctx.kpoints
            inputs.setdefault("metadata", {})["call_link_label"] = f"scan_{self.ctx.scans}_point_{number}"
            running[f"point_{number}"] = self.submit(PwBaseWorkChain, **inputs)
        return ToContext(**running)

    def inspect_points(self) -> None:
        """Fit, if all volumes are there."""
        points = {}
        for number, ratio in enumerate(self.ctx.ratios):
            node = self.ctx[f"point_{number}"]
            if not node.is_finished_ok:
                self.ctx.failed = f"{100 * (ratio - 1):+.1f} % volume"
                self.report(f"PwBaseWorkChain<{node.pk}> at {self.ctx.failed}: {node.exit_message}")
                return
            points[f"point_{number}"] = node.outputs.output_parameters
        self.ctx.fit = fit_equation_of_state(self.inputs.settings, **points)

    def results(self) -> ExitCode | None:
        """Attach the fit."""
        if self.ctx.failed is not None:
            code: ExitCode = self.exit_codes.ERROR_POINT_FAILED
            return code.format(where=self.ctx.failed)
        self.out("eos", self.ctx.fit)
        found = self.ctx.fit.get_dict()
        if "bulk_modulus" not in found["values"]:
            code = self.exit_codes.ERROR_NO_FIT
            return code.format(detail=found["message"])
        return None


@calcfunction
def strained_structures(structure: StructureData, ratios: List) -> dict[str, StructureData]:
    """Return the structure at other volumes, its shape and fractional coordinates kept.

    Parameters
    ----------
    structure
        The structure.
    ratios
        Volumes relative to it.
    """
    found = {}
    for number, ratio in enumerate(ratios.get_list()):
        scale = float(ratio) ** (1 / 3)
        strained = structure.clone()
        strained.set_cell((np.asarray(structure.cell) * scale).tolist())
        strained.reset_sites_positions([(np.asarray(s.position) * scale).tolist() for s in structure.sites])
        found[f"s_{number}"] = strained
    return found


@calcfunction
def fit_equation_of_state(settings: Dict, **points: Dict) -> Dict:
    """Fit the third-order Birch–Murnaghan equation of state to the energies of some volumes.

    Parameters
    ----------
    settings
        ``max_rms_error``.
    points
        ``output_parameters`` of pw.x at each volume.

    Returns
    -------
    aiida.orm.Dict
        ``status`` (:class:`matcompute.dataset.Status`), ``message``, ``values`` (columns of a dataset),
        ``code_version`` and ``move``: by which factor the window should be moved, None where that would not help.
    """
    from matcompute.dataset import Status
    from matcompute.node.tasks.birch_murnaghan import FitError, fit_birch_murnaghan
    from matcompute_workflows.rows import natural_order

    found = [points[name].get_dict() for name in natural_order(points)]
    atoms = [int(item["number_of_atoms"]) for item in found]
    volumes = np.array([item["volume"] / n for item, n in zip(found, atoms, strict=True)])
    energies = np.array([item["energy"] / n for item, n in zip(found, atoms, strict=True)])
    values: dict[str, Any] = {"eos_volume": volumes.tolist(), "eos_energy": energies.tolist()}
    result: dict[str, Any] = {
        "status": int(Status.FIT_FAILED),
        "message": "",
        "values": values,
        "code_version": str(found[0].get("creator_version", "")),
        "move": None,
    }
    try:
        fit = fit_birch_murnaghan(volumes, energies)
    except FitError as error:
        lowest = int(np.argmin(energies))
        if lowest in (0, len(energies) - 1):
            result["move"] = float(volumes[lowest] / volumes[len(volumes) // 2])
        result["message"] = str(error)
        return Dict(result)
    values |= {
        "equilibrium_volume": float(fit.volume),
        "bulk_modulus": float(fit.bulk_modulus),
        "bulk_modulus_derivative": float(fit.bulk_modulus_derivative),
        "eos_rms_error": float(fit.rms_error),
    }
    limit = float(settings.get_dict()["max_rms_error"])
    if fit.rms_error > limit:
        result["message"] = f"rms error of the fit is {fit.rms_error:.3g} eV/atom (limit {limit:g})"
    else:
        result["status"] = int(Status.OK)
    return Dict(result)

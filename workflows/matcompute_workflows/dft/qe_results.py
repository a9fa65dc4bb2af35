"""Results of Quantum ESPRESSO: from the plugin's output nodes to columns of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute_workflows.dft.adapter import Found

if TYPE_CHECKING:
    from aiida.orm import Data, ProcessNode

__all__ = ["code_version", "nodes_of", "read"]

_WANTED = ("output_parameters", "output_trajectory", "output_structure", "eos", "electronic")


def nodes_of(process: ProcessNode) -> dict[str, Data]:
    """Return the outputs that :func:`read` needs; of a process that failed, those of its last job."""
    from matcompute_workflows.dft.qe_outcome import jobs

    found = {name: process.outputs[name] for name in _WANTED if name in process.outputs}
    if not found:
        for job in reversed(jobs(process)):
            found = {name: job.outputs[name] for name in _WANTED if name in job.outputs}
            if found:
                break
    return found


def read(kind: str, task: Any, nodes: Mapping[str, Data], n_sites: int) -> Found:
    """Read the results of a structure; see :meth:`StructureCalculator.read`."""
    if kind == "eos":
        return _read_dict(nodes, "eos")
    if kind == "bands":
        return _read_dict(nodes, "electronic")
    found = Found()
    if "output_parameters" not in nodes:
        return found
    node: Any = nodes["output_parameters"]
    parameters = node.get_dict()
    found.makers[""] = _maker(node)
    values = found.values
    trajectory: Any = nodes.get("output_trajectory")
    arrays = {} if trajectory is None else {n: trajectory.get_array(n) for n in trajectory.get_arraynames()}
    if "energy" in parameters:
        values["energy"] = float(parameters["energy"])
        values["energy_per_atom"] = values["energy"] / n_sites
    forces = arrays.get("forces")
    if forces is not None and len(forces):
        last = np.asarray(forces[-1], dtype=float)
        found.site_values["forces"] = last
        values["max_force"] = float(np.sqrt((last**2).sum(axis=1).max()))
    stress = arrays.get("stress")
    if stress is not None and len(stress):
        # pw.x prints the pressure's sign: a compressed cell has a positive one. Ours is positive under tension.
        s = -np.asarray(stress[-1], dtype=float)
        values["stress"] = np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])
    if "volume" in parameters:
        values["volume_per_atom"] = float(parameters["volume"]) / n_sites
    if getattr(task, "magmoms", False):
        moments = arrays.get("atomic_magnetic_moments")
        if moments is not None and len(moments):
            found.site_values["magmom"] = np.asarray(moments[-1], dtype=float).reshape(n_sites)
        if "total_magnetization" in parameters:
            values["total_magnetization"] = float(parameters["total_magnetization"])
    if kind == "relax":
        cells = arrays.get("cells")
        if cells is not None and len(cells):
            values["initial_volume_per_atom"] = abs(float(np.linalg.det(cells[0]))) / n_sites
            values["n_steps"] = len(cells) - 1
        structure: Any = nodes.get("output_structure")
        if structure is not None:
            found.positions = np.array([site.position for site in structure.sites], dtype=float)
            found.cell = np.array(structure.cell, dtype=float)
            values["volume_per_atom"] = abs(float(np.linalg.det(found.cell))) / n_sites
    return found


def _read_dict(nodes: Mapping[str, Data], name: str) -> Found:
    node: Any = nodes.get(name)
    if node is None:
        return Found()
    stored = node.get_dict()["values"]
    values = {key: np.asarray(v, dtype=float) if isinstance(v, list) else v for key, v in stored.items()}
    return Found(values=values, makers={"": _maker(node)})


def _maker(node: Any) -> str:
    return "" if node.creator is None else str(node.creator.uuid)


def code_version(nodes: Mapping[str, Data]) -> str:
    """Return the version of pw.x, as its XML says."""
    for name in ("output_parameters", "eos", "electronic"):
        node: Any = nodes.get(name)
        if node is not None:
            stored = node.get_dict()
            return str(stored.get("creator_version") or stored.get("code_version") or "")
    return ""

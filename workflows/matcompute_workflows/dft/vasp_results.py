"""Results of VASP: from the plugin's output nodes to columns of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute_workflows.dft.adapter import Found

if TYPE_CHECKING:
    from aiida.orm import Data, ProcessNode

__all__ = ["code_version", "nodes_of", "read"]


def nodes_of(process: ProcessNode) -> dict[str, Data]:
    """Return the nodes that :func:`read` needs; of a process that failed, those of its last job with results.

    ``misc`` and ``start`` (the structure it began with); of a relaxation also ``structure`` (the final one) and
    ``steps_<k>`` (``misc`` of each job that moved atoms).
    """
    from matcompute_workflows.dft.qe_outcome import jobs

    found: dict[str, Data] = {}
    if "misc" in process.outputs:
        found["misc"] = process.outputs.misc
    mine = [job for job in jobs(process) if "misc" in job.outputs]
    if "misc" not in found:
        if not mine:
            return {}
        found["misc"] = mine[-1].outputs.misc
    if "structure" in process.inputs:
        found["start"] = process.inputs.structure
    if "relax" in process.outputs and "structure" in process.outputs.relax:
        found["structure"] = process.outputs.relax.structure
    moved = [job for job in mine if "structure" in job.outputs]
    if moved and "structure" not in found:
        found["structure"] = moved[-1].outputs.structure
    found |= {f"steps_{k}": job.outputs.misc for k, job in enumerate(moved)}
    return found


def read(kind: str, task: Any, nodes: Mapping[str, Data], n_sites: int) -> Found:
    """Read the results of a structure; see :meth:`StructureCalculator.read`."""
    found = Found()
    if "misc" not in nodes:
        return found
    node: Any = nodes["misc"]
    misc = node.get_dict()
    found.makers[""] = "" if node.creator is None else str(node.creator.uuid)
    values = found.values
    # Extrapolated to no smearing.
    energy = (misc.get("total_energies") or {}).get("energy_extrapolated")
    if energy is not None:
        values["energy"] = float(energy)
        values["energy_per_atom"] = values["energy"] / n_sites
    forces = misc.get("forces")
    if forces is not None:
        array = np.asarray(forces, dtype=float).reshape(n_sites, 3)
        found.site_values["forces"] = array
        values["max_force"] = float(np.sqrt((array**2).sum(axis=1).max()))
    stress = misc.get("stress")
    if stress is not None:
        # kbar, positive in a cell that is compressed; ours is in GPa, positive under tension.
        s = -0.1 * np.asarray(stress, dtype=float)
        values["stress"] = np.array([s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])
    if getattr(task, "magmoms", False):
        _read_moments(misc, found, n_sites)
    start: Any = nodes.get("start")
    final: Any = nodes.get("structure") if kind == "relax" else None
    if start is not None:
        values["volume_per_atom"] = start.get_cell_volume() / n_sites
    if kind == "relax":
        if start is not None:
            values["initial_volume_per_atom"] = values["volume_per_atom"]
        # Each job computes its first geometry before it moves anything.
        steps = [_ionic_steps(item) for name, item in nodes.items() if name.startswith("steps_")]
        if steps:
            values["n_steps"] = sum(max(n - 1, 0) for n in steps)
    if final is not None:
        found.positions = np.array([site.position for site in final.sites], dtype=float)
        found.cell = np.array(final.cell, dtype=float)
        values["volume_per_atom"] = abs(float(np.linalg.det(found.cell))) / n_sites
    return found


def _read_moments(misc: Mapping[str, Any], found: Found, n_sites: int) -> None:
    """Read the moments of a collinear calculation; VASP writes none for one that is not spin-polarised."""
    total = misc.get("magnetization")
    if total:
        found.values["total_magnetization"] = float(total[-1])
    sites = (misc.get("site_magnetization") or {}).get("sphere", {}).get("x", {}).get("site_moment")
    if sites and len(sites) == n_sites:
        # Site number, from "1" on → orbital → moment.
        found.site_values["magmom"] = np.array(
            [sites[str(k + 1)]["tot"] for k in range(n_sites)], dtype=float
        )


def _ionic_steps(misc: Any) -> int:
    index = misc.get_dict().get("run_status", {}).get("last_iteration_index")
    return int(index[0]) if index else 0


def code_version(nodes: Mapping[str, Data]) -> str:
    """Return the version of VASP, as its XML says."""
    node: Any = nodes.get("misc")
    return "" if node is None else str(node.get_dict().get("version", ""))

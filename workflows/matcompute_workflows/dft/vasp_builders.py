"""Builders of aiida-vasp's work chains for each task of the calculator ``vasp``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute_workflows.dft.adapter import Prepared, Remedy
from matcompute_workflows.dft.protocols import valence_orbital
from matcompute_workflows.dft.qe_builders import irreducible
from matcompute_workflows.dft.vasp_parameters import VaspParameters, incar, resolved, u_mapping
from matcompute_workflows.dft.vasp_potentials import find, select

if TYPE_CHECKING:
    from aiida.orm import AbstractCode

__all__ = ["relax", "static"]

_VASP = "vasp.vasp"


def static(
    prepared: Prepared,
    task: Any,
    parameters: VaspParameters,
    codes: Mapping[str, AbstractCode],
    options: Mapping[str, Any],
    ranks: int,
    remedy: Remedy,
) -> Any:
    """Return a builder of ``VaspWorkChain``."""
    from aiida.plugins import WorkflowFactory

    builder: Any = WorkflowFactory("vasp.v2.vasp").get_builder()
    _fill(builder, prepared, parameters, codes, options, ranks)
    builder.structure = prepared.node
    return builder


def relax(
    prepared: Prepared,
    task: Any,
    parameters: VaspParameters,
    codes: Mapping[str, AbstractCode],
    options: Mapping[str, Any],
    ranks: int,
    remedy: Remedy,
) -> Any:
    """Return a builder of ``VaspRelaxWorkChain``: relaxations, and a static calculation in the final cell."""
    from aiida.orm import load_node
    from aiida.plugins import WorkflowFactory

    values = resolved(parameters)
    builder: Any = WorkflowFactory("vasp.v2.relax").get_builder()
    # PSTRESS is in kbar.
    own = {"pstress": 10.0 * task.pressure} if task.cell and task.pressure else {}
    _fill(builder.vasp, prepared, parameters, codes, options, ranks, own)
    builder.structure = prepared.node if remedy.structure is None else load_node(remedy.structure)
    builder.relax_settings = {
        "algo": "cg",
        "force_cutoff": values["fmax"] if task.fmax is None else task.fmax,
        "steps": task.steps,
        "positions": True,
        "shape": task.cell,
        "volume": task.cell,
        # The basis is that of the first cell: relaxed again until the volume stays.
        "convergence_on": bool(values["meta_convergence"]),
    }
    if own:
        # Stress and energy of the final calculation are those of the crystal, without the external pressure.
        builder.static_calc_parameters = {"incar": {"pstress": 0.0}}
    return builder


def _fill(
    builder: Any,
    prepared: Prepared,
    parameters: VaspParameters,
    codes: Mapping[str, AbstractCode],
    options: Mapping[str, Any],
    ranks: int,
    own: Mapping[str, Any] | None = None,
) -> None:
    """Fill in the inputs of ``VaspWorkChain`` but the structure."""
    structure = prepared.node
    chosen = select(parameters, sorted({kind.symbol for kind in structure.kinds}))
    # Structures that VASP gives back have kinds that are symbols.
    names = {symbol: potential.name for symbol, potential in chosen.items()}
    names |= {kind.name: chosen[kind.symbol].name for kind in structure.kinds}
    spacing = float(resolved(parameters)["kpoint_spacing"])
    tags = incar(
        parameters,
        prepared,
        # Rare earths with the f electrons in the core are called Er_3, Yb_2.
        f_states=any(
            valence_orbital(s)[-1] == "f" and not p.name.endswith(("_2", "_3")) for s, p in chosen.items()
        ),
        ranks=ranks,
        n_kpoints=irreducible(structure, spacing),
    )
    builder.code = codes[_VASP]
    builder.parameters = {"incar": {**tags, **(own or {})}}
    # The plugin's spacing does not contain 2 pi.
    builder.kpoints_spacing = spacing / (2 * np.pi)
    builder.potential_family = find(parameters.potential_family).label
    builder.potential_mapping = names
    mapping = u_mapping(parameters, prepared)
    if mapping is not None:
        builder.ldau_mapping = mapping
    # More digits than the plugin writes by default: positions are compared with those of other codes.
    builder.settings = {"poscar_precision": 12}
    builder.clean_workdir = False
    builder.calc.metadata.options = {**options, "withmpi": ranks > 0}

"""Builders of aiida-quantumespresso's work chains for each task of the calculator ``qe``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.errors import InputError
from matcompute.first_principles import mesh_of
from matcompute_workflows.dft.adapter import Prepared, Remedy
from matcompute_workflows.dft.qe_parameters import (
    QeParameters,
    pools,
    pw_overrides,
    resolved,
    u_values,
)

if TYPE_CHECKING:
    from aiida.orm import AbstractCode

__all__ = ["bands", "eos", "relax", "static"]

_PW, _DOS = "quantumespresso.pw", "quantumespresso.dos"


def static(
    adapter: Any,
    prepared: Prepared,
    task: Any,
    parameters: QeParameters,
    codes: Mapping[str, AbstractCode],
    options: dict[str, Any],
    ranks: int,
    remedy: Remedy,
) -> Any:
    """Return a builder of ``PwBaseWorkChain``."""
    builder = _base(prepared, "scf", parameters, codes, options, ranks)
    return _continued(builder, builder, remedy)


def relax(
    adapter: Any,
    prepared: Prepared,
    task: Any,
    parameters: QeParameters,
    codes: Mapping[str, AbstractCode],
    options: dict[str, Any],
    ranks: int,
    remedy: Remedy,
) -> Any:
    """Return a builder of ``PwRelaxWorkChain``."""
    from aiida.orm import Bool, load_node
    from aiida_quantumespresso.workflows.pw.relax import PwRelaxWorkChain

    builder: Any = PwRelaxWorkChain.get_builder()
    base = _base(
        prepared,
        "vc-relax" if task.cell else "relax",
        parameters,
        codes,
        options,
        ranks,
        fmax=task.fmax,
        steps=task.steps,
        pressure=task.pressure,
    )
    _without_symmetry(base, remedy)
    structure = base.pw.pop("structure")  # with its U, where it has one
    base.pop("clean_workdir", None)
    builder.structure = structure if remedy.structure is None else load_node(remedy.structure)
    builder.base_relax = base
    # The plugin's first, coarse relaxation is not wanted: an earlier stage has done it.
    builder.pop("base_init_relax", None)
    builder.meta_convergence = Bool(bool(resolved(parameters)["meta_convergence"]) and task.cell)
    builder.clean_workdir = Bool(False)
    return builder


def eos(
    adapter: Any,
    prepared: Prepared,
    task: Any,
    parameters: QeParameters,
    codes: Mapping[str, AbstractCode],
    options: dict[str, Any],
    ranks: int,
    remedy: Remedy,
) -> Any:
    """Return a builder of :class:`matcompute_workflows.dft.pw_eos.PwEosWorkChain`."""
    from aiida.orm import Dict

    from matcompute_workflows.dft.pw_eos import PwEosWorkChain

    builder: Any = PwEosWorkChain.get_builder()
    calculation = "relax" if task.relax_positions else "scf"
    base = _base(prepared, calculation, parameters, codes, options, ranks, keep_bands=False)
    builder.structure = base.pw.pop("structure")
    base.pop("clean_workdir", None)
    builder.base = base
    builder.settings = Dict(task.model_dump(mode="json"))
    return builder


def bands(
    adapter: Any,
    prepared: Prepared,
    task: Any,
    parameters: QeParameters,
    codes: Mapping[str, AbstractCode],
    options: dict[str, Any],
    ranks: int,
    remedy: Remedy,
) -> Any:
    """Return a builder of :class:`matcompute_workflows.dft.pw_electronic.PwElectronicWorkChain`.

    None of its calculations with pw.x comes from AiiDA's cache: each goes on from the folder of the one before it, and
    the folders of what is in the cache are mostly gone.
    """
    from aiida.orm import Dict, Float

    from matcompute_workflows.dft.pw_electronic import PwElectronicWorkChain

    if not all(prepared.node.pbc):
        raise InputError("bands need a structure that is periodic in all three directions")
    values = resolved(parameters)
    scf = _base(prepared, "scf", parameters, codes, options, ranks, keep_bands=False)
    structure = scf.pw.pop("structure")  # with its U, where it has one
    scf.pop("clean_workdir", None)
    scf.pw.metadata.disable_cache = True
    same = Prepared(structure, prepared.moments)

    def base(calculation: str, **keywords: Any) -> Any:
        made = _base(same, calculation, parameters, codes, options, ranks, keep_bands=True)
        made.pw.pop("structure")
        made.pop("clean_workdir", None)
        given = made.pw.parameters.get_dict()
        # Empty bands count here, and are otherwise converged less.
        given["ELECTRONS"]["diago_full_acc"] = True
        given["SYSTEM"] |= keywords
        if calculation == "nscf":
            # Tetrahedra smear nothing.
            for name in ("smearing", "degauss"):
                given["SYSTEM"].pop(name, None)
        made.pw.parameters = Dict(given)
        made.pw.metadata.disable_cache = True
        return made

    builder: Any = PwElectronicWorkChain.get_builder()
    path = base("bands")
    for name in ("kpoints_distance", "kpoints_force_parity"):
        path.pop(name, None)
    builder.structure = structure
    builder.settings = Dict(task.model_dump(mode="json"))
    builder.bands.scf = scf
    builder.bands.bands = path
    builder.bands.bands_kpoints_distance = Float(values["path_spacing"])
    if "nbnd" not in path.pw.parameters.get_dict()["SYSTEM"]:
        builder.bands.nbands_factor = Float(values["bands_factor"])
    if task.dos:
        mesh = base("nscf", occupations="tetrahedra_opt")
        mesh.kpoints_distance = Float(values["kpoint_spacing"] * values["mesh_refinement"])
        builder.mesh = mesh
        builder.dos = {
            "code": codes[_DOS],
            # It only reads what the mesh has left.
            "settings": Dict({"PARENT_FOLDER_SYMLINK": True}),
            "metadata": {"options": {**options, "withmpi": ranks > 0}},
        }
    return builder


def _base(
    prepared: Prepared,
    calculation: str,
    parameters: QeParameters,
    codes: Mapping[str, AbstractCode],
    options: dict[str, Any],
    ranks: int,
    *,
    keep_bands: bool | None = None,
    **relaxation: Any,
) -> Any:
    """Return a builder of ``PwBaseWorkChain`` from the plugin's protocol and ours."""
    from aiida_quantumespresso.common.types import SpinType
    from aiida_quantumespresso.workflows.pw.base import PwBaseWorkChain

    from matcompute_workflows.dft.qe import pseudos_for

    structure = prepared.node
    u = u_values(parameters, {kind.symbol for kind in structure.kinds})
    card = bool(u) and _hubbard_card(codes[_PW])
    if card and not hasattr(structure, "hubbard"):
        structure = _with_hubbard(structure, u)
    symbols = sorted({kind.symbol for kind in structure.kinds})
    pseudos, cutoffs = pseudos_for(parameters, symbols)
    code = codes[_PW]
    overrides = pw_overrides(parameters, calculation, prepared, cutoffs, hubbard_card=card, **relaxation)
    overrides["pw"]["pseudos"] = {kind.name: pseudos[kind.symbol] for kind in structure.kinds}
    if keep_bands is False or (keep_bands is None and not parameters.bands):
        overrides["pw"]["settings"] = {"NO_BANDS": True}
    moments = _moments(prepared, parameters)
    builder: Any = PwBaseWorkChain.get_builder_from_protocol(
        code,
        structure,
        protocol=parameters.protocol,
        overrides=overrides,
        spin_type=SpinType.NONE if moments is None else SpinType.COLLINEAR,
        initial_magnetic_moments=moments,
        options={**options, "withmpi": ranks > 0},
    )
    if ranks > 1:
        from aiida.orm import Dict

        kpoints = irreducible(structure, float(resolved(parameters)["kpoint_spacing"]))
        builder.pw.parallelization = Dict({"npool": pools(ranks, kpoints)})
    return builder


def _moments(prepared: Prepared, parameters: QeParameters) -> dict[str, float] | None:
    """Return the starting moment of each kind; None: not spin-polarised."""
    if parameters.spin == "none":
        return None
    if prepared.moments is None and parameters.spin == "auto":
        return None
    given = prepared.moments or {}
    # A site that starts without any moment stays without: its kind gets a little one.
    return {kind.name: float(given.get(kind.name, 0.0)) or 0.1 for kind in prepared.node.kinds}


def _with_hubbard(structure: Any, u: Mapping[str, tuple[str, float]]) -> Any:
    """Return the structure with its U, as the plugin writes it since version 7.1 of the code."""
    from aiida.orm import Dict

    from matcompute_workflows.dft.functions import with_hubbard

    by_kind = {kind.name: list(u[kind.symbol]) for kind in structure.kinds if kind.symbol in u}
    return with_hubbard(structure, Dict(by_kind))


def _hubbard_card(code: AbstractCode) -> bool:
    """Tell whether DFT+U is a card of its own for this program: from version 7.1 on."""
    from packaging.version import InvalidVersion, Version

    text = str(code.base.extras.get("version", "") or "")
    try:
        return not text or Version(text) >= Version("7.1")
    except InvalidVersion:
        return True


def irreducible(structure: Any, spacing: float) -> int:
    """Return the number of k-points that symmetry leaves of the mesh of a spacing in 1/Å."""
    import spglib

    mesh = mesh_of(np.asarray(structure.cell), spacing, structure.pbc)
    kinds = {name: number for number, name in enumerate(structure.get_kind_names())}
    cell = np.asarray(structure.cell)
    positions = np.linalg.solve(cell.T, np.array([site.position for site in structure.sites]).T).T
    crystal: Any = (cell, positions, [kinds[site.kind_name] for site in structure.sites])
    found = spglib.get_ir_reciprocal_mesh(mesh, crystal, is_shift=[0, 0, 0])
    return 1 if found is None else len(np.unique(found[0]))


def _without_symmetry(base: Any, remedy: Remedy) -> None:
    """Have symmetry left alone where it did not hold: more k-points, and no error."""
    if remedy.no_symmetry:
        from aiida.orm import Dict

        parameters = base.pw.parameters.get_dict()
        parameters["SYSTEM"]["nosym"] = True
        base.pw.parameters = Dict(parameters)


def _continued(builder: Any, base: Any, remedy: Remedy) -> Any:
    """Let a calculation go on from the folder of the one that ran out of time."""
    if remedy.remote is not None:
        from aiida.orm import Dict, load_node

        parameters = base.pw.parameters.get_dict()
        parameters["CONTROL"]["restart_mode"] = "restart"
        base.pw.parameters = Dict(parameters)
        base.pw.parent_folder = load_node(remedy.remote)
    return builder

"""Inputs of pw.x as the plugin writes them from our builders: read from the files of a dry run, no program needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute.centres import RegisteredCentre
from matcompute.dataset import Status
from matcompute.errors import InputError
from matcompute.workspace import Workspace

from .processes import call, finished


@pytest.fixture
def family(workspace: object, write_upf: Callable[..., Path]) -> None:
    """Potentials without physics, of the right names and valences."""
    from aiida.orm import Group, QueryBuilder
    from aiida.plugins import GroupFactory

    from matcompute_workflows.dft.pseudos import install

    for group in QueryBuilder().append(GroupFactory("pseudo.family")).all(flat=True):
        Group.collection.delete(group.pk)
    for element, z, wfc in (("Si", 4, 30), ("Ni", 10, 35), ("O", 6, 40), ("Fe", 16, 50)):
        folder = write_upf(element, z=z, wfc=wfc, rho=8 * wfc)
    install(folder, name="paper", default=True)


@pytest.fixture
def code(workspace: object, centre: RegisteredCentre) -> Callable[..., Any]:
    """A code of some version."""
    from aiida.orm import InstalledCode

    def make(version: str) -> Any:
        made = InstalledCode(
            label=f"pw-{version}", computer=centre.computer, filepath_executable="/usr/bin/true"
        ).store()
        made.base.extras.set("version", version)
        return made

    return make


def _inputs(builder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the input file that the plugin would send."""
    from aiida.engine import run_get_node
    from aiida.orm import Float, KpointsData
    from aiida_quantumespresso.calculations.pw import PwCalculation

    base = builder.base_relax if "base_relax" in builder else builder.get("base", builder)
    inputs = dict(base.pw)
    inputs["structure"] = inputs.get("structure") or builder.structure
    mesh = KpointsData()
    mesh.set_cell_from_structure(inputs["structure"])
    mesh.set_kpoints_mesh_from_density(Float(base.kpoints_distance).value)
    inputs["kpoints"] = mesh
    metadata = dict(inputs.pop("metadata"))
    monkeypatch.chdir(tmp_path)
    _, node = run_get_node(
        PwCalculation, **inputs, metadata={**metadata, "dry_run": True, "store_provenance": False}
    )
    return (Path(node.dry_run_info["folder"]) / "aiida.in").read_text()


def _value(text: str, key: str) -> str:
    found = re.search(rf"^\s*{re.escape(key)} = (.*)$", text, re.MULTILINE)
    assert found is not None, f"{key} is not in\n{text}"
    return found.group(1).strip()


def _build(
    atoms: Atoms,
    kind: str,
    code: Any,
    *,
    task: dict[str, Any] | None = None,
    moments: dict[str, float] | None = None,
    kinds: list[str] | None = None,
    ranks: int = 0,
    remedy: Any = None,
    **parameters: Any,
) -> Any:
    from aiida.orm import StructureData

    from matcompute_workflows.dft.adapter import Prepared
    from matcompute_workflows.dft.qe import Qe

    structure = StructureData(cell=atoms.cell.array.tolist())
    for symbol, name, position in zip(
        atoms.get_chemical_symbols(), kinds or atoms.get_chemical_symbols(), atoms.positions, strict=True
    ):
        structure.append_atom(symbols=symbol, name=name, position=position.tolist())
    return Qe.builder(
        Prepared(structure.store(), moments),
        kind,
        Qe.task(kind).Parameters(**(task or {})),
        Qe.Parameters(protocol="fast", **parameters),
        codes={"quantumespresso.pw": code},
        options={"resources": {"num_machines": 1, "num_mpiprocs_per_machine": max(1, ranks)}},
        ranks=ranks,
        remedy=remedy,
    )


pytestmark = pytest.mark.usefixtures("family")


def test_a_static_calculation(code: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = _inputs(_build(bulk("Si"), "static", code("6.7")), tmp_path, monkeypatch)
    assert _value(text, "calculation") == "'scf'"
    assert float(_value(text, "ecutwfc").replace("d", "e")) == pytest.approx(30)
    assert float(_value(text, "ecutrho").replace("d", "e")) == pytest.approx(240)
    assert "nspin" not in text
    assert _value(text, "tstress") == ".true."
    assert re.search(r"K_POINTS automatic\n7 7 7 0 0 0", text), text


def test_a_relaxation_under_pressure(code: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = _build(bulk("Si"), "relax", code("6.7"), task={"pressure": 5.0, "fmax": 0.01, "steps": 9})
    text = _inputs(builder, tmp_path, monkeypatch)
    assert _value(text, "calculation") == "'vc-relax'"
    assert float(_value(text, "press").replace("d", "e")) == 50.0
    assert int(_value(text, "nstep")) == 9
    assert "base_init_relax" not in builder
    fixed = _build(bulk("Si"), "relax", code("6.8"), task={"cell": False})
    assert _value(_inputs(fixed, tmp_path, monkeypatch), "calculation") == "'relax'"


def test_moments_start_a_polarised_calculation(
    code: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = bulk("Fe", cubic=True)
    builder = _build(atoms, "static", code("6.7"), moments={"Fe": 2.4, "Fe1": -2.4}, kinds=["Fe", "Fe1"])
    text = _inputs(builder, tmp_path, monkeypatch)
    assert int(_value(text, "nspin")) == 2
    # A share of the valence electrons.
    assert float(_value(text, "starting_magnetization(1)").replace("d", "e")) == pytest.approx(2.4 / 16)
    assert float(_value(text, "starting_magnetization(2)").replace("d", "e")) == pytest.approx(-2.4 / 16)
    plain = _build(atoms, "static", code("6.8"), moments={"Fe": 2.4}, spin="none")
    assert "nspin" not in _inputs(plain, tmp_path, monkeypatch)
    asked = _build(bulk("Si"), "static", code("6.9"), spin="collinear")
    assert int(_value(_inputs(asked, tmp_path, monkeypatch), "nspin")) == 2


def test_u_is_written_as_the_version_reads_it(
    code: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = bulk("NiO", "rocksalt", a=4.19)
    moments = {"Ni": 1.6, "O": 0.0}
    old = _inputs(
        _build(atoms, "static", code("6.7"), moments=moments, hubbard="auto"), tmp_path, monkeypatch
    )
    assert _value(old, "lda_plus_u") == ".true."
    assert float(_value(old, "hubbard_u(1)").replace("d", "e")) == pytest.approx(6.2)
    assert "HUBBARD" not in old
    new = _inputs(
        _build(atoms, "static", code("7.3"), moments=moments, hubbard={"Ni": 5.5}), tmp_path, monkeypatch
    )
    assert "lda_plus_u" not in new
    assert re.search(r"HUBBARD.*\n\s*U\s+Ni-3d\s+5\.5", new), new


def test_ranks_are_divided_into_pools(code: Any) -> None:
    builder = _build(bulk("Si"), "static", code("6.7"), ranks=12)
    # 7 × 7 × 7 points are 20 by symmetry.
    assert builder.pw.parallelization.get_dict() == {"npool": 12}
    assert builder.pw.metadata.options.withmpi is True
    gamma = _build(bulk("Si"), "static", code("6.8"), ranks=12, kpoint_spacing=3.0)
    assert gamma.pw.parallelization.get_dict() == {"npool": 1}


def test_an_equation_of_state_keeps_no_bands(code: Any) -> None:
    builder = _build(bulk("Si"), "eos", code("6.7"), task={"points": 5})
    assert builder.base.pw.settings.get_dict() == {"NO_BANDS": True}
    assert builder.settings.get_dict()["points"] == 5


def test_a_restart_goes_on_from_the_folder(code: Any, centre: RegisteredCentre) -> None:
    from aiida.orm import RemoteData

    from matcompute_workflows.dft.adapter import Remedy

    remote = RemoteData(remote_path="/tmp/nothing", computer=centre.computer).store()
    builder = _build(bulk("Si"), "static", code("6.7"), remedy=Remedy(walltime=2.0, remote=remote.uuid))
    assert builder.pw.parent_folder.uuid == remote.uuid
    assert builder.pw.parameters["CONTROL"]["restart_mode"] == "restart"


def test_symmetry_that_broke_is_left_alone(code: Any) -> None:
    from matcompute_workflows.dft.adapter import Remedy

    builder = _build(bulk("Si"), "relax", code("6.7"), remedy=Remedy(no_symmetry=True))
    assert builder.base_relax.pw.parameters["SYSTEM"]["nosym"] is True
    assert not _build(bulk("Si"), "relax", code("6.7")).base_relax.pw.parameters["SYSTEM"].get("nosym")


def test_symmetry_that_broke_is_given_up_once(workspace: Workspace, centre: RegisteredCentre) -> None:
    from matcompute_workflows.dft.adapter import Remedy
    from matcompute_workflows.dft.qe import Qe

    job = call("PwCalculation", status=541, message="broke the symmetry", computer=centre.computer)
    process = finished("PwRelaxWorkChain", status=401, message="not this", calls=[("relax", job)])
    outcome = Qe.outcome(process, Remedy(walltime=2.0))
    assert outcome.status == Status.CRASHED
    assert outcome.message.startswith("pw.x: the symmetry it had found did not hold")
    assert outcome.again == Remedy(walltime=2.0, no_symmetry=True)
    assert Qe.outcome(process, outcome.again).again is None


def test_an_element_without_potential_is_named(code: Any) -> None:
    with pytest.raises(InputError, match="family 'paper' has none of Mg"):
        _build(bulk("MgO", "rocksalt", a=4.2), "static", code("6.7"))


def test_settings_name_every_potential() -> None:
    from matcompute_workflows.dft.qe import Qe

    said = Qe.settings(Qe.Parameters(protocol="stringent", hubbard="auto"), ["Ni", "O"])
    assert set(said["pseudopotentials"]) == {"Ni", "O"}
    assert all(len(item["sha256"]) == 64 for item in said["pseudopotentials"].values())
    assert said["cutoff_wfc_eV"] == pytest.approx(1.3 * 40 * 13.605693, rel=1e-6)
    assert said["hubbard_u_eV"] == {"Ni": 6.2}
    assert said["pseudo_family"] == "paper"
    assert np.isfinite(said["cutoff_rho_eV"])

"""Structures from shards and shards from results, by the calcfunctions: nothing is lost on the way, links are whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute.dataset import Dataset, DatasetWriter, Metadata, PropertyInfo, Quality, Status
from matcompute_kernels import Batch

pytestmark = pytest.mark.usefixtures("workspace")


def _shard(write_shard: Callable[..., Path], atoms: list[Atoms], name: str = "a.h5") -> Any:
    from matcompute_workflows import ShardData

    return ShardData(write_shard(atoms, name)).store()


def _rows(pairs: list[tuple[int, int]]) -> Any:
    from aiida.orm import ArrayData

    rows = ArrayData()
    rows.set_array("rows", np.array(pairs, dtype=np.int64))
    return rows


@pytest.fixture
def magnetic_shard(tmp_path: Path) -> Any:
    """An antiferromagnet and a crystal without moments, as a stage with ``magmoms`` leaves them."""
    from matcompute_workflows import ShardData

    atoms = [bulk("NiO", "rocksalt", a=4.2).repeat((1, 1, 2)), bulk("Si")]
    path = tmp_path / "magnetic.h5"
    with DatasetWriter(path, Metadata(title="magnetic")) as writer:
        writer.declare(PropertyInfo("magmom", "mu_B", per="site"))
        writer.append(Batch.from_atoms(atoms), site_results={"magmom": [1.6, 0.0, -1.6, 0.0, 0.01, -0.01]})
    return ShardData(path).store()


def test_structures_are_those_of_the_shard(write_shard: Callable[..., Path]) -> None:
    from aiida.orm import Dict

    from matcompute_workflows.dft.functions import prepare_structures

    first = _shard(write_shard, [bulk("Si"), bulk("SiC", "zincblende", a=4.38)])
    second = _shard(write_shard, [bulk("Fe", cubic=True)], "b.h5")
    made, node = prepare_structures.run_get_node(
        settings=Dict({"magmoms": "elements"}),
        rows=_rows([(0, 1), (1, 0), (0, 0)]),
        parent_0=first,
        parent_1=second,
    )
    with first.dataset() as a, second.dataset() as b:
        wanted = [a.atoms(1), b.atoms(0), a.atoms(0)]
    for k, atoms in enumerate(wanted):
        found = made[f"s_{k}"].get_ase()
        assert found.get_chemical_symbols() == atoms.get_chemical_symbols()
        np.testing.assert_array_equal(found.positions, atoms.positions)
        np.testing.assert_array_equal(found.cell.array, atoms.cell.array)
    assert made["moments"].get_dict() == {"s_1": {"Fe": 3.0}}
    assert {link.node.uuid for link in node.base.links.get_incoming().all()} >= {first.uuid, second.uuid}


def test_moments_come_from_the_stage_before(magnetic_shard: Any) -> None:
    from aiida.orm import Dict

    from matcompute_workflows.dft.functions import prepare_structures

    made = prepare_structures(Dict({"magmoms": "auto"}), _rows([(0, 0), (0, 1)]), parent_0=magnetic_shard)
    assert made["s_0"].get_kind_names() == ["Ni", "O", "Ni1"]
    assert made["moments"].get_dict() == {"s_0": pytest.approx({"Ni": 1.6, "Ni1": -1.6, "O": 0.0})}
    none = prepare_structures(Dict({"magmoms": "none"}), _rows([(0, 0)]), parent_0=magnetic_shard)
    assert none["moments"].get_dict() == {}


def _task(kind: str, **parameters: Any) -> Any:
    from aiida.orm import Dict

    from matcompute_workflows.dft.qe import Qe

    model = Qe.task(kind).Parameters(**parameters)
    return Dict(
        {
            "task": kind,
            "parameters": model.model_dump(mode="json"),
            "calculator": {"name": "qe", "parameters": {"protocol": "fast"}},
            "stage": f"{kind}_dft",
            "settings": {"functional": "PBE", "pseudopotentials": {"Si": {"sha256": "ab"}}},
        }
    )


def _outputs(atoms: Atoms, *, steps: int = 1, moments: bool = False) -> dict[str, Any]:
    """Output nodes as the plugin's parser makes them, made by a process of the graph."""
    from aiida.orm import Dict, StructureData, TrajectoryData

    n = len(atoms)
    rng = np.random.default_rng(n)
    trajectory = TrajectoryData()
    cells = np.array([atoms.cell.array * (1 + 0.01 * k) for k in range(steps)])
    positions = np.array([atoms.positions * (1 + 0.01 * k) for k in range(steps)])
    trajectory.set_trajectory(symbols=atoms.get_chemical_symbols(), positions=positions, cells=cells)
    trajectory.set_array("forces", rng.normal(size=(steps, n, 3)))
    trajectory.set_array("stress", np.array([np.diag([1.0, 2.0, 3.0]) + 0.5] * steps))
    if moments:
        trajectory.set_array("atomic_magnetic_moments", rng.normal(size=(steps, n)))
    final = atoms.copy()
    final.set_cell(cells[-1])
    final.positions = positions[-1]
    parameters = {
        "energy": -100.0 * n,
        "volume": float(final.get_volume()),
        "creator_version": "6.7MaX",
        "total_magnetization": 1.5,
    }
    return {
        "output_parameters": Dict(parameters).store(),
        "output_trajectory": trajectory.store(),
        "output_structure": StructureData(ase=final).store(),
    }


def test_results_become_rows_of_a_shard(write_shard: Callable[..., Path], tmp_path: Path) -> None:
    """One that went well, one that did not converge, one that was never submitted, in the order that was asked for."""
    from aiida.orm import Dict

    from matcompute_workflows.dft.functions import gather_structures

    atoms = [bulk("Si"), bulk("C"), bulk("MgO", "rocksalt", a=4.2)]
    shard = _shard(write_shard, atoms)
    good, bad = _outputs(atoms[1], steps=3, moments=True), _outputs(atoms[0])
    bad.pop("output_structure")
    outcomes = [
        {"status": int(Status.OK), "message": "", "attempt": 1, "core_s": 12.5},
        {"status": int(Status.NOT_CONVERGED), "message": "the SCF did not", "attempt": 2, "core_s": 3.0},
        {"status": int(Status.UNSUPPORTED_SPECIES), "message": "no Mg", "attempt": 1, "core_s": 0.0},
    ]
    made, node = gather_structures.run_get_node(
        task=_task("relax", magmoms=True),
        rows=_rows([(0, 1), (0, 0), (0, 2)]),
        outcomes=Dict({"outcomes": outcomes}),
        parent_0=shard,
        **{f"p0_{name}": item for name, item in good.items()},
        **{f"p1_{name}": item for name, item in bad.items()},
    )
    path = made.save_as(tmp_path / "results.h5")
    with shard.dataset() as before, Dataset(path) as data:
        assert data.ids.tolist() == [before.ids[1], before.ids[0], before.ids[2]]
        assert data.status("energy").tolist() == [Status.OK, Status.NOT_CONVERGED, Status.UNSUPPORTED_SPECIES]
        np.testing.assert_array_equal(data.column("energy"), [-200.0, -200.0, np.nan])
        np.testing.assert_allclose(data.column("stress")[0], [-1.5, -2.5, -3.5, -0.5, -0.5, -0.5])
        assert data.column("n_steps").tolist() == [2, 0, -1]
        assert data.column("cpu_time").tolist() == [12.5, 3.0, 0.0]
        # The final structure is the code's; that of a structure without one is the one that came in.
        np.testing.assert_allclose(data.batch().cell[0], atoms[1].cell.array * 1.02)
        np.testing.assert_allclose(data.batch().cell[2], atoms[2].cell.array)
        assert data.column("volume_per_atom")[0] == pytest.approx(atoms[1].get_volume() * 1.02**3 / 2)
        assert data.column("initial_volume_per_atom")[0] == pytest.approx(atoms[1].get_volume() / 2)
        # Moments of the first; the second calculation was not spin-polarised.
        assert data.status("magmom").tolist() == [Status.OK, Status.NOT_CONVERGED, Status.UNSUPPORTED_SPECIES]
        np.testing.assert_array_equal(
            data.column("forces", [0]), good["output_trajectory"].get_array("forces")[-1]
        )
        quality = data.entry_column("quality").astype("u4")
        assert quality[0] & Quality.RELAXED
        assert quality[0] & Quality.CONVERGED
        assert quality[1] & Quality.FAILED
        assert data.entry_column("message").tolist() == ["", "the SCF did not", "no Mg"]
        (method,) = data.methods
        assert (method.name, method.code_version, method.model) == ("qe", "6.7MaX", "PBE")
        assert method.parameters["pseudopotentials"] == {"Si": {"sha256": "ab"}}
    linked = {link.node.uuid for link in node.base.links.get_incoming().all()}
    assert {item.uuid for item in (*good.values(), *bad.values())} <= linked
    assert made.stage == "relax_dft"


def test_a_curve_that_does_not_fit_keeps_its_energies(
    write_shard: Callable[..., Path], tmp_path: Path
) -> None:
    from aiida.orm import Dict

    from matcompute_workflows.dft.functions import gather_structures
    from matcompute_workflows.dft.pw_eos import fit_equation_of_state

    shard = _shard(write_shard, [bulk("Si")])
    volumes = np.linspace(38.0, 42.0, 5)
    points = {
        f"point_{k}": Dict(
            {"number_of_atoms": 2, "volume": v, "energy": -10.0 - 0.1 * v, "creator_version": "7"}
        )
        for k, v in enumerate(volumes)
    }
    fit = fit_equation_of_state(Dict({"max_rms_error": 0.01}), **points)
    said = fit.get_dict()
    assert said["status"] == Status.FIT_FAILED
    assert said["move"] == pytest.approx(42 / 40)
    outcome = {"status": said["status"], "message": said["message"], "attempt": 1, "core_s": 1.0}
    made = gather_structures(
        _task("eos", points=5), _rows([(0, 0)]), Dict({"outcomes": [outcome]}), parent_0=shard, p0_eos=fit
    )
    with Dataset(made.save_as(tmp_path / "eos.h5")) as data:
        assert data.status("bulk_modulus").tolist() == [Status.FIT_FAILED]
        assert data.status("eos_energy").tolist() == [Status.OK]
        np.testing.assert_allclose(data.column("eos_volume")[0], volumes / 2)
        # Who made a value is said value by value.
        row = int(data.process("eos_energy")[0])
        assert data.provenance[row].uuid == fit.creator.uuid


def test_the_fit_is_the_node_programs() -> None:
    """A Birch–Murnaghan curve gives its own parameters back."""
    from aiida.orm import Dict

    from matcompute_workflows.dft.pw_eos import fit_equation_of_state, strained_structures

    v0, b0, b1 = 20.0, 90.0 / 160.2176634, 4.3
    volumes = 20.3 * (1 + np.linspace(-0.06, 0.06, 7))
    eta = (v0 / volumes) ** (2 / 3)
    energies = 9 * v0 * b0 / 16 * ((eta - 1) ** 3 * b1 + (eta - 1) ** 2 * (6 - 4 * eta))
    points = {
        f"point_{k}": Dict({"number_of_atoms": 2, "volume": 2 * v, "energy": 2 * e})
        for k, (v, e) in enumerate(zip(volumes, energies, strict=True))
    }
    values = fit_equation_of_state(Dict({"max_rms_error": 0.01}), **points)["values"]
    assert values["equilibrium_volume"] == pytest.approx(v0, rel=1e-8)
    assert values["bulk_modulus"] == pytest.approx(90.0, rel=1e-7)
    assert values["bulk_modulus_derivative"] == pytest.approx(b1, rel=1e-6)

    from aiida.orm import List, StructureData

    structure = StructureData(ase=bulk("SiC", "zincblende", a=4.38))
    strained = strained_structures(structure, List([0.94, 1.0, 1.06]))
    for k, ratio in enumerate((0.94, 1.0, 1.06)):
        found = strained[f"s_{k}"].get_ase()
        assert found.get_volume() == pytest.approx(ratio * structure.get_ase().get_volume())
        np.testing.assert_allclose(
            found.get_scaled_positions(), structure.get_ase().get_scaled_positions(), atol=1e-12
        )

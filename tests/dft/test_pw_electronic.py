"""Bands and density of states: real pw.x and dos.x on silicon, and the steps of the chain on made-up eigenvalues."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from aiida.orm import BandsData, Dict, InstalledCode, RemoteData, StructureData, XyData
from ase import Atoms
from ase.build import bulk

from matcompute.dataset import Status
from matcompute.errors import InputError
from matcompute_workflows.dft import Prepared
from matcompute_workflows.dft.jobs import clean_folders, job_options_for
from matcompute_workflows.dft.pw_electronic import PwElectronicWorkChain, bands_needed, electronic_structure
from matcompute_workflows.dft.qe import Qe
from matcompute_workflows.dft.qe_outcome import jobs
from matcompute_workflows.dft.tasks import BandsParameters
from tests.dft.processes import call, finished


@pytest.fixture(scope="module")
def build(workspace, centre):
    """Make a builder of the task bands at the protocol fast."""
    from matcompute_workflows.dft.pseudos import install

    if not all(shutil.which(program) for program in ("pw.x", "dos.x")):
        pytest.skip("Debian's quantum-espresso is not installed")
    install("debian-qe", name="bands-test")
    found = {code.default_calc_job_plugin: code for code in centre.codes.values()}

    def make(atoms, task, *, moments=None, codes=None, **own):
        parameters = Qe.Parameters(protocol="fast", pseudo_family="bands-test", **own)
        options = job_options_for(centre, partition=None, account=None, ranks=0)
        prepared = Prepared(StructureData(ase=atoms), moments)
        return Qe.builder(
            prepared, "bands", task, parameters, codes={**found, **(codes or {})}, options=options
        )

    return make


@pytest.mark.apt
@pytest.mark.slow
def test_silicon(build, wait_for):
    """One chain gives gap, Fermi level and density of states, the last of the cell that was given.

    Its first calculation is in the cache already, without the folder from which the others go on.
    """
    from aiida.engine import submit

    # From below the valence bands to where the bands of the path end.
    task = BandsParameters(window=(-13.0, 2.5), points=156)
    builder = build(bulk("Si", a=5.47, cubic=True), task)
    earlier = _scf_whose_folder_is_gone(builder, wait_for)
    process = submit(builder)
    wait_for(process, timeout=500)
    outcome = Qe.outcome(process)
    assert outcome.status == Status.OK, outcome.message

    # The same calculation is in the cache, but nothing can go on from it.
    made = {job.base.caching.get_hash(): job for job in jobs(process)}
    assert not made[earlier.base.caching.get_hash()].base.caching.is_created_from_cache
    assert len(process.outputs.primitive_structure.sites) == 2
    assert process.outputs.band_structure.labels, "the path stays in AiiDA, with its labels"
    nodes = Qe.outputs(process)
    assert set(nodes) == {"electronic"}
    assert Qe.code_version(nodes).startswith("6.7")
    found = Qe.read("bands", task, nodes, 8)
    values = found.values
    assert values["band_gap"] == pytest.approx(0.62, abs=0.05), "PBE; Γ to near X"
    assert values["gap_is_direct"] == 0
    energy, dos = values["dos_energy"], values["dos"]
    assert energy.shape == dos.shape == (156,)
    assert energy[[0, -1]] == pytest.approx([-13.0, 2.5])
    # 32 electrons in the cubic cell; 0.1 is what tetrahedra on this mesh and a step of 0.1 eV leave.
    assert np.trapezoid(dos[energy < 0], energy[energy < 0]) == pytest.approx(32.0, abs=0.1)
    assert dos[np.abs(energy) < 0.15].max() < 0.05, "nothing in the gap"
    assert found.makers[""] == process.outputs.electronic.creator.uuid


def _scf_whose_folder_is_gone(builder, wait_for):
    """Run the first calculation of a chain, as another stage might, and remove its folder; return its job."""
    from aiida.engine import submit
    from aiida_quantumespresso.calculations.functions.seekpath_structure_analysis import (
        seekpath_structure_analysis,
    )
    from aiida_quantumespresso.workflows.pw.base import PwBaseWorkChain

    chain = PwBaseWorkChain.get_builder()
    chain._merge(builder.bands.scf._inputs(prune=True))
    chain.pw.structure = seekpath_structure_analysis(builder.structure)["primitive_structure"]
    chain.pw.metadata.disable_cache = False
    process = submit(chain)
    wait_for(process, timeout=300)
    (job,) = jobs(process)
    assert job.is_finished_ok
    assert job.base.caching.is_valid_cache
    assert clean_folders([process.uuid]) == 1
    return job


# ------------------------------------------------------------------ without pw.x
@pytest.mark.apt
def test_all_calculations_are_of_one_structure_and_one_method(build, centre):
    """Moments and U go to all three calculations; the mesh is finer, and smears nothing."""
    newer = InstalledCode(
        label="pw-bands", computer=centre.computer, filepath_executable="/bin/false"
    ).store()
    newer.base.extras.set("version", "7.3")
    builder = build(
        bulk("NiO", "rocksalt", a=4.19),
        BandsParameters(),
        moments={"Ni": 1.6, "O": 0.0},
        hubbard="auto",
        codes={"quantumespresso.pw": newer},
    )
    assert [p.value for p in builder.structure.hubbard.parameters] == [6.2]
    parts = {"scf": builder.bands.scf, "bands": builder.bands.bands, "nscf": builder.mesh}
    for name, part in parts.items():
        given = part.pw.parameters.get_dict()
        assert given["CONTROL"]["calculation"] == name
        assert given["SYSTEM"]["nspin"] == 2
        assert part.pw.metadata.disable_cache is True
        assert given["SYSTEM"]["occupations"] == ("tetrahedra_opt" if name == "nscf" else "smearing")
    assert "degauss" not in builder.mesh.pw.parameters["SYSTEM"]
    assert builder.mesh.kpoints_distance.value == pytest.approx(0.67 * 0.30)
    alone = build(bulk("Si"), BandsParameters(dos=False))._inputs(prune=True)
    assert not alone.keys() & {"mesh", "dos"}
    assert PwElectronicWorkChain.spec().inputs.validate(alone) is None
    with pytest.raises(InputError, match="periodic in all three directions"):
        build(Atoms("Si", cell=[5, 5, 5], pbc=[True, True, False]), BandsParameters())


def _bands(levels):
    """Eigenvalues f8[k-points, bands] or f8[2, k-points, bands] as BandsData."""
    node = BandsData()
    node.set_kpoints(np.linspace(0, 0.5, levels.shape[-2])[:, None] * [[1.0, 0, 0]])
    node.set_bands(levels, units="eV")
    return node


def _chain(*centres, points=11):
    k = np.linspace(0, np.pi, points)
    return np.stack([c + np.cos(k) / 2 for c in centres], axis=1)


def _scf(electrons, fermi):
    return Dict({"number_of_electrons": electrons, "fermi_energy": fermi, "creator_version": "7.4"})


def test_a_metal_has_no_gap_and_its_own_fermi_level(workspace):
    silver = StructureData(ase=bulk("Ag"))
    settings = Dict({"dos": False, "window": [-1, 1], "points": 11})
    path = _bands(_chain(0.0, 0.8, 4.0))
    made = electronic_structure(settings, scf=_scf(2.0, 0.4), path=path, structure=silver, primitive=silver)
    assert made.get_dict() == {
        "status": Status.OK,
        "message": "",
        "values": {"band_gap": 0.0, "gap_is_direct": -1, "fermi_energy": 0.4},
        "code_version": "7.4",
    }


def test_both_spins_and_the_cell_of_the_entry(workspace):
    """The density of states is the sum of both spins, scaled from the primitive cell; the mesh narrows the gap."""
    primitive, cubic = (
        StructureData(ase=bulk("NaCl", "rocksalt", a=5.6)),
        bulk("NaCl", "rocksalt", 5.6, cubic=True),
    )
    dos = XyData()
    dos.set_x(np.linspace(0, 4, 5), "dos_energy", "eV")
    curves = {"integrated_dos": np.ones(5), "dos_spin_up": np.full(5, 1.0), "dos_spin_down": np.full(5, 0.5)}
    dos.set_y(list(curves.values()), list(curves), ["states"] * 3)
    two = np.stack([_chain(0.0, 3.0, 9.0), _chain(0.2, 3.0, 9.0)])
    made = electronic_structure(
        Dict({"dos": True, "window": [-2, 2], "points": 5}),
        scf=_scf(2.0, 1.0),
        path=_bands(two[:, :3]),
        structure=StructureData(ase=cubic),
        primitive=primitive,
        mesh=_bands(two),
        mesh_parameters=_scf(2.0, 0.9),
        dos=dos,
        dos_parameters=Dict({"DOS": {"emin": -0.4, "emax": 4.0, "deltae": 1.0}}),
    ).get_dict()["values"]
    assert made["band_gap"] == pytest.approx(2.5 - 0.7)
    assert made["fermi_energy"] == pytest.approx(1.6), "the middle of the gap, not the program's 0.9"
    assert made["dos_energy"] == pytest.approx([-2, -1, 0, 1, 2])
    assert made["dos"] == pytest.approx([6.0] * 5)


def test_bands_needed():
    levels = _chain(*np.arange(0.0, 8.0))[None]
    assert bands_needed(levels, 6.0) == 8, "complete up to 6.5"
    assert 10 <= bands_needed(levels, 8.0) <= 13
    deep = np.concatenate([levels - 300.0, levels], axis=2)
    assert bands_needed(deep, 8.0) <= 22, "deep levels say nothing of those above"


@pytest.mark.apt
def test_a_window_that_the_bands_never_reach_ends_with_that_cause(build, centre):
    """The mesh is computed again with more bands, at most three times."""
    from aiida.engine.utils import instantiate_process
    from aiida.manage import get_manager

    builder = build(bulk("Si"), BandsParameters(window=(-5.0, 30.0)))
    builder.metadata.store_provenance = False
    chain = instantiate_process(get_manager().get_runner(), builder)
    few = _bands(_chain(0.0, 3.0, 6.0))
    folder = RemoteData(computer=centre.computer, remote_path="/nowhere").store()
    chain.ctx.bands = finished(
        "PwBandsWorkChain",
        {
            "primitive_structure": StructureData(ase=bulk("Si")),
            "band_structure": few,
            "scf_parameters": _scf(2, 1.0),
        },
    )
    chain.ctx.structure, chain.ctx.density = chain.ctx.bands.outputs.primitive_structure, folder
    chain.ctx.mesh, chain.ctx.meshes = None, 0
    assert chain._look(few, chain.ctx.bands.outputs.scf_parameters) is None
    assert chain.ctx.fermi == pytest.approx(1.5), "the middle of the gap"
    wanted = [chain.ctx.bands_wanted]
    assert wanted[0] > 3
    code = None
    for number in (1, 2, 3):
        assert chain.should_run_mesh()
        chain.ctx.meshes = number
        outputs = {
            "output_band": _bands(_chain(0.0, *(3.0 + np.arange(number)))),
            "output_parameters": _scf(2, 1.0),
        }
        chain.ctx.mesh = finished("PwBaseWorkChain", outputs)
        code = chain.inspect_mesh()
        assert (code is None) == (number < 3)
    assert code.status == 410
    assert "4 bands do not reach to the upper end of the window" in code.message


@pytest.mark.parametrize(
    ("status", "expected", "text"),
    [
        (312, Status.CRASHED, "dos.x ended in the middle of its output"),
        (330, Status.CRASHED, "dos.x: The dos file could not be read"),
        (120, Status.TIMED_OUT, "dos.x ran out of its walltime"),
    ],
)
def test_a_failed_part_gives_one_cause(workspace, centre, status, expected, text):
    message = "The dos file could not be read" if status == 330 else "other"
    job = call("DosCalculation", status=status, message=message, computer=centre.computer)
    process = finished("PwElectronicWorkChain", status=402, message="not this", calls=[("dos", job)])
    outcome = Qe.outcome(process)
    assert outcome.status == expected
    assert outcome.message.startswith(text)


def test_a_part_that_no_job_has_failed_at_is_told_in_its_own_words(workspace):
    process = finished("PwElectronicWorkChain", status=410, message="4 bands do not reach")
    assert (Qe.outcome(process).status, Qe.outcome(process).message) == (
        Status.CRASHED,
        "4 bands do not reach",
    )

"""VASP without VASP: inputs by AiiDA's dry run with made-up potentials, results from nodes as the plugin makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida.orm import Dict, InstalledCode, StructureData
from pydantic import ValidationError

from matcompute.campaign.check import static_problems, structure_problems
from matcompute.campaign.model import Campaign
from matcompute.dataset import Status
from matcompute.errors import InputError
from matcompute_workflows.dft import Prepared
from matcompute_workflows.dft.adapter import Remedy
from matcompute_workflows.dft.tasks import RelaxParameters, StaticParameters
from matcompute_workflows.dft.vasp import Vasp
from matcompute_workflows.dft.vasp_parameters import parallel
from tests.dft.processes import call, finished

#: What a POTCAR has that is read: no physics, and nothing of a licensed file.
POTCAR = """\
  PAW_{xc} {name} 01Jan2000
   1.00000000000000
 parameters from PSCTR are:
   VRHFIN ={symbol}: made up
   LEXCH  = PE
   EATOM  =     1.0000 eV,    1.0000 Ry

   TITEL  = PAW_{xc} {name} 01Jan2000
   POMASS =   10.000; ZVAL   =    1.000    mass and valenz
   ENMAX  =  {enmax:.3f}; ENMIN  =  200.000 eV

END of PSCTR-controll parameters
  End of Dataset
"""
FAMILY = {
    "Ni_pv": ("Ni", 367.986),
    "O": ("O", 400.0),
    "Li_sv": ("Li", 499.034),
    "Li": ("Li", 140.0),
    "Ce": ("Ce", 273.0),
}
OPTIONS = {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 6}, "max_wallclock_seconds": 3600}


@pytest.fixture(scope="module")
def upload(workspace, tmp_path_factory) -> Callable[..., str]:
    """Upload made-up potentials as a family, as a user does with the real ones."""
    from aiida_vasp.data.potcar import PotcarData

    def make(name: str, what: dict[str, tuple[str, float]], xc: str = "PBE") -> str:
        folder = tmp_path_factory.mktemp("potentials") / name
        for potential, (symbol, enmax) in what.items():
            path = folder / potential / "POTCAR"
            path.parent.mkdir(parents=True)
            path.write_text(POTCAR.format(name=potential, symbol=symbol, enmax=enmax, xc=xc))
        PotcarData.upload_potcar_family(str(folder), name, "made up", stop_if_existing=False)
        return name

    return make


@pytest.fixture(scope="module")
def family(upload) -> str:
    return upload("made-up", FAMILY)


@pytest.fixture(scope="module")
def code(centre) -> InstalledCode:
    """A program that is not VASP: nothing runs it."""
    return InstalledCode(
        label="vasp-test",
        computer=centre.computer,
        filepath_executable="/bin/false",
        default_calc_job_plugin="vasp.vasp",
    ).store()


@pytest.fixture
def build(family, code):
    def make(prepared, kind="static", task=None, *, ranks=0, remedy=None, **own):
        parameters = Vasp.Parameters(**{"potential_family": family, **own})
        chosen = Vasp.task(kind).Parameters() if task is None else task
        codes = {"vasp.vasp": code}
        return Vasp.builder(
            prepared, kind, chosen, parameters, codes=codes, options=OPTIONS, ranks=ranks, remedy=remedy
        )

    return make


def nickel_oxide(order=("Ni", "Ni1", "O", "O"), moments=True) -> Prepared:
    """Antiferromagnetic planes: two kinds of nickel."""
    structure = StructureData(cell=[[4.17, 0, 0], [0, 4.17, 0], [0, 0, 4.17]])
    places = {"Ni": [(0, 0, 0)], "Ni1": [(2.085, 2.085, 0)], "O": [(2.085, 0, 0), (0, 2.085, 0)]}
    for kind in order:
        structure.append_atom(position=places[kind].pop(0), symbols=kind.rstrip("1"), name=kind)
    return Prepared(structure, {"Ni": 2.0, "Ni1": -2.0, "O": 0.0} if moments else None)


class Submitted(Exception):
    """What a work chain was about to submit."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        self.inputs = inputs


def submitted(process: Any, step: str) -> dict[str, Any]:
    """Run a step of a work chain up to where it submits something, and return the inputs of that."""

    def submit(_: Any, **inputs: Any) -> None:
        raise Submitted(inputs)

    process.submit = submit
    with pytest.raises(Submitted) as caught:
        getattr(process, step)()
    return caught.value.inputs


def instance(what: Any, **inputs: Any) -> Any:
    from aiida.engine.utils import instantiate_process
    from aiida.manage import get_manager

    return instantiate_process(get_manager().get_runner(), what, **inputs)


@pytest.fixture
def dry_run(tmp_path, monkeypatch) -> Callable[[Any], dict[str, str]]:
    """Let the plugin's own chain turn inputs into files, and return their contents."""
    from aiida.engine import run_get_node
    from aiida.plugins import CalculationFactory

    monkeypatch.chdir(tmp_path)

    def files(inputs: Any) -> dict[str, str]:
        if isinstance(inputs, dict):
            from aiida.plugins import WorkflowFactory

            inputs = {**inputs, "metadata": {"store_provenance": False}}
            chain = instance(WorkflowFactory("vasp.v2.vasp"), **inputs)
        else:
            inputs.metadata.store_provenance = False
            chain = instance(inputs)
        chain.setup()
        assert chain.init_inputs() is None
        chain.prepare_inputs()
        job = submitted(chain, "run_process")
        job["metadata"] = {**job["metadata"], "dry_run": True, "store_provenance": False}
        _, node = run_get_node(CalculationFactory("vasp.vasp"), **job)
        folder = Path(node.dry_run_info["folder"])
        return {
            name: (folder / name).read_text()
            for name in ("INCAR", "KPOINTS", "POSCAR", "POTCAR", "_aiidasubmit.sh")
        }

    return files


def tags(text: str) -> dict[str, str]:
    return dict(line.split(" = ", 1) for line in text.splitlines() if line)


def titles(text: str) -> list[str]:
    return [line.split()[3] for line in text.splitlines() if "TITEL" in line]


# ------------------------------------------------------------------ inputs
def test_static_files(build, dry_run):
    """All four files of a calculation that is neither magnetic nor parallel."""
    found = dry_run(build(nickel_oxide(moments=False)))
    assert tags(found["INCAR"]) == {
        "ALGO": "Normal",
        "EDIFF": "4e-06",
        "ENCUT": "520.0",
        "GGA": "PE",
        "ISMEAR": "0",
        "LASPH": ".TRUE.",
        "LCHARG": ".FALSE.",
        "LREAL": ".FALSE.",
        "LWAVE": ".TRUE.",
        "NELM": "100",
        "PREC": "Accurate",
        "SIGMA": "0.05",
    }
    lines = found["KPOINTS"].split("\n")
    # 2π / (4.17 · 0.15) = 10.04: eleven points.
    assert (lines[1].strip(), lines[2], lines[3].split()) == ("0", "Gamma", ["11", "11", "11"])
    assert [float(x) for x in lines[4].split()] == [0, 0, 0]
    poscar = found["POSCAR"].split("\n")
    assert [float(x) for x in poscar[2].split()] == [4.17, 0, 0]
    assert (poscar[5].split(), poscar[6].split()) == (["Ni", "Ni1", "O"], ["1", "1", "2"])
    assert [float(x) for x in poscar[9].split()] == pytest.approx([0.5, 0.5, 0.0])
    assert titles(found["POTCAR"]) == ["Ni_pv", "Ni_pv", "O"], "one a group of sites, in their order"
    assert "mpi" not in found["_aiidasubmit.sh"]


def test_moments_and_u_follow_the_order_of_the_sites(build, dry_run):
    """Kinds need not come in blocks: POSCAR, POTCAR, MAGMOM and LDAU keep the order of the structure."""
    prepared = nickel_oxide(order=("Ni", "O", "Ni1", "O"))
    found = dry_run(
        build(prepared, hubbard="auto", ranks=6, protocol="fast", functional="PBEsol", degauss=0.2)
    )
    incar = tags(found["INCAR"])
    assert (incar["ISPIN"], incar["MAGMOM"], incar["LORBIT"]) == ("2", "2.0 0.1 -2.0 0.1", "11")
    poscar = found["POSCAR"].split("\n")
    assert (poscar[5].split(), poscar[6].split()) == (["Ni", "O", "Ni1", "O"], ["1", "1", "1", "1"])
    assert titles(found["POTCAR"]) == ["Ni_pv", "O", "Ni_pv", "O"]
    assert (incar["LDAUU"], incar["LDAUL"]) == ("6.2 0.0 6.2 0.0", "2 -1 2 -1")
    assert (incar["LDAU"], incar["LDAUTYPE"], incar["LMAXMIX"]) == (".TRUE.", "2", "4")
    assert (incar["GGA"], incar["ENCUT"], incar["SIGMA"], incar["EDIFF"]) == ("PS", "400.0", "0.2", "4e-05")
    assert (incar["KPAR"], incar["NCORE"]) == ("6", "1")
    assert "'6' '/bin/false'" in found["_aiidasubmit.sh"]


def test_relaxation(build, dry_run):
    """The plugin's relaxation under pressure, and the static calculation in the final cell without it."""
    builder = build(nickel_oxide(), "relax", RelaxParameters(pressure=2.0, steps=33), hubbard={"Ni": 5.0})
    builder.metadata.store_provenance = False
    chain = instance(builder)
    chain.initialize()
    first = submitted(chain, "run_relax")
    incar = tags(dry_run(first)["INCAR"])
    wanted = {
        "IBRION": "2",
        "ISIF": "3",
        "NSW": "33",
        "EDIFFG": "-0.02",
        "PSTRESS": "20.0",
        "LDAUU": "5.0 5.0 0.0",
    }
    assert {name: incar[name] for name in wanted} == wanted

    # VASP's output knows elements only: the moments are those of the sites all the same.
    relaxed = StructureData(cell=nickel_oxide().node.cell)
    for site in nickel_oxide().node.sites:
        relaxed.append_atom(position=site.position, symbols=site.kind_name.rstrip("1"))
    chain.ctx.current_structure = relaxed
    again = dry_run(submitted(chain, "run_static_calculation"))
    incar = tags(again["INCAR"])
    assert (incar["MAGMOM"], incar["LDAUU"], incar["PSTRESS"]) == ("2.0 -2.0 0.1 0.1", "5.0 0.0", "0.0")
    assert not {"NSW", "IBRION"} & set(incar)
    assert titles(again["POTCAR"]) == ["Ni_pv", "O"]


def test_relaxation_of_positions_only(build, dry_run):
    builder = build(
        nickel_oxide(), "relax", RelaxParameters(cell=False, fmax=0.01, pressure=2.0), protocol="fast"
    )
    builder.metadata.store_provenance = False
    chain = instance(builder)
    chain.initialize()
    incar = tags(dry_run(submitted(chain, "run_relax"))["INCAR"])
    assert (incar["ISIF"], incar["EDIFFG"]) == ("2", "-0.01")
    assert "PSTRESS" not in incar
    assert not chain.should_run_static_calculation()


def test_another_attempt_goes_on_from_the_last_geometry(build):
    later = StructureData(cell=[[4.2, 0, 0], [0, 4.2, 0], [0, 0, 4.2]])
    for symbol in ("Ni", "Ni", "O", "O"):
        later.append_atom(position=(0, 0, 0), symbols=symbol)
    builder = build(nickel_oxide(), "relax", remedy=Remedy(2.0, structure=later.store().uuid))
    assert builder.structure.uuid == later.uuid
    assert builder.vasp.parameters["incar"]["magmom"] == [2.0, -2.0, 0.1, 0.1]


def test_f_electrons_get_no_projections(build):
    """parsevasp cannot read files that hold projections on f."""
    structure = StructureData(cell=[[3.6, 0, 0], [0, 3.6, 0], [0, 0, 3.6]])
    structure.append_atom(position=(0, 0, 0), symbols="Ce")
    own = {"hubbard": {"Ce": 4.5}}
    builder = build(Prepared(structure, {"Ce": 1.0}), **own)
    assert "lorbit" not in builder.parameters["incar"]
    assert builder.ldau_mapping.get_dict() == {"mapping": {"Ce": ["f", 4.5]}, "utype": 2, "felec": True}


def test_ranks():
    assert parallel(1, 10) == {}
    assert parallel(16, 4) == {"kpar": 4, "ncore": 2}
    assert parallel(7, 1) == {"kpar": 1, "ncore": 1}


# ------------------------------------------------------------------ potentials
def test_settings_name_potentials_by_checksum(family):
    parameters = Vasp.Parameters(potential_family=family, hubbard="auto", potentials={"Li": "Li"})
    assert Vasp.covered(parameters) == {"Ni", "O", "Li", "Ce"}
    told = Vasp.settings(parameters, ("Ni", "O", "Li"))
    assert told["pseudopotentials"]["Ni"]["title"] == "PAW_PBE Ni_pv 01Jan2000"
    assert len(told["pseudopotentials"]["Ni"]["sha512"]) == 128
    assert told["pseudopotentials"]["Li"]["name"] == "Li"
    assert (told["cutoff_wfc_eV"], told["hubbard_u_eV"], told["functional"]) == (520.0, {"Ni": 6.2}, "PBE")


def test_a_harder_potential_is_refused_with_the_cutoff_that_it_needs(build):
    structure = StructureData(cell=[[3.4, 0, 0], [0, 3.4, 0], [0, 0, 3.4]])
    structure.append_atom(position=(0, 0, 0), symbols="Li")
    with pytest.raises(
        InputError, match="Li_sv needs a cutoff of 499.034 eV, and this stage has 400 eV"
    ) as caught:
        build(Prepared(structure), protocol="fast")
    assert "cutoff_wfc: 500 eV" in str(caught.value.hint)
    build(Prepared(structure), protocol="fast", cutoff_wfc=500.0)
    build(Prepared(structure), protocol="fast", potentials={"Li": "Li"})
    structure = StructureData(cell=[[3.4, 0, 0], [0, 3.4, 0], [0, 0, 3.4]])
    structure.append_atom(position=(0, 0, 0), symbols="Fe")
    with pytest.raises(InputError, match=r"the family 'made-up' has no POTCAR of Fe \(Fe_pv\)"):
        build(Prepared(structure))


def test_families(family, upload):
    with pytest.raises(InputError, match="no family of POTCAR files 'made-ip'; did you mean 'made-up'"):
        Vasp.covered(Vasp.Parameters(potential_family="made-ip"))
    assert Vasp.covered(Vasp.Parameters()) == Vasp.covered(Vasp.Parameters(potential_family=family)), (
        "the only one"
    )
    other = upload("lda", {"Al": ("Al", 240.0)}, xc="LDA")
    with pytest.raises(InputError, match="there are several families of POTCAR files: lda, made-up"):
        Vasp.covered(Vasp.Parameters())
    with pytest.raises(InputError, match="the POTCAR Al is .* not made for PBE"):
        Vasp.covered(Vasp.Parameters(potential_family=other))


@pytest.mark.parametrize(
    ("tags_", "text"),
    [
        ({"ENCUT": 500}, "ENCUT: has a key of its own"),
        ({"ALGOO": "All"}, "INCAR has no tag 'ALGOO'; did you mean 'ALGO'"),
    ],
)
def test_tags_are_checked(tags_, text):
    with pytest.raises(ValidationError, match=text):
        Vasp.Parameters(incar=tags_)


def test_a_check_names_what_is_missing(family, workspace, tmp_path, monkeypatch):
    """Before anything runs: elements without a potential, a family that is not there, a centre without VASP."""
    path = tmp_path / "c.yaml"
    text = f"""\
schema: matcompute.campaign/v1
name: x
title: X
domain: frontier-materials
licence: CC0-1.0
contributors: [{{name: A}}]
structures:
  - {{prototypes: [L1_2], elements: [Ni, Al]}}
stages:
  - relax: {{calculator: {{name: vasp, potential_family: {family}}}}}
"""
    monkeypatch.setenv("MATCOMPUTE_WORKSPACE", str(workspace.root))

    def problems(content: str) -> list[str]:
        path.write_text(content)
        campaign = Campaign.load(path)
        from matcompute.campaign.check import read_structures
        from matcompute.centres import local_centre

        found = static_problems(campaign, {"local": local_centre(workspace)})
        errors, warnings = structure_problems(campaign, read_structures(campaign)) if not found else ([], [])
        return [item.message for item in (*found, *errors, *warnings)]

    assert any("'local' lacks vasp.vasp" in message for message in problems(text))
    assert any("no family of POTCAR files 'nothing'" in m for m in problems(text.replace(family, "nothing")))

    monkeypatch.setattr("matcompute.campaign.potentials.stage_codes", lambda stage: frozenset())
    assert any("calculator 'vasp' has no pseudopotential of Al" in message for message in problems(text))


# ------------------------------------------------------------------ results
def _misc(**more: Any) -> Dict:
    """As the plugin's parser makes it (recorded runs of aiida-vasp 5.1)."""
    return Dict(
        {
            "total_energies": {"energy_extrapolated": -20.5, "energy_extrapolated_electronic": -20.4},
            "forces": [[0.0, 0.0, 0.03], [0.0, 0.04, -0.03]],
            "stress": [[10.0, 4.0, 6.0], [4.0, 20.0, 5.0], [6.0, 5.0, 30.0]],
            "version": "6.4.2",
            "run_status": {"last_iteration_index": [6, 9], "finished": True, "nsw": 60},
            "notifications": [],
            **more,
        }
    )


def _two(length: float = 4.0) -> StructureData:
    structure = StructureData(cell=[[length, 0, 0], [0, length, 0], [0, 0, length]])
    structure.append_atom(position=(0, 0, 0), symbols="Fe")
    structure.append_atom(position=(length / 2,) * 3, symbols="Fe")
    return structure


MOMENTS = {
    "magnetization": [4.4],
    "site_magnetization": {
        "sphere": {
            "x": {"site_moment": {"1": {"d": 2.1, "tot": 2.2}, "2": {"d": 2.2, "tot": 2.3}}},
            "y": {"site_moment": {}},
        },
        "full_cell": [4.4],
    },
}


def test_read_static(centre):
    job = call("VaspCalculation", {"misc": _misc(**MOMENTS)}, computer=centre.computer)
    process = finished(
        "VaspWorkChain",
        lambda made: {"misc": made[0].outputs.misc},
        inputs={"structure": _two()},
        calls=[("i", job)],
    )
    assert Vasp.outcome(process).status == Status.OK
    nodes = Vasp.outputs(process)
    found = Vasp.read("static", StaticParameters(magmoms=True), nodes, 2)
    assert found.values["energy"] == -20.5
    assert found.values["energy_per_atom"] == -10.25
    assert found.values["max_force"] == pytest.approx(0.05)
    # kbar → GPa, and the other sign: this cell is compressed.
    np.testing.assert_allclose(found.values["stress"], [-1.0, -2.0, -3.0, -0.5, -0.6, -0.4])
    assert found.values["volume_per_atom"] == pytest.approx(32.0)
    assert found.values["total_magnetization"] == 4.4
    np.testing.assert_allclose(found.site_values["magmom"], [2.2, 2.3])
    np.testing.assert_allclose(found.site_values["forces"][1], [0, 0.04, -0.03])
    assert found.positions is None
    assert found.makers[""] == process.called[0].uuid
    assert Vasp.code_version(nodes) == "6.4.2"
    assert "magmom" not in Vasp.read("static", StaticParameters(), nodes, 2).site_values


def test_read_relaxation(centre):
    """Energies are those of the last calculation, the structure and the steps those of the relaxations."""

    def chain(misc, structure=None):
        outputs = {"misc": misc} if structure is None else {"misc": misc, "structure": structure}
        job = call("VaspCalculation", outputs, computer=centre.computer)
        return call(
            "VaspWorkChain",
            lambda made: {name: made[0].outputs[name] for name in outputs},
            calls=[("iteration_01", job)],
        )

    first = chain(_misc(run_status={"last_iteration_index": [6, 5]}), _two(3.9))
    second = chain(_misc(run_status={"last_iteration_index": [2, 5]}), _two(3.8))
    last = chain(_misc(total_energies={"energy_extrapolated": -21.0}))
    process = finished(
        "VaspRelaxWorkChain",
        lambda made: {"misc": made[2].outputs.misc, "relax__structure": made[1].outputs.structure},
        inputs={"structure": _two(4.0)},
        calls=[("relax_01", first), ("relax_02", second), ("singlepoint", last)],
    )
    nodes = Vasp.outputs(process)
    assert set(nodes) == {"misc", "start", "structure", "steps_0", "steps_1"}
    found = Vasp.read("relax", RelaxParameters(), nodes, 2)
    assert found.values["energy"] == -21.0
    assert found.values["n_steps"] == 6
    assert found.values["initial_volume_per_atom"] == pytest.approx(32.0)
    assert found.values["volume_per_atom"] == pytest.approx(3.8**3 / 2)
    np.testing.assert_allclose(found.positions[1], [1.9, 1.9, 1.9])
    np.testing.assert_allclose(found.cell, np.eye(3) * 3.8)


def test_what_a_failed_process_has_found_is_read_from_its_last_job(centre):
    job = call(
        "VaspCalculation",
        {"misc": _misc(total_energies=None, forces=None)},
        status=701,
        computer=centre.computer,
    )
    process = finished(
        "VaspWorkChain", status=503, inputs={"structure": _two()}, calls=[("iteration_01", job)]
    )
    found = Vasp.read("static", StaticParameters(), Vasp.outputs(process), 2)
    assert "energy" not in found.values
    assert found.values["volume_per_atom"] == pytest.approx(32.0)
    nothing = finished("VaspWorkChain", status=501)
    assert Vasp.read("static", StaticParameters(), Vasp.outputs(nothing), 2).values == {}


# ------------------------------------------------------------------ ends
@pytest.mark.parametrize(
    ("status", "chain", "expected", "text", "again"),
    [
        (120, 403, Status.TIMED_OUT, "VASP ran out of its walltime of 60 s", Remedy(2.0)),
        (110, 403, Status.CRASHED, "VASP ran out of memory", Remedy(1.0, 2.0)),
        (140, 403, Status.LOST, "the machine of the job failed", Remedy()),
        (700, 501, Status.CRASHED, "VASP ended in the middle of its output", Remedy()),
        (701, 501, Status.NOT_CONVERGED, "the SCF did not converge, in one calculation", None),
        (702, 401, Status.NOT_CONVERGED, "the geometry did not converge", None),
        (352, 501, Status.CRASHED, "VASP left no output: it did not start", Remedy()),
        (703, 501, Status.CRASHED, "VASP: BRMIX: very serious problems", None),
    ],
)
def test_one_cause(centre, status, chain, expected, text, again):
    message = "VASP calculation encountered a critical error: BRMIX: very serious problems"
    job = call(
        "VaspCalculation", status=status, message=message, computer=centre.computer, max_wallclock_seconds=60
    )
    process = finished("VaspWorkChain", status=chain, message="not this", calls=[("iteration_01", job)])
    outcome = Vasp.outcome(process)
    assert (outcome.status, outcome.again) == (expected, again)
    assert outcome.message.startswith(text)
    assert outcome.message.endswith(f"(job {process.called[0].uuid[:8]})")


def test_walltime_is_told_by_the_scheduler(centre):
    """A parser that found the output cut short hides the scheduler's own verdict."""
    from aiida.schedulers import JobInfo

    info = JobInfo()
    info.job_id = "1"
    info.wallclock_time_seconds = 59
    job = call(
        "VaspCalculation",
        {"structure": _two()},
        status=700,
        computer=centre.computer,
        max_wallclock_seconds=60,
    )
    process = finished("VaspWorkChain", status=501, calls=[("iteration_01", job)])
    process.called[0].set_last_job_info(info)
    outcome = Vasp.outcome(process)
    assert outcome.status == Status.TIMED_OUT
    assert outcome.again == Remedy(2.0, structure=process.called[0].outputs.structure.uuid)
    assert Vasp.outcome(process, Remedy(16.0)).again is None


def test_relaxations_that_end_without_a_result(centre):
    jobs = [(f"relax_{k:02d}", call("VaspCalculation", computer=centre.computer)) for k in range(5)]
    children = [(label, call("VaspWorkChain", calls=[("iteration_01", job)])) for label, job in jobs]
    process = finished("VaspRelaxWorkChain", status=600, calls=children)
    assert "still change after 5 relaxations" in Vasp.outcome(process).message
    forces = finished(
        "VaspRelaxWorkChain", status=601, calls=[("s", call("VaspCalculation", computer=centre.computer))]
    )
    assert "finds forces above the limit" in Vasp.outcome(forces).message
    assert Vasp.outcome(forces).status == Status.NOT_CONVERGED
    missing = finished("VaspWorkChain", status=702, message="the potential does not exist")
    assert (Vasp.outcome(missing).status, Vasp.outcome(missing).message) == (
        Status.INVALID_INPUT,
        "the potential does not exist",
    )

"""ABINIT through the node program: numbers against references, and every way in which a calculation can fail."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.collections import dcdft
from ase.units import Bohr, GPa, Hartree
from pydantic import ValidationError

from matcompute.dataset import PROPERTIES, DatasetWriter, Metadata, Status
from matcompute.node.adapters import CalculationError, NoDeadline
from matcompute.node.calculators.abinit import Abinit, AbinitParameters
from matcompute.node.calculators.abinit_calculator import AbinitCalculator
from matcompute.node.calculators.psp8 import shipped_folder
from matcompute.node.job import Job
from matcompute.node.tasks.relax import Relax, RelaxParameters
from matcompute.node.tasks.static import Static, StaticParameters
from matcompute_kernels import Batch

#: Coarse and quick, for what does not depend on convergence.
COARSE: dict[str, Any] = {"protocol": "fast", "ecut": 8 * Hartree, "kpoint_spacing": 0.7}
ALONG = np.ones(3) / np.sqrt(3)


def with_abinit(test: Any) -> Any:
    """Mark a test that runs ABINIT."""
    absent = shutil.which("abinit") is None
    return pytest.mark.apt(pytest.mark.skipif(absent, reason="ABINIT is not installed")(test))


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of scratch folders; nothing may be left in it."""
    folder = tmp_path / "scratch"
    monkeypatch.setenv("MATCOMPUTE_SCRATCH", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def load(**parameters: Any) -> AbinitCalculator:
    calc = Abinit.load(COARSE | parameters, None, 1)
    assert isinstance(calc, AbinitCalculator)
    return calc


def silicon(shift: float = 0.1) -> Atoms:
    """Silicon whose second atom is shifted along [111] by so many Å."""
    atoms = bulk("Si", a=5.47)
    atoms.positions[1] += shift * ALONG
    return atoms


@with_abinit
def test_static_and_its_derivatives(scratch: Path) -> None:
    calc = load()

    def energy(atoms: Atoms, strain: float = 0.0) -> float:
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain * np.outer(ALONG, ALONG)), scale_atoms=True)
        atoms.calc = calc
        return float(atoms.get_potential_energy())

    with calc.session(NoDeadline()):
        result = Static.run(silicon(), calc, StaticParameters(magmoms=True), NoDeadline())
        moved = (energy(silicon(0.11)) - energy(silicon(0.09))) / 0.02
        strained = (energy(silicon(), 0.004) - energy(silicon(), -0.004)) / 0.008
    assert result.status == Status.OK
    assert result.site_values["forces"][1] @ ALONG == pytest.approx(-moved, rel=0.005)
    np.testing.assert_allclose(result.site_values["forces"].sum(axis=0), 0, atol=1e-6)
    np.testing.assert_array_equal(result.site_values["magmom"], [0, 0])
    xx, yy, zz, yz, xz, xy = result.values["stress"] * GPa
    stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    assert ALONG @ stress @ ALONG == pytest.approx(strained / silicon().get_volume(), rel=0.01)


@with_abinit
def test_the_same_by_hand(tmp_path: Path, scratch: Path) -> None:
    """An input that shares nothing with ours gives the same energy; left-handed cells are turned."""
    start = silicon()
    folder = shipped_folder()
    assert folder is not None
    (tmp_path / "Si.psp8").symlink_to(next(folder.glob("14_Si*")))
    rows = "\n".join(" ".join(f"{x:.12f}" for x in row) for row in start.cell.array / Bohr)
    places = "\n".join(" ".join(f"{x:.12f}" for x in row) for row in start.get_scaled_positions())
    (tmp_path / "hand.abi").write_text(
        f'natom 2 ntypat 1 znucl 14 typat 1 1 pseudos "Si.psp8"\nacell 1 1 1\nrprim\n{rows}\nxred\n{places}\n'
        "ecut 8 ecutsm 0.5 ngkpt 3 3 3 nshiftk 1 shiftk 0 0 0 occopt 4 tsmear 0.27 eV\n"
        "nband 8 toldfe 1d-10 nstep 40 chksymtnons 0\n"
    )
    subprocess.run(["abinit", "hand.abi"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    found = re.findall(r"total_energy_eV\s*:\s*(\S+)", (tmp_path / "hand.abo").read_text())
    turned = start.copy()
    turned.set_cell(start.cell.array[[1, 0, 2]])
    assert np.linalg.det(turned.cell.array) * np.linalg.det(start.cell.array) < 0
    for atoms in (start, turned):
        atoms.calc = load()
        assert atoms.get_potential_energy() == pytest.approx(float(found[-1]), abs=1e-5)


@with_abinit
def test_equations_of_state_of_the_delta_test(make_job: Callable[..., Any]) -> None:
    """Si and Al against all-electron PBE: K. Lejaeghere et al., Science 351, aad3000 (2016), WIEN2k, kept in ASE."""
    job = make_job(
        structures=[bulk("Si", a=5.47), bulk("Al", a=4.04), bulk("U", "fcc", a=4.5)],
        task="eos",
        parameters={"points": 5},
        calculator={"name": "abinit", "parameters": {"protocol": "fast"}},
    )
    done = job.run(timeout=600)
    assert done.returncode == 0, done.stderr
    assert job.summary["counts"] == {"ok": 2, "unsupported_species": 1}
    assert list((job.folder / "scratch").iterdir()) == []
    with job.results() as shard:
        volumes, moduli = shard.column("equilibrium_volume"), shard.column("bulk_modulus")
        for row, symbol in enumerate(("Si", "Al")):
            published = dcdft.data[symbol]
            # 2 % of the lattice constant, 15 % of the bulk modulus.
            assert volumes[row] == pytest.approx(published["wien2k_volume"], rel=0.06)
            assert moduli[row] == pytest.approx(published["wien2k_B"], rel=0.15)
        assert (shard.column("eos_rms_error")[:2] < 1e-3).all()
        # Processor time of ABINIT, not of the worker that waits for it.
        assert (shard.column("cpu_time")[:2] > 0.5).all()
        assert "abinit does not know U" in shard.entry_column("message")[2]
        (method,) = shard.methods
    version = subprocess.run(["abinit", "--version"], capture_output=True, text=True, check=True).stdout
    assert (method.code, method.code_version) == ("abinit", version.strip())
    assert method.potential_sha256 == Abinit.potential_sha256({}, ["Si", "Al"])
    files = method.parameters["pseudopotentials"]
    assert files.keys() == {"Si", "Al"}
    assert re.fullmatch("[0-9a-f]{64}", files["Si"]["sha256"])
    assert files["Al"]["file"].startswith("13_Al")
    assert method.parameters["kpoint_spacing"] == 0.30
    assert method.parameters["functional"] == "PBE"


@with_abinit
def test_relax_with_the_cell(scratch: Path) -> None:
    calc = load(kpoint_spacing=0.9)
    with calc.session(NoDeadline()):
        result = Relax.run(silicon(0.15), calc, RelaxParameters(fmax=0.02), NoDeadline())
    assert result.status == Status.OK, result.message
    assert result.atoms is not None
    # No Pulay stress: the stress of the fixed cutoff vanishes where the energy has its minimum.
    assert np.abs(result.values["stress"]).max() < 0.5
    cell = result.atoms.cell.lengths()
    np.testing.assert_allclose(cell, cell.mean(), rtol=2e-3)
    assert result.atoms.get_distance(0, 1, mic=True) == pytest.approx(np.sqrt(3 / 8) * cell.mean(), rel=2e-3)


@with_abinit
def test_iron_is_magnetic(scratch: Path) -> None:
    coarse = {"ecut": 20 * Hartree, "kpoint_spacing": 0.9}
    iron = bulk("Fe", a=2.83)
    magnetic = Static.run(iron, load(**coarse), StaticParameters(magmoms=True), NoDeadline())
    plain = Static.run(iron.copy(), load(**coarse, spin="none"), StaticParameters(magmoms=True), NoDeadline())
    assert 1.5 < magnetic.site_values["magmom"][0] < 3.5
    assert plain.site_values["magmom"][0] == 0
    assert magnetic.values["energy"] < plain.values["energy"] - 0.1


@with_abinit
def test_failures_have_a_reason(scratch: Path) -> None:
    def fails(atoms: Atoms, **parameters: Any) -> tuple[int, str]:
        with pytest.raises(CalculationError) as caught:
            Static.run(atoms, load(**parameters), StaticParameters(), NoDeadline())
        return caught.value.status, str(caught.value)

    status, text = fails(silicon(), scf_steps=1)
    assert status == Status.NOT_CONVERGED
    # A second try had more steps.
    assert re.search(
        r"self-consistency is not reached in 2 steps: potential residual= \S+ exceeds tolvrs", text
    )
    status, text = fails(silicon(), variables={"nband": 2})
    assert status == Status.CRASHED
    assert re.search(r"abinit ended with status \d+: .*nband", text), text
    status, text = fails(bulk("Al", a=4.05), smearing="fixed")
    assert (status, "has 3" in text) == (Status.INVALID_INPUT, True)
    with pytest.raises(CalculationError, match="three vectors"):
        load().get_potential_energy(Atoms("Si2", positions=[[0, 0, 0], [2.2, 0, 0]]))


@with_abinit
def test_a_hard_start_is_mended(scratch: Path) -> None:
    """Steps that run out are no end: the second try goes on from where the first has come to."""
    free = Static.run(silicon(), load(), StaticParameters(), NoDeadline())
    calc = load(scf_steps=5)
    short = Static.run(silicon(), calc, StaticParameters(), NoDeadline())
    assert short.status == Status.OK
    assert short.values["energy"] == pytest.approx(free.values["energy"], abs=1e-6)


def killer(process: subprocess.Popen[str], folder: Path, spare: Callable[[str, int], bool]) -> int:
    """Kill ABINIT whenever it runs for a job, but where ``spare(input, number of its kills)`` says no."""
    seen: set[int] = set()
    kills: dict[str, int] = {}
    while process.poll() is None:
        for path in Path("/proc").glob("[0-9]*/comm"):
            try:
                where = (path.parent / "cwd").readlink()
                if path.read_text().strip() != "abinit" or folder not in where.parents:
                    continue
                pid, text = int(path.parent.name), (where / "abinit.in").read_text()
                kind = re.findall(r"znucl (.*)", text)[0]
                # The log says that it is computing: the version was asked for elsewhere.
                if (
                    pid in seen
                    or spare(kind, kills.get(kind, 0))
                    or not (where / "abinit.log").stat().st_size
                ):
                    continue
                os.kill(pid, signal.SIGKILL)
            except (OSError, IndexError):
                continue
            seen.add(pid)
            kills[kind] = kills.get(kind, 0) + 1
        time.sleep(0.01)
    return len(seen)


@with_abinit
@pytest.mark.kill
def test_killed_abinit(make_job: Callable[..., Any]) -> None:
    """One kill is mended, a second is told as the reason; the batch goes on."""
    job = make_job(
        structures=[bulk("Al", a=4.05), silicon()],
        task="static",
        calculator={"name": "abinit", "parameters": COARSE},
        processes=1,
    )
    with job.start() as process:
        kills = killer(process, job.folder, lambda kind, done: kind == "14" and done > 0)
    assert process.returncode == 0
    assert kills == 3
    with job.results() as shard:
        assert shard.status("energy").tolist() == [Status.CRASHED, Status.OK]
        assert shard.entry_column("message")[0] == "abinit was killed by SIGKILL (out of memory?)"
    assert list((job.folder / "scratch").iterdir()) == []


@with_abinit
def test_time_out_ends_abinit(make_job: Callable[..., Any]) -> None:
    job = make_job(
        structures=[bulk("Cu", a=3.6)],
        calculator={"name": "abinit", "parameters": {"protocol": "stringent", "kpoint_spacing": 0.08}},
        task="static",
        processes=1,
        structure_timeout_s=2.0,
    )
    assert job.run().returncode == 0
    with job.results() as shard:
        assert shard.status("energy").tolist() == [Status.TIMED_OUT]
    running = [path.parent for path in Path("/proc").glob("[0-9]*/comm") if _text(path) == "abinit"]
    assert not [path for path in running if str(job.folder) in os.path.realpath(path / "cwd")]
    assert list((job.folder / "scratch").iterdir()) == []


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def test_a_node_without_abinit(make_job: Callable[..., Any]) -> None:
    own = {"command": "/nowhere/abinit"}
    job = make_job(structures=[silicon()], task="static", calculator={"name": "abinit", "parameters": own})
    done = job.run()
    assert done.returncode == 69
    assert "the program '/nowhere/abinit' is not found here" in done.stderr
    assert "load its module" in done.stderr
    own = {"command": "false"}
    job.write(None, task="static", calculator={"name": "abinit", "parameters": own})
    done = job.run()
    assert done.returncode == 69
    assert "'false --version' tells no version (exit status 1)" in done.stderr


def test_parameters_are_checked() -> None:
    assert Abinit.settings({"protocol": "stringent"}).kpoint_spacing < Abinit.settings({}).kpoint_spacing
    assert set(Abinit.settings({"ecut": 500.0}).ecut.values()) == {500.0}
    given = Abinit.settings({"smearing": "gaussian", "degauss": 0.05, "kpoint_spacing": 0.4})
    assert (given.smearing, given.degauss, given.kpoint_spacing) == ("gaussian", 0.05, 0.4)
    with pytest.raises(ValidationError, match="key of its own"):
        AbinitParameters(variables={"Ecut": 30})
    with pytest.raises(ValidationError, match="whole path"):
        AbinitParameters(pseudopotentials="psp")
    with pytest.raises(ValidationError, match="no meaning"):
        AbinitParameters(smearing="fixed", degauss=0.1)
    assert AbinitParameters.model_fields["ecut"].json_schema_extra == {"unit": "eV"}


def inputs(tmp_path: Path, atoms: Atoms, **parameters: Any) -> dict[str, str]:
    """Return the first word of each line of the input that is written, with the rest of the line."""
    template = load(**parameters).template
    template.write_input(None, tmp_path, atoms, {}, None)
    lines = (tmp_path / "abinit.in").read_text().splitlines()
    found = {key: rest for key, _, rest in (line.partition(" ") for line in lines)}
    if "spinat" in found:
        start = lines.index("spinat") + 1
        found["spinat"] = " ".join(line.split()[2] for line in lines[start : start + len(atoms)])
    return found


def moments(found: dict[str, str]) -> list[float]:
    return [float(word) for word in found.get("spinat", "").split()]


def test_starting_moments(tmp_path: Path) -> None:
    oxide = bulk("NiO", "rocksalt", a=4.2)
    assert moments(inputs(tmp_path, oxide)) == [1, 0]
    assert moments(inputs(tmp_path, oxide, spin="none")) == []
    assert moments(inputs(tmp_path, oxide, magmoms="none")) == []
    assert moments(inputs(tmp_path, bulk("Al"), spin="collinear")) == [0.5]
    assert inputs(tmp_path, bulk("Al"))["nsppol"] == "1"
    known = oxide.copy()
    known.set_initial_magnetic_moments([-1.6, 0.1])
    assert moments(inputs(tmp_path, known)) == [-1.6, 0.1]
    assert inputs(tmp_path, known)["nsppol"] == "2"
    assert moments(inputs(tmp_path, known, magmoms="elements")) == [1, 0]
    known.set_initial_magnetic_moments([0.02, 0.0])
    assert moments(inputs(tmp_path, known)) == []


def test_mesh_and_symmetric_settings(tmp_path: Path) -> None:
    cubic = bulk("Al", cubic=True, a=4.0)
    assert inputs(tmp_path, cubic, kpoint_spacing=2 * np.pi / 4.0 / 5)["ngkpt"] == ""
    text = (tmp_path / "abinit.in").read_text()
    assert "ngkpt\n5 5 5" in text
    assert "shiftk\n0 0 0" in text
    slab = cubic.copy()
    slab.pbc = [True, True, False]
    inputs(tmp_path, slab, kpoint_spacing=0.5)
    assert "ngkpt\n4 4 1" in (tmp_path / "abinit.in").read_text()


def test_moments_of_an_earlier_stage_reach_the_atoms(tmp_path: Path, make_job: Callable[..., Any]) -> None:
    job = make_job(
        structures=[bulk("Fe"), bulk("NiO", "rocksalt", a=4.2)], task="static", calculator="abinit"
    )
    digests = []
    for sizes in ([2.2, 1.5, 0.1], [2.2, 1.4, 0.1], [2.2, np.nan, np.nan]):
        with DatasetWriter(job.folder / "structures.h5", Metadata(title="test"), overwrite=True) as writer:
            writer.declare(PROPERTIES["magmom"])
            batch = Batch.from_atoms([bulk("Fe"), bulk("NiO", "rocksalt", a=4.2)])
            writer.append(batch, site_results={"magmom": np.array(sizes)})
        if shutil.which("abinit") is None:
            pytest.skip("ABINIT is not installed")
        loaded = Job.load(job.folder / "task.json")
        digests.append(loaded.digests)
        assert loaded.atoms(0).get_initial_magnetic_moments().tolist() == [2.2]
    assert not loaded.atoms(1).has("initial_magmoms")
    # Another start is another result.
    assert digests[0][0] == digests[1][0]
    assert digests[0][1] != digests[1][1]

"""``matcompute describe``: any file in, a dataset with the descriptor out; bad structures, kills, wrong settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from click.testing import CliRunner, Result

from matcompute.cli import cli
from matcompute.dataset import Dataset, DatasetWriter, Status, validate_dataset
from matcompute.dataset.descriptors import descriptor_names, descriptor_status, read_descriptor
from matcompute.describing import prepare_dataset, split_arguments
from matcompute.errors import InputError, MatcomputeError
from matcompute_kernels import Batch, magpie, rdf, soap

SOAP = "r_cut=4,n_max=3,l_max=2"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def crystals() -> list[Atoms]:
    items = [bulk("NaCl", "rocksalt", a=5.6), bulk("Cu"), bulk("Al", cubic=True), bulk("Cu")]
    write("crystals.extxyz", items)
    return items


def call(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["describe", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit | MatcomputeError):
        raise result.exception
    return result


def fails(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code != 0
    return f"{result.exception}\n{result.output}"


def test_structure_file(crystals: list[Atoms]) -> None:
    result = call("crystals.extxyz", "--soap", SOAP)
    assert result.exit_code == 0, result.output
    assert "crystals.h5: /descriptors/soap, " in result.output
    assert "4 entries in" in result.output
    with Dataset("crystals.h5") as dataset:
        expected = soap(crystals, ["Na", "Cl", "Cu", "Al"], 4.0, 3, 2, average="outer")
        np.testing.assert_allclose(read_descriptor(dataset, "soap"), expected, rtol=1e-12)
        assert dataset.sources[0].path == "crystals.extxyz"
        # Equal structures are both kept: row i is frame i.
        assert len(set(dataset.ids)) == 4
        assert dataset.entry_column("source_line").tolist() == [1, 5, 8, 14]
        hashes = dataset.entry_column("structure_hash")
        assert hashes[1] == hashes[3] != hashes[2]
    assert validate_dataset("crystals.h5") == []


def test_more_descriptors_go_into_the_same_file(crystals: list[Atoms]) -> None:
    assert call("crystals.extxyz", "--soap", SOAP).exit_code == 0
    assert call("crystals.extxyz", "--descriptor", "magpie").exit_code == 0
    assert (
        call("crystals.extxyz", "--descriptor", "rdf", "r_cut=5", "bin_size=0.5", "--name", "near").exit_code
        == 0
    )
    assert "has a descriptor 'near' already" in fails(
        "crystals.extxyz", "--descriptor", "rdf", "--name", "near"
    )
    assert (
        call("crystals.extxyz", "--descriptor", "rdf", "r_cut=3", "--name", "near", "--overwrite").exit_code
        == 0
    )
    with Dataset("crystals.h5") as dataset:
        assert descriptor_names(dataset) == ["magpie", "near", "soap"]
        np.testing.assert_allclose(read_descriptor(dataset, "near"), rdf(crystals, 3.0), rtol=1e-12)
        formulas = [atoms.get_chemical_formula() for atoms in crystals]
        np.testing.assert_allclose(read_descriptor(dataset, "magpie"), magpie(formulas), rtol=1e-12)


def test_other_structures_are_not_overwritten(crystals: list[Atoms]) -> None:
    call("crystals.extxyz", "--descriptor", "magpie")
    write("other.extxyz", [bulk("Ni")])
    assert "holds other structures" in fails("other.extxyz", "-o", "crystals.h5", "--descriptor", "magpie")
    assert call("other.extxyz", "-o", "crystals.h5", "--descriptor", "packing", "--overwrite").exit_code == 0
    with Dataset("crystals.h5") as dataset:
        assert dataset.entry_column("formula").tolist() == ["Ni"]
        assert descriptor_names(dataset) == ["packing"]


def test_dataset(crystals: list[Atoms]) -> None:
    with DatasetWriter("metals.h5") as writer:
        writer.append(Batch.from_atoms(crystals[:3]))
    before = Path("metals.h5").read_bytes()
    assert call("metals.h5", "--descriptor", "magpie").exit_code == 0
    assert Path("metals.h5").read_bytes() == before
    assert call("metals.h5", "--descriptor", "packing").exit_code == 0  # the same copy gains a second one
    with Dataset("metals-described.h5") as dataset:
        assert descriptor_names(dataset) == ["magpie", "packing"]
    assert call("metals.h5", "--in-place", "--soap", f"{SOAP},average=off").exit_code == 0
    with Dataset("metals.h5") as dataset:
        assert descriptor_names(dataset) == ["soap"]
        rows = read_descriptor(dataset, "soap", dense=True)
        np.testing.assert_array_equal(
            rows, soap(dataset.batch(), ["Na", "Cl", "Cu", "Al"], 4.0, 3, 2, dtype="float32")
        )


@pytest.mark.parametrize(("name", "form"), [("a.cif", "cif"), ("POSCAR", "vasp"), ("m.xyz", "xyz")])
def test_formats(name: str, form: str) -> None:
    write(name, molecule("H2O") if form == "xyz" else bulk("Al", cubic=True), format=form)
    assert call(name, "--descriptor", "magpie").exit_code == 0
    with Dataset(f"{name.split('.')[0]}.h5") as dataset:
        assert read_descriptor(dataset, "magpie").shape == (1, 132)


def test_several_files(crystals: list[Atoms]) -> None:
    write("more.extxyz", [bulk("Ni"), bulk("Fe")])
    assert "name it by --output" in fails("crystals.extxyz", "more.extxyz", "--descriptor", "magpie")
    result = call("crystals.extxyz", "more.extxyz", "-o", "all.h5", "--descriptor", "magpie", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["path"], report["report"]["n_structures"]) == ("all.h5", 6)
    with Dataset("all.h5") as dataset:
        assert [dataset.sources[i].path for i in dataset.entry_column("source_index")] == [
            *["crystals.extxyz"] * 4,
            *["more.extxyz"] * 2,
        ]


def test_bad_structures_have_a_status_and_the_rest_goes_on() -> None:
    nan, flat = bulk("Cu"), Atoms("Cu", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 3]], pbc=True)
    nan.positions[0, 1] = np.nan
    write("mixed.extxyz", [bulk("Cu"), nan, flat, bulk("Al")])
    with Path("mixed.extxyz").open("a") as file:
        file.write('1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nQq 0 0 0\n')
    result = call("mixed.extxyz", "--descriptor", "rdf", "r_cut=5")
    assert result.exit_code == 0
    assert "entry 1: position of atom 0 is not finite" in result.output
    assert "entry 2: singular cell" in result.output
    assert "mixed.extxyz:13: 'Qq' is not a chemical symbol" in result.output
    with Dataset("mixed.h5") as dataset:
        bad = [False, True, True, False]
        assert (descriptor_status(dataset, "rdf") == Status.INVALID_INPUT).tolist() == bad
        assert np.isnan(read_descriptor(dataset, "rdf")).all(axis=1).tolist() == bad


@pytest.mark.parametrize(
    "options", [["serial"], ["threads", "--processes", "2"], ["dask", "--processes", "2"], ["mpi"]]
)
def test_same_bytes_from_every_driver(options: list[str]) -> None:
    if options[0] in ("mpi", "dask"):
        pytest.importorskip({"mpi": "mpi4py", "dask": "distributed"}[options[0]])
    items = [bulk("Cu", a=3.5 + 0.01 * i) for i in range(20)]
    write("cu.extxyz", items)
    result = call("cu.extxyz", "--descriptor", "rdf", "r_cut=5", "--chunk", 3, "--driver", *options)
    assert result.exit_code == 0, result.output
    with Dataset("cu.h5") as dataset:
        np.testing.assert_array_equal(read_descriptor(dataset, "rdf"), rdf(dataset.batch(), 5.0))


def test_under_an_mpi_launcher(crystals: list[Atoms]) -> None:
    pytest.importorskip("mpi4py")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [mpiexec, "-n", "2", sys.executable, "-m", "matcompute.cli", "describe", "crystals.extxyz"]
    command[4:6] = ["-c", "from matcompute.cli import main; main()"]
    done = subprocess.run(
        [*command, "--descriptor", "magpie", "--chunk", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("4 entries in") == 1
    wrong = subprocess.run(
        [*command[:-1], "missing.extxyz", "--descriptor", "magpie"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert wrong.returncode == 2
    assert "missing.extxyz: no such file" in wrong.stderr


def test_wrong_settings(crystals: list[Atoms]) -> None:
    for arguments, message in (
        (["--soap", "r_cut=5,nmax=8,l_max=6"], "nmax: unknown key; did you mean 'n_max'"),
        (["--soap", "r_cut=5,n_max=8,l_max=60"], "less than or equal to 20"),
        (["--soap", f"{SOAP},average=iner"], "'inner', 'outer' or 'off', found 'iner'"),
        (["--soap", f"{SOAP},species=Qq"], "'Qq' is not a chemical element"),
        (["--soap", "r_cut"], "expected KEY=VALUE"),
        (["--descriptor", "sope"], "no descriptor 'sope'; did you mean 'soap'"),
        (["--descriptor", "magpie", "--soap", SOAP], "--soap KEY=VALUE,... or --descriptor"),
        ([], "--soap KEY=VALUE,... or --descriptor"),
        (["--descriptor", "magpie", "--in-place"], "--in-place is for datasets"),
    ):
        assert message in fails("crystals.extxyz", *arguments)
    assert "no such file" in fails("missing.cif", "--descriptor", "magpie")
    assert not Path("crystals.h5").exists()
    Path("text.cif").write_text("nothing of use")
    assert "no structure could be read: text.cif:0" in fails("text.cif", "--descriptor", "magpie")
    error = call("crystals.extxyz", "--soap", "r_cut=5").exception
    assert isinstance(error, InputError)
    assert error.exit_code == 2


def test_pilots_need_a_centre_with_a_scheduler(crystals: list[Atoms]) -> None:
    ready = Path(__file__).parents[2] / "cluster_configs"
    magpie = ["crystals.extxyz", "--descriptor", "magpie", "--pilots"]
    assert "leave --driver out" in fails(*magpie, str(ready / "workstation.yaml"), "--driver", "mpi")
    assert "has no scheduler; pilots are jobs" in fails(*magpie, str(ready / "workstation.yaml"))
    assert "no value for project, user" in fails(*magpie, str(ready / "slurm-cpu.yaml"))


def test_files_and_settings_are_told_apart() -> None:
    Path("a=b.cif").touch()
    assert split_arguments(["a=b.cif", "r_cut=5", "x.cif"]) == ([Path("a=b.cif"), Path("x.cif")], ["r_cut=5"])


def test_lists() -> None:
    assert "soap" in call("descriptors").output
    text = call("soap").output
    assert all(name in text for name in ("r_cut", "n_max", "needed", "angstrom"))
    assert json.loads(call("soap", "--json").output)["required"] == ["r_cut", "n_max", "l_max"]


def test_nothing_is_written_twice(crystals: list[Atoms]) -> None:
    path, _ = prepare_dataset([Path("crystals.extxyz")])
    before = path.stat().st_mtime_ns
    assert prepare_dataset([Path("crystals.extxyz")], overwrite=True) == (path, [])
    assert path.stat().st_mtime_ns == before


@pytest.mark.kill
def test_killed_and_continued(make_big: Callable[[], list[str]]) -> None:
    command = make_big()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 60
        while not any(p.stat().st_size for p in Path("cu.h5.rdf.chunks").glob("index-*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert report["n_reused"] >= 1
    assert report["n_reused"] + report["n_computed"] == 30
    assert not Path("cu.h5.rdf.chunks").exists()
    assert validate_dataset("cu.h5") == []


@pytest.mark.kill
def test_interrupted(make_big: Callable[[], list[str]]) -> None:
    command = make_big()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not list(Path("cu.h5.rdf.chunks").glob("index-*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "run the same command again" in err


@pytest.fixture
def make_big() -> Callable[[], list[str]]:
    """Thirty structures that take a while; the command that describes them one by one."""

    def make() -> list[str]:
        write("cu.extxyz", [bulk("Cu", a=3.5 + 0.01 * i).repeat((1, 1, 3)) for i in range(30)])
        program = "from matcompute.cli import main; main()"
        options = ["--descriptor", "rdf", "r_cut=60", "--chunk", "1", "--driver", "serial", "--json"]
        return [sys.executable, "-c", program, "describe", "cu.extxyz", *options]

    return make

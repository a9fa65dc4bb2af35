"""Descriptors into a dataset file: same bytes from every driver, over MPI ranks, with statuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from matcompute.dataset import Dataset, DatasetError, Status, validate_dataset
from matcompute.dataset.descriptors import read_descriptor
from matcompute.node.describe import chunk_folder, describe_dataset
from matcompute.node.errors import StoppedError, TaskFileError, UnavailableError
from matcompute.node.settings import parse_settings
from matcompute_kernels import feature_labels, soap, steinhardt, xrd

BIN = Path(sys.executable).parent
N = 30


@pytest.fixture
def shard(write_shard: Callable[..., Path]) -> Path:
    items = []
    for i in range(N):
        atoms = bulk("Cu", a=3.6).repeat((2 + i % 3, 1, 1))
        atoms.rattle(0.1, seed=i)
        items.append(atoms)
    return write_shard(items)


@pytest.mark.parametrize(
    ("driver", "options"), [("serial", {}), ("threads", {"threads": 2}), ("dask", {"workers": 2})]
)
@pytest.mark.parametrize("kernel", ["coulomb_matrix", "steinhardt"])
def test_same_as_the_kernel(shard: Path, driver: str, options: Any, kernel: str) -> None:
    if driver == "dask":
        pytest.importorskip("distributed")
    parameters: dict[str, Any] = {"coulomb_matrix": {"n_atoms_max": 4}}.get(
        kernel, {"r_cut": 3.2, "l": [4, 6], "average": "off"}
    )
    report = describe_dataset(shard, kernel, parameters, driver=driver, size=8, **options)
    assert report is not None
    assert (report["n_chunks"], report["n_structures"], report["problems"]) == (4, N, {})
    with Dataset(shard) as dataset:
        values = read_descriptor(dataset, kernel)
        item = dataset.file["descriptors"][kernel]
        assert parameters.items() <= json.loads(item.attrs["parameters"]).items()
        if kernel == "coulomb_matrix":
            assert (report["per"], values.shape) == ("entry", (N, 16))
        else:
            del parameters["average"]
            expected = steinhardt(dataset.batch(), **parameters)
            assert report["per"] == "site"
            np.testing.assert_array_equal(values, expected.astype("f4"))
            assert json.loads(item.attrs["features"]) == feature_labels(kernel, **parameters)
    assert validate_dataset(shard) == []
    assert [p.name for p in shard.parent.iterdir()] == [shard.name]
    with pytest.raises(DatasetError, match="already"):
        describe_dataset(shard, kernel, parameters)


def test_unfit_structures_have_a_status(write_shard: Callable[..., Path]) -> None:
    flat = Atoms("Cu", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 3]], pbc=True)
    path = write_shard([bulk("Cu"), flat, bulk("Al")])
    report = describe_dataset(path, "rdf", {"r_cut": 5.0}, driver="serial")
    assert report is not None
    assert list(report["problems"]) == ["1"]
    with Dataset(path) as dataset:
        status = dataset.file["descriptors/rdf_status"][...]
        assert status.tolist() == [Status.OK, Status.INVALID_INPUT, Status.OK]
        assert np.isnan(read_descriptor(dataset, "rdf")).any(axis=1).tolist() == [False, True, False]
    assert {violation.rule for violation in validate_dataset(path)} == {"finite-cell"}


def test_command_over_ranks(shard: Path, tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    one = tmp_path / "one.h5"
    one.write_bytes(shard.read_bytes())
    options = ["--kernel", "coulomb_matrix", "--set", "n_atoms_max=4", "--chunk", 4]
    done = [_command(one, *options, "--driver", "serial"), _command(shard, *options, ranks=2)]
    for result in done:
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["n_computed"] == 8
    with Dataset(one) as a, Dataset(shard) as b:
        assert (
            read_descriptor(a, "coulomb_matrix").tobytes() == read_descriptor(b, "coulomb_matrix").tobytes()
        )
    assert one.read_bytes() == shard.read_bytes()
    wrong = _command(shard, "--kernel", "soup")
    assert wrong.returncode == 65
    assert "did you mean 'soap'" in wrong.stderr


def _command(*arguments: Any, ranks: int = 0) -> subprocess.CompletedProcess[str]:
    launch = [str(BIN / "mpiexec"), "-n", str(ranks)] if ranks else []
    program = "import sys; from matcompute.node.cli import main; main()"
    return subprocess.run(
        [*launch, sys.executable, "-c", program, "describe", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("driver", ["serial", "dask"])
@pytest.mark.parametrize("convention", ["dscribe-gto", "featomic-gto"])
def test_blocks_by_species_pair(driver: str, convention: str, write_shard: Callable[..., Path]) -> None:
    """Per site: what the kernel gives, in blocks, whatever the driver; unfit structures have none."""
    if driver == "dask":
        pytest.importorskip("distributed")
    items = [
        bulk("Cu"),
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("Al", cubic=True),
        bulk("MgO", "rocksalt", a=4.2),
    ]
    flat = Atoms("Cu2", positions=[[0, 0, 0], [1, 1, 1]], cell=[[1, 0, 0], [2, 0, 0], [0, 0, 3]], pbc=True)
    path = write_shard([*items, flat, *(atoms.repeat((1, 1, 2)) for atoms in items[::-1])])
    keywords = {"r_cut": 4.0, "n_max": 3, "l_max": 2, "convention": convention}
    options = {"workers": 2} if driver == "dask" else {}
    report = describe_dataset(path, "soap", {**keywords, "average": "off"}, driver=driver, size=2, **options)
    assert report is not None
    assert (report["per"], report["layout"], list(report["problems"])) == ("site", "block-sparse", ["4"])
    species = sorted({"Cu", "Na", "Cl", "Al", "Mg", "O"})
    with Dataset(path) as dataset:
        good = np.array([0, 1, 2, 3, 5, 6, 7, 8])
        expected = soap(dataset.batch(good), species, dtype="float32", **keywords)
        blocks = read_descriptor(dataset, "soap", entries=good)
        assert blocks.nbytes < expected.nbytes / 5
        np.testing.assert_array_equal(blocks.toarray(), expected)
        assert set(read_descriptor(dataset, "soap", entries=[0]).row(0)) == {(29, 29)}
        assert read_descriptor(dataset, "soap", entries=[4], dense=True).any() == np.False_
        assert dataset.file["descriptors/soap_status"][4] == Status.INVALID_INPUT
    assert {violation.rule for violation in validate_dataset(path)} == {"finite-cell"}


def test_compressed_blocks(shard: Path) -> None:
    keywords = {"r_cut": 4.0, "n_max": 3, "l_max": 2, "compression": "mu1nu1"}
    describe_dataset(shard, "soap", {**keywords, "average": "off"}, driver="serial")
    with Dataset(shard) as dataset:
        expected = soap(dataset.batch(), ["Cu"], dtype="float32", **keywords)
        np.testing.assert_array_equal(read_descriptor(dataset, "soap", dense=True), expected)
    assert validate_dataset(shard) == []


def test_patterns(shard: Path) -> None:
    report = describe_dataset(
        shard, "xrd", {"fwhm": 0.2, "bins": 901}, name="pattern", driver="threads", size=7
    )
    assert report is not None
    assert (report["descriptor"], report["n_features"]) == ("pattern", 901)
    with Dataset(shard) as dataset:
        rows = read_descriptor(dataset, "pattern")
        peak = xrd(dataset.batch(slice(0, 1)))[0]
        strongest = peak.two_theta[peak.intensity.argmax()]
        assert abs(np.linspace(0, 90, 901)[rows[0].argmax()] - strongest) < 0.2


def test_what_a_descriptor_cannot_say_has_a_status(write_shard: Callable[..., Path]) -> None:
    """Another element than those of the columns; no neighbours at all; nothing but unfit structures."""
    path = write_shard([bulk("Cu"), bulk("Al"), bulk("Cu", a=3.7)])
    report = describe_dataset(
        path, "soap", {"r_cut": 3, "n_max": 2, "l_max": 1, "species": ["Cu"]}, driver="serial"
    )
    assert report is not None
    with Dataset(path) as dataset:
        status = dataset.file["descriptors/soap_status"]
        assert status[...].tolist() == [Status.OK, Status.UNSUPPORTED_SPECIES, Status.OK]
        assert "element Al" in json.loads(status.attrs["messages"])["1"]
    with pytest.raises(TaskFileError, match="none of the 3 structures; structure 0: element Cu"):
        describe_dataset(path, "prdf", {"r_cut": 3.0, "species": ["Fe"]}, driver="serial")
    assert not chunk_folder(path, "prdf").exists()
    # One atom alone has no neighbours to be Steinhardt's.
    path.unlink()
    path = write_shard([Atoms("Cu", cell=[20, 20, 20], pbc=True), bulk("Cu")])
    describe_dataset(path, "steinhardt", {"r_cut": 3.0, "l": [4]}, driver="serial")
    with Dataset(path) as dataset:
        finite = np.isfinite(read_descriptor(dataset, "steinhardt")).all(axis=1)
        status = dataset.file["descriptors/steinhardt_status"][...]
        assert ((status == Status.OK) == finite).all()
    assert validate_dataset(path) == []


def test_overwrite(shard: Path) -> None:
    for name in ("rdf", "soap"):
        parameters = (
            {"r_cut": 4.0} if name == "rdf" else {"r_cut": 4.0, "n_max": 2, "l_max": 1, "average": "off"}
        )
        describe_dataset(shard, name, parameters, driver="serial")
        with pytest.raises(DatasetError, match=f"has a descriptor '{name}' already"):
            describe_dataset(shard, name, parameters)
        size = shard.stat().st_size
        report = describe_dataset(shard, name, {**parameters, "r_cut": 5.0}, driver="serial", overwrite=True)
        assert report is not None
        with Dataset(shard) as dataset:
            item = dataset.file["descriptors"][name]
            assert json.loads(item.attrs["parameters"])["r_cut"] == 5.0
        assert validate_dataset(shard) == []
        assert shard.stat().st_size < 2 * size + 100_000


def test_stops_and_continues(shard: Path) -> None:
    done: list[int] = []
    parameters = {"r_cut": 4.0}
    with pytest.raises(StoppedError, match=r"SIGTERM: 2 of 8 chunks") as error:
        describe_dataset(
            shard,
            "rdf",
            parameters,
            driver="serial",
            size=4,
            progress=lambda n, total: done.append(n),
            stop=lambda: "SIGTERM" if len(done) == 2 else None,
        )
    assert error.value.exit_code == 75
    assert chunk_folder(shard, "rdf").is_dir()
    with pytest.raises(UnavailableError, match="holds another job") as other:
        describe_dataset(shard, "rdf", {"r_cut": 5.0}, driver="serial", size=4)
    assert "--overwrite" in str(other.value)
    report = describe_dataset(shard, "rdf", parameters, driver="serial", size=4)
    assert report is not None
    assert (report["n_reused"], report["n_computed"]) == (2, 6)
    assert not chunk_folder(shard, "rdf").exists()
    with Dataset(shard) as dataset:
        first = read_descriptor(dataset, "rdf")
    with pytest.raises(StoppedError):
        describe_dataset(
            shard, "rdf", {"r_cut": 5.0}, name="b", driver="serial", size=4, stop=lambda: "walltime"
        )
    report = describe_dataset(shard, "rdf", parameters, name="b", driver="serial", size=4, overwrite=True)
    assert report is not None
    with Dataset(shard) as dataset:
        np.testing.assert_array_equal(read_descriptor(dataset, "b"), first)


@pytest.mark.parametrize("driver", ["serial", "threads", "dask"])
def test_kernel_refuses_a_parameter(driver: str, shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model of the parameters lets pass but the kernel does not is the user's fault with every driver."""
    if driver == "dask":
        pytest.importorskip("distributed")
    options = {"workers": 1} if driver == "dask" else {}
    wrong = {"r_cut": 4.0, "n_max": 2, "l_max": 1, "weighting": {"function": "poly"}}
    with pytest.raises(TaskFileError, match="weighting function poly needs") as error:
        describe_dataset(shard, "soap", wrong, driver=driver, **options)
    assert error.value.exit_code == 65


def test_kernel_refuses_a_parameter_over_ranks(shard: Path) -> None:
    pytest.importorskip("mpi4py")
    options = ["--kernel", "soap", "--set", "r_cut=4,n_max=2,l_max=1,weighting.function=poly"]
    done = _command(shard, *options, ranks=2)
    assert done.returncode == 65, done.stderr
    assert done.stderr.count("weighting function poly needs") == 1


@pytest.mark.kill
def test_signal_ends_the_command_cleanly(shard: Path) -> None:
    arguments = [str(shard), "--kernel", "rdf", "--set", "r_cut=60", "--chunk", "1", "--driver", "serial"]
    program = "import sys; from matcompute.node.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "describe", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        end = time.monotonic() + 60
        while not list(chunk_folder(shard, "rdf").glob("index-*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "stopped: SIGTERM" in err
    assert "run the same command again" in err
    again = _command(*arguments)
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert report["n_reused"] >= 1
    assert report["n_reused"] + report["n_computed"] == N


def test_walltime_ends_the_command_cleanly(shard: Path) -> None:
    arguments = [str(shard), "--kernel", "rdf", "--set", "r_cut=60", "--chunk", "1", "--driver", "serial"]
    done = _command(*arguments, "--walltime", "0.001")
    assert done.returncode == 75, done.stderr
    assert "stopped: walltime: 0 of 30 chunks" in done.stderr
    assert _command(*arguments).returncode == 0


def test_wrong_settings(shard: Path) -> None:
    for kernel, settings, message in (
        ("soap", {"n_max": 2, "l_max": 2}, "r_cut: Field required"),
        ("soap", {"rcut": 5.0, "n_max": 2, "l_max": 2}, "did you mean 'r_cut'"),
        ("soap", {"r_cut": 5.0, "n_max": 2, "l_max": 99}, "l_max: .* less than or equal to 20, found 99"),
        (
            "soap",
            {"r_cut": 5.0, "n_max": 2, "l_max": 2, "average": "iner"},
            "average: .*'inner', 'outer' or 'off'",
        ),
        ("rdf", {"r_cut": -1.0}, "r_cut: .* greater than 0, found -1"),
        ("sope", {}, "no descriptor 'sope'; did you mean 'soap'"),
    ):
        with pytest.raises(TaskFileError, match=message) as error:
            describe_dataset(shard, kernel, settings, driver="serial")
        assert error.value.exit_code == 65
    with pytest.raises(TaskFileError, match="r_cut") as error:
        describe_dataset(shard, "soap", {})
    assert "needs r_cut, n_max, l_max" in str(error.value)


def test_settings() -> None:
    given = (
        "r_cut=5",
        "species=Al",
        "g4=[[1,2],[3,4]]",
        "average=outer,l=4,6,sigma=1e-1",
        "grid.min=0,grid.n=5",
    )
    assert parse_settings(given) == {
        "r_cut": 5,
        "species": "Al",
        "g4": [[1, 2], [3, 4]],
        "average": "outer",
        "l": [4, 6],
        "sigma": 0.1,
        "grid": {"min": 0, "n": 5},
    }
    assert parse_settings(["weighting={function: exp, scale: 0.5},species=Al,Cu"]) == {
        "weighting": {"function": "exp", "scale": 0.5},
        "species": ["Al", "Cu"],
    }
    assert parse_settings([]) == {}
    for wrong, message in (
        (["r_cut"], "expected KEY=VALUE"),
        (["r_cut=1,r_cut=2"], "given twice"),
        (["r_cut=1", "r_cut=2"], "given twice"),
        (["=3"], "expected KEY=VALUE"),
        (["grid=1,grid.n=2"], "as a value and as a mapping"),
        (["g4=[[1,2]"], "bracket"),
    ):
        with pytest.raises(TaskFileError, match=message):
            parse_settings(wrong)


NAMES = st.text("abcdefghij_", min_size=1, max_size=6)
SCALARS = st.one_of(
    st.integers(-1000, 1000), st.booleans(), st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 3))
)


@given(st.dictionaries(NAMES, st.one_of(SCALARS, st.lists(SCALARS, min_size=2, max_size=4)), min_size=1))
def test_settings_round_trip(values: dict[str, Any]) -> None:
    def text(value: Any) -> str:
        return ",".join(map(text, value)) if isinstance(value, list) else json.dumps(value)

    written = ",".join(f"{key}={text(value)}" for key, value in values.items())
    assert parse_settings([written]) == values

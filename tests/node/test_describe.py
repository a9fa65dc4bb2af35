"""Descriptors into a dataset file: same bytes from every driver, over MPI ranks, with statuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from matcompute.dataset import Dataset, DatasetError, Status, validate_dataset
from matcompute.dataset.descriptors import read_descriptor
from matcompute.node.describe import describe_dataset, parse_settings
from matcompute.node.errors import NodeError, TaskFileError
from matcompute_kernels import feature_labels, steinhardt

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
        kernel, {"r_cut": 3.2, "l": [4, 6]}
    )
    report = describe_dataset(shard, kernel, parameters, driver=driver, size=8, **options)
    assert report is not None
    assert (report["n_chunks"], report["n_structures"], report["problems"]) == (4, N, {})
    with Dataset(shard) as dataset:
        values = read_descriptor(dataset, kernel)
        item = dataset.file["descriptors"][kernel]
        assert json.loads(item.attrs["parameters"]) == parameters
        if kernel == "coulomb_matrix":
            assert (report["per"], values.shape) == ("entry", (N, 16))
        else:
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


def test_wrong_settings(shard: Path) -> None:
    with pytest.raises(TaskFileError, match="needs the parameter 'r_cut'"):
        describe_dataset(shard, "soap", {"n_max": 2, "l_max": 2})
    with pytest.raises(TaskFileError, match="did you mean 'r_cut'"):
        describe_dataset(shard, "soap", {"rcut": 5.0, "n_max": 2, "l_max": 2})
    with pytest.raises(TaskFileError, match="r_cut"):
        describe_dataset(shard, "rdf", {"r_cut": -1.0}, driver="serial")
    with pytest.raises(NodeError, match="NAME=VALUE"):
        parse_settings(("r_cut",))


def test_settings() -> None:
    given = ("r_cut=5", "species=Al", "g4=[[1,2],[3,4]]", "average=outer", "l=4,6")
    assert parse_settings(given) == {
        "r_cut": 5,
        "species": ["Al"],
        "g4": [[1, 2], [3, 4]],
        "average": "outer",
        "l": [4, 6],
    }

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase.build import bulk

from matcompute.cli import cli
from matcompute.cli._lazy import run
from matcompute.dataset import Dataset, DatasetWriter
from matcompute.dataset.descriptors import write_dense
from matcompute_kernels import Batch


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("sys.argv", ["matcompute", "dataset", *map(str, arguments)])
    code = run(cli)
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture
def matcompute(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    return lambda *arguments: call(capsys, monkeypatch, *arguments)


def test_info(matcompute, dataset_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = matcompute("info", dataset_path)
    assert code == 0
    assert "50 with" in out
    assert "crashed 5" in out
    code, out, _ = matcompute("info", dataset_path, "--json")
    summary = json.loads(out)
    assert summary["entries"] == 50
    assert summary["properties"]["energy"]["statuses"] == {"ok": 39, "not_converged": 6, "crashed": 5}
    assert summary["selections"]["hull"]["passed"] == 25
    assert set(summary["elements"]) == {"Al", "Ti", "Ni", "Cu", "O"}


@pytest.mark.parametrize("failures", [True, False])
def test_info_fits_80_columns(
    failures: bool,
    dataset_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No name or number is cut or folded; statuses are told only where not all are ok."""
    path = dataset_path
    if not failures:
        path = tmp_path / "good.h5"
        with DatasetWriter(path) as writer:
            batch = Batch.from_atoms([bulk("Al"), bulk("Cu")])
            results = {"energy": [-1.0, -2.0], "initial_volume_per_atom": [16.6075, 11.7615]}
            writer.append(batch, results={key: np.array(value) for key, value in results.items()})
            write_dense(writer, "averaged", np.ones((2, 12)))
    monkeypatch.setattr("sys.argv", ["matcompute", "dataset", "info", str(path)])
    monkeypatch.setenv("COLUMNS", "80")
    assert run(cli) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "mean" not in " ".join(lines)
    assert any("crashed 5" in line for line in lines) == failures
    with Dataset(path) as dataset:
        for name in dataset.properties:
            assert sum(line.startswith(f"{name} ") for line in lines) == 1
    if not failures:
        assert not any("not ok" in line for line in lines if line.startswith("property"))
        row = next(line for line in lines if line.startswith("averaged"))
        assert row.split() == ["averaged", "12", "entry"]


def test_validate(matcompute, dataset_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert matcompute("validate", dataset_path, "--release") == (0, "entries.h5: valid\n", "")
    with h5py.File(dataset_path, "r+") as file:
        file["results/energy"][4] = float("nan")
    code, out, _ = matcompute("validate", dataset_path)
    assert code == 1
    assert "/results/energy[4]: is not finite and its status is ok (nan)" in out
    code, out, _ = matcompute("validate", dataset_path, "--json")
    assert code == 1
    assert json.loads(out)["violations"][0]["row"] == 4


def test_export_and_show(matcompute, dataset_path: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert matcompute("export", dataset_path, tmp_path / "a.csv")[0] == 0
    code, _, err = matcompute("export", dataset_path, tmp_path / "a.csv")
    assert code == 1
    assert "exists" in err
    code, out, _ = matcompute(
        "show", dataset_path, "--sort", "energy", "--selection", "hull", "-n", 3, "--json"
    )
    table = json.loads(out)
    energies = [row["energy"] for row in table["rows"]]
    assert (code, table["total"], energies) == (0, 25, sorted(energies))
    entry_id = table["rows"][0]["id"]
    code, out, _ = matcompute("show", dataset_path, entry_id)
    assert entry_id in out
    assert "structures.extxyz" in out
    code, out, _ = matcompute("show", dataset_path, entry_id, "--json")
    assert json.loads(out)["values"]["energy"] == energies[0]
    code, _, err = matcompute("show", dataset_path, "--sort", "enrgy")
    assert code == 2
    assert "did you mean 'energy'" in err


def test_sort_puts_entries_without_a_value_last(matcompute, dataset_path: Path) -> None:  # type: ignore[no-untyped-def]
    for sort in ("energy", "-energy"):
        _, out, _ = matcompute("show", dataset_path, "--sort", sort, "-n", 50, "--json")
        energies = [row["energy"] for row in json.loads(out)["rows"]]
        assert energies[-5:] == [None] * 5
        assert energies[:45] == sorted(energies[:45], reverse=sort.startswith("-"))


def test_diff(matcompute, dataset_path: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = tmp_path / "other.h5"
    shutil.copy(dataset_path, other)
    code, out, _ = matcompute("diff", dataset_path, other)
    assert (code, out) == (0, "equal: 0 added, 0 removed, 0 changed of 50 in both\n")
    with h5py.File(other, "r+") as file:
        file["results/energy"][4] += 1
    code, out, _ = matcompute("diff", dataset_path, other)
    assert code == 1
    assert "different: 0 added, 0 removed, 1 changed of 50 in both" in out
    assert matcompute("diff", dataset_path, other, "--ignore", "energy")[0] == 0
    assert matcompute("diff", dataset_path, other, "--atol", 2)[0] == 0


def test_trace_and_merge(matcompute, dataset_path: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert matcompute("merge", tmp_path / "m.h5", dataset_path)[0] == 0
    with h5py.File(dataset_path) as file:
        entry = file["entries/id"].asstr()[0]
    code, out, _ = matcompute("trace", tmp_path / "m.h5", entry, "energy")
    assert code == 0
    for text in ("energy = ", "relax", "model_sha256: cdcd", "computer: local", "structures.extxyz:1"):
        assert text in out
    code, out, _ = matcompute("trace", tmp_path / "m.h5", entry, "energy", "--json")
    assert [s["kind"] for s in json.loads(out)][-1] == "source"


@pytest.mark.parametrize("command", ["info", "validate", "show"])
def test_input_errors(matcompute, tmp_path: Path, command: str) -> None:  # type: ignore[no-untyped-def]
    code, _, err = matcompute(command, tmp_path / "a.h5")
    assert code == 2
    assert "no such file" in err
    (tmp_path / "a.h5").write_text("text")
    code, _, err = matcompute(command, tmp_path / "a.h5")
    assert code == 2
    assert "not an HDF5 file" in err

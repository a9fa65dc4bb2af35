"""Descriptors in other formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from matcompute.cli.dataset import dataset as command
from matcompute.dataset import Dataset, DatasetError, DatasetWriter, Status, UnknownNameError, export_dataset
from matcompute.dataset.descriptors import BlockSparse, DescriptorInfo, write_descriptor

SOAP = DescriptorInfo("soap", 3, kernel="soap", units="1", labels=("Al-Al n=0", "Al-O n=0", "O-O n=0"))
LOCAL = replace(SOAP, name="local", per="site", layout="block-sparse", dtype="f4")


@pytest.fixture
def described(dataset_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A file, its rows per entry (none for entry 4) and per site."""
    rng = np.random.default_rng(0)
    with DatasetWriter.append_to(dataset_path) as writer:
        values = rng.normal(size=(50, 3))
        values[4] = np.nan
        status = np.full(50, Status.OK, "u1")
        status[4] = Status.INVALID_INPUT
        write_descriptor(writer, SOAP, [values], status=status, process=np.ones(50, "i4"))
        m = writer.n_sites
        local = rng.random((m, 3)).astype("f4")
        kinds = np.array([[13, 13], [8, 13], [8, 8]], dtype="u1")
        blocks = BlockSparse(np.arange(m + 1) * 3, np.tile(kinds, (m, 1)), local.ravel(), kinds, np.arange(4))
        write_descriptor(writer, LOCAL, [blocks], status=np.full(50, Status.OK, "u1"))
    return dataset_path, values, local


def test_npz(described: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    path, values, local = described
    with Dataset(path) as ds:
        passed = np.flatnonzero(ds.selections["hull"].mask)
        sizes = ds.entry_column("n_sites")
        assert export_dataset(ds, tmp_path / "soap.npz", descriptor="soap", selection="hull") == len(passed)
        export_dataset(ds, tmp_path / "local.npz", descriptor="local")
        ids = ds.ids
    with np.load(tmp_path / "soap.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["values"], values[passed])
        assert found["ids"].tolist() == ids[passed].tolist()
        assert found["labels"].tolist() == list(SOAP.labels)
        assert (found["status"] != Status.OK).sum() == 1
    with np.load(tmp_path / "local.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["values"], local)
        assert np.diff(found["ptr"]).tolist() == sizes.tolist()


def test_tables(described: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    path, values, _ = described
    with Dataset(path) as ds:
        for name in ("t.csv", "t.parquet"):
            export_dataset(ds, tmp_path / name, descriptor="soap")
        with pytest.raises(DatasetError, match="row per site"):
            export_dataset(ds, tmp_path / "u.csv", descriptor="local")
    columns = [f"soap {label}" for label in SOAP.labels]
    frame = pd.read_csv(tmp_path / "t.csv", comment="#")
    np.testing.assert_array_equal(frame[columns].to_numpy(), values)
    assert frame["soap_status"][4] == "invalid_input"
    table = pq.read_table(tmp_path / "t.parquet")
    np.testing.assert_array_equal(table.select(columns).to_pandas().to_numpy(), values)
    assert table.schema.field(columns[0]).metadata == {b"units": b"1"}
    assert not (tmp_path / "u.csv").exists()


def test_atoms(described: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    path, values, local = described
    with Dataset(path) as ds:
        export_dataset(ds, tmp_path / "a.extxyz", descriptor="soap")
        export_dataset(ds, tmp_path / "b.extxyz", descriptor="local")
        export_dataset(ds, tmp_path / "c.db", descriptor="soap")
        with pytest.raises(DatasetError, match="no descriptors"):
            export_dataset(ds, tmp_path / "d.cif", descriptor="soap")
    frames = ase.io.read(tmp_path / "a.extxyz", ":")
    np.testing.assert_allclose(frames[7].info["soap"], values[7], rtol=1e-8)
    assert "soap" not in frames[4].info
    frames = ase.io.read(tmp_path / "b.extxyz", ":")
    np.testing.assert_allclose(np.concatenate([a.arrays["local"] for a in frames]), local, atol=1e-8)
    with ase.db.connect(tmp_path / "c.db") as database:
        np.testing.assert_array_equal(database.get(8).data["soap"], values[7])


def test_command(described: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    path, _, _ = described
    arguments = ["export", str(path), str(tmp_path / "soap.npz"), "--descriptor", "soap"]
    assert "50 entries" in CliRunner().invoke(command, arguments, catch_exceptions=False).output
    with Dataset(path) as ds:
        with pytest.raises(DatasetError, match=r"takes one descriptor \(local, soap\)"):
            export_dataset(ds, tmp_path / "x.npz")
        with pytest.raises(UnknownNameError, match="did you mean 'soap'"):
            export_dataset(ds, tmp_path / "x.npz", descriptor="sope")

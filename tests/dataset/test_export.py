from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from ase.db import connect
from ase.io import read
from ase.units import GPa
from pymatgen.io.cif import CifParser

from matcompute.dataset import Dataset, DatasetError, DatasetWriter, Status, UnknownNameError, export_dataset
from matcompute_kernels import Batch


@pytest.fixture
def opened(dataset_path: Path):  # type: ignore[no-untyped-def]
    with Dataset(dataset_path) as ds:
        yield ds


def test_extxyz(opened: Dataset, tmp_path: Path) -> None:
    assert export_dataset(opened, tmp_path / "a.extxyz") == 50
    images = read(tmp_path / "a.extxyz", ":")
    batch = Batch.from_atoms(images)
    assert np.allclose(batch.positions, opened.batch().positions, atol=1e-7)
    assert np.array_equal(batch.numbers, opened.batch().numbers)
    assert [a.info["entry_id"] for a in images] == opened.ids.tolist()
    assert images[0].get_potential_energy() == pytest.approx(opened.column("energy")[0], abs=1e-7)
    assert images[0].get_stress() == pytest.approx(opened.column("stress")[0] * GPa, abs=1e-7)
    assert np.allclose(images[0].get_forces(), opened.column("forces", [0]), atol=1e-7)
    assert images[5].calc is None
    assert images[5].info["energy_status"] == "crashed"


def test_cif(opened: Dataset, tmp_path: Path) -> None:
    assert export_dataset(opened, tmp_path / "a.cif", selection="hull") == 25
    text = (tmp_path / "a.cif").read_text()
    ids = opened.ids[::2].tolist()
    assert [line[5:] for line in text.splitlines() if line.startswith("data_")] == ids
    structures = CifParser(
        str(tmp_path / "a.cif"), occupancy_tolerance=100, site_tolerance=1e-6
    ).parse_structures(primitive=False)
    for row, structure in zip(range(0, 50, 2), structures, strict=True):
        ours = opened.structure(row)
        assert structure.composition == ours.composition
        assert structure.volume == pytest.approx(ours.volume, rel=1e-6)


def test_cif_needs_a_cell(tmp_path: Path) -> None:
    from ase.build import molecule

    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(Batch.from_atoms([molecule("H2O")]))
    with Dataset(tmp_path / "a.h5") as ds, pytest.raises(DatasetError, match="has no cell"):
        export_dataset(ds, tmp_path / "a.cif")
    assert not (tmp_path / "a.cif").exists()


def test_csv(opened: Dataset, tmp_path: Path) -> None:
    export_dataset(opened, tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text()
    assert text.startswith("# units: ")
    assert "energy [eV]" in text.splitlines()[0]
    frame = pd.read_csv(tmp_path / "a.csv", comment="#")
    assert np.array_equal(frame["energy"], opened.column("energy"), equal_nan=True)
    assert frame["energy_status"].tolist() == [Status(s).label for s in opened.status("energy")]
    assert np.isnan(frame["energy"][5])


def test_parquet(opened: Dataset, tmp_path: Path) -> None:
    export_dataset(opened, tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.field("stress_xx").metadata[b"units"] == b"GPa"
    assert table.schema.metadata[b"dataset_id"].decode() == opened.metadata.dataset_id
    frame = table.to_pandas()
    assert np.array_equal(frame["stress_xy"], opened.column("stress")[:, 5], equal_nan=True)
    assert frame["id"].tolist() == opened.ids.tolist()


def test_ase_db(opened: Dataset, tmp_path: Path) -> None:
    export_dataset(opened, tmp_path / "a.db")
    with connect(tmp_path / "a.db") as database:
        assert len(database) == 50
        row = database.get(entry_id=str(opened.ids[7]))
        assert row.energy == opened.column("energy")[7]
        assert np.allclose(row.toatoms().positions, opened.atoms(7).positions, atol=0)
        assert row.n_steps == opened.column("n_steps")[7]
        assert np.array_equal(row.data["eos_volume"], opened.column("eos_volume")[7])
        assert {r.entry_id for r in database.select(energy_status="crashed")} == set(
            opened.ids[5::11].tolist()
        )


def test_existing_file_unknown_format_and_selection(opened: Dataset, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(DatasetError, match="exists"):
        export_dataset(opened, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "mine"
    export_dataset(opened, tmp_path / "a.csv", overwrite=True)
    with pytest.raises(DatasetError, match="cannot tell the format"):
        export_dataset(opened, tmp_path / "a.dat")
    with pytest.raises(DatasetError, match="did you mean 'parquet'"):
        export_dataset(opened, tmp_path / "a.dat", "parket")
    with pytest.raises(UnknownNameError, match="did you mean 'hull'"):
        export_dataset(opened, tmp_path / "b.csv", selection="hul")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "entries.h5"]


def test_more_entries_than_a_block(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(make_batch(4100, sites=(1, 2)))
    with Dataset(tmp_path / "a.h5") as ds:
        assert export_dataset(ds, tmp_path / "a.extxyz") == 4100
    assert len(read(tmp_path / "a.extxyz", ":")) == 4100

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from matcompute.dataset import (
    Dataset,
    DatasetError,
    DatasetFileError,
    DatasetWriter,
    Quality,
    Status,
    UnknownNameError,
    validate_dataset,
)
from matcompute_kernels import Batch


@pytest.fixture
def big(tmp_path: Path, make_dataset: Callable[..., Batch]) -> tuple[Path, Batch]:
    """More entries and sites than one chunk holds."""
    return tmp_path / "big.h5", make_dataset(tmp_path / "big.h5", n=3000)


def test_batch_of_slices_masks_and_index_arrays(big: tuple[Path, Batch]) -> None:
    path, batch = big
    rng = np.random.default_rng(0)
    with Dataset(path) as ds:
        mask = rng.random(3000) < 0.3
        choices = [
            None,
            slice(1000, 1100),
            slice(None, None, 7),
            slice(20, 10),
            [2999, 0, 5, 5],
            rng.permutation(3000),
            mask,
            [-1],
            [],
        ]
        for rows in choices:
            got = ds.batch(rows)
            expected = (
                batch
                if rows is None
                else batch[
                    rows if isinstance(rows, slice) else np.array(rows, dtype=None if len(rows) else int)
                ]
            )
            for name in ("numbers", "positions", "cell", "pbc", "ptr"):
                assert np.array_equal(getattr(got, name), getattr(expected, name)), (rows, name)
        forces = ds.column("forces")
        rows = np.array([2500, 3, 1024])
        assert np.array_equal(ds.column("forces", rows), forces[batch.site_index(rows)], equal_nan=True)
        assert np.array_equal(ds.column("stress", rows), ds.column("stress")[rows], equal_nan=True)
        joined = Batch.concatenate(list(ds.iter_batches(700)))
        assert np.array_equal(joined.positions, batch.positions)


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_batch_with_any_values_comes_back(tmp_path: Path, data: st.DataObject) -> None:
    """Bit for bit, in any number of blocks."""
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=12))
    n, m = len(sizes), sum(sizes)
    floats = st.floats(-1e6, 1e6, width=64)
    batch = Batch(
        data.draw(hnp.arrays("u1", m, elements=st.integers(1, 118))),
        data.draw(hnp.arrays("f8", (m, 3), elements=floats)),
        data.draw(hnp.arrays("f8", (n, 3, 3), elements=floats)),
        data.draw(hnp.arrays(bool, (n, 3))),
        np.concatenate([[0], np.cumsum(sizes)]),
    )
    energy = data.draw(hnp.arrays("f8", n, elements=st.floats(allow_infinity=False, width=64)))
    forces = data.draw(hnp.arrays("f8", (m, 3), elements=floats))
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    messages = data.draw(st.lists(text, min_size=n, max_size=n))
    cut = data.draw(st.integers(0, n))
    path = tmp_path / "any.h5"
    with DatasetWriter(path, overwrite=True) as writer:
        for a, b in ((0, cut), (cut, n)):
            sites = slice(batch.ptr[a], batch.ptr[b])
            writer.append(
                batch[a:b],
                ids=[f"e{k}" for k in range(a, b)],
                results={"energy": energy[a:b]},
                site_results={"forces": forces[sites]},
                entry={"message": messages[a:b]},
            )
    with Dataset(path) as ds:
        back = ds.batch()
        for name in ("numbers", "positions", "cell", "pbc", "ptr"):
            assert np.array_equal(getattr(back, name), getattr(batch, name))
        assert np.array_equal(ds.column("energy"), energy, equal_nan=True)
        assert np.array_equal(ds.column("forces"), forces)
        assert ds.entry_column("message").tolist() == messages
        assert ds.ids.tolist() == [f"e{k}" for k in range(n)]
    assert {v.rule for v in validate_dataset(path)} <= {"finite-cell"}  # a random cell may have no volume


def test_entry(dataset_path: Path) -> None:
    with Dataset(dataset_path) as ds:
        entry = ds[5]
        assert entry == entry
        assert entry.statuses["energy"] is Status.CRASHED
        assert entry.message == "Rechnung abgestürzt: Å"
        assert entry.quality == Quality.FAILED
        assert np.isnan(entry.values["energy"])
        good = ds[str(ds.ids[0])]
        assert good.row == 0
        assert good.units["stress"] == "GPa"
        assert good.values["stress"].shape == (6,)
        assert good.values["forces"].shape == (len(good.atoms), 3)
        assert good.source is not None
        assert (good.source.path, good.source_line) == ("structures.extxyz", 1)
        assert good.method is not None
        assert good.method.code == "ase"
        assert good.selections == ("hull",)
        assert good.node_uuid.endswith("3")
        assert [e.row for e in ds][-1] == 49


def test_structures_as_ase_and_pymatgen(dataset_path: Path, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(50)
    with Dataset(dataset_path) as ds:
        assert all(a == b for a, b in zip(ds.iter_atoms(), batch.iter_atoms(), strict=True))
        for a, b in zip(ds.iter_structures(), batch.iter_structures(), strict=True):
            assert a == b
        assert ds.atoms(-1) == batch.to_atoms(49)
        assert ds.structure(3) == batch.to_structure(3)


def test_find(dataset_path: Path) -> None:
    with Dataset(dataset_path) as ds:
        ids = ds.ids
        assert ds.find(ids[17]) == 17
        assert ds.find_all(ids[[4, 49, 0]]).tolist() == [4, 49, 0]
        assert ds.find_all([]).tolist() == []
        with pytest.raises(UnknownNameError, match=f"did you mean '{ids[17]}'"):
            ds.find(ids[17][:-1] + "x")
        with pytest.raises(UnknownNameError, match="no entry 'Xx-1'"):
            ds.find_all([ids[3], "Xx-1"])


def test_to_pandas(dataset_path: Path) -> None:
    with Dataset(dataset_path) as ds:
        frame = ds.to_pandas()
        assert len(frame) == 50
        assert frame.attrs["units"]["stress_xx"] == "GPa"
        assert frame["hull"].sum() == 25
        assert np.array_equal(frame["energy"], ds.column("energy"), equal_nan=True)
        few = ds.to_pandas(["id", "energy", "row_size", "node_uuid"], rows=[3, 1])
        assert few["id"].tolist() == ds.ids[[3, 1]].tolist()
        assert few["node_uuid"][0].startswith("00000000-0000-4000")
        with pytest.raises(UnknownNameError, match="did you mean 'energy'"):
            ds.to_pandas(["enrgy"])


def test_unknown_names(dataset_path: Path) -> None:
    with Dataset(dataset_path) as ds:
        with pytest.raises(UnknownNameError, match="did you mean 'forces'"):
            ds.column("force")
        with pytest.raises(KeyError):
            ds.status("nothing")
        with pytest.raises(UnknownNameError, match="did you mean 'source_line'"):
            ds.entry_column("source_lines")
        with pytest.raises(DatasetError, match="no row 50"):
            ds[50]
        with pytest.raises(DatasetError, match="lies outside"):
            ds.batch([50])


def test_missing_folder_text_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetFileError, match="no such file"):
        Dataset(tmp_path / "a.h5")
    with pytest.raises(DatasetFileError, match="folder"):
        Dataset(tmp_path)
    (tmp_path / "a.h5").write_text("structures")
    with pytest.raises(DatasetFileError, match="not an HDF5 file"):
        Dataset(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(DatasetFileError, match="no matcompute dataset"):
        Dataset(tmp_path / "b.h5")


@pytest.mark.parametrize(
    ("version", "text"), [("2.0", "up to 1.x"), ("0.9", "is not read"), ("new", "is not a version")]
)
def test_other_format_versions(dataset_path: Path, version: str, text: str) -> None:
    with h5py.File(dataset_path, "r+") as file:
        file.attrs["format_version"] = np.bytes_(version)
    with pytest.raises(DatasetFileError, match=text) as caught:
        Dataset(dataset_path)
    assert caught.value.exit_code == 2


def test_newer_minor_version_is_read(dataset_path: Path) -> None:
    with h5py.File(dataset_path, "r+") as file:
        file.attrs["format_version"] = np.bytes_("1.7")
    with Dataset(dataset_path) as ds:
        assert len(ds) == 50


def test_incomplete_file(dataset_path: Path) -> None:
    with h5py.File(dataset_path, "r+") as file:
        del file["sites/position"]
    with pytest.raises(DatasetFileError, match="/sites/position is missing"):
        Dataset(dataset_path)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.99])
def test_cut_file(dataset_path: Path, keep: float) -> None:
    data = dataset_path.read_bytes()
    dataset_path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DatasetFileError, match="damaged or cut short"):
        Dataset(dataset_path)


def test_damaged_chunk_is_an_error_not_a_number(dataset_path: Path) -> None:
    with h5py.File(dataset_path) as file:
        offset = file["results/energy"].id.get_chunk_info(0).byte_offset
    data = bytearray(dataset_path.read_bytes())
    data[offset + 20] ^= 0xFF
    dataset_path.write_bytes(data)
    with Dataset(dataset_path) as ds, pytest.raises(DatasetFileError, match="/results/energy is damaged"):
        ds.column("energy")


def test_a_reader_keeps_its_view_while_the_file_is_replaced(
    dataset_path: Path, make_batch: Callable[..., Batch]
) -> None:
    with Dataset(dataset_path) as ds:
        with DatasetWriter.append_to(dataset_path) as writer:
            writer.append(make_batch(5, seed=3))
        assert ds.batch().numbers.shape[0] == ds.n_sites
        assert len(ds) == 50
    with Dataset(dataset_path) as ds:
        assert len(ds) == 55

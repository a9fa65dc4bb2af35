"""Each rule of the format, found in the file itself (design, section 3)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from matcompute.dataset import Dataset, DatasetWriter, merge_datasets
from matcompute.dataset.descriptors import write_dense
from matcompute_kernels import Batch

GROUPS = ("entries", "sites", "results", "methods", "sources", "selections", "provenance")


def every_dataset(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    assert len(found) > 50
    return found


def test_gzip_shuffle_fletcher32_and_no_other_filter(dataset_path: Path) -> None:
    with h5py.File(dataset_path) as file:
        for dataset in every_dataset(file):
            plist = dataset.id.get_create_plist()
            filters = [plist.get_filter(k)[0] for k in range(plist.get_nfilters())]
            assert filters == [
                h5py.h5z.FILTER_SHUFFLE,
                h5py.h5z.FILTER_DEFLATE,
                h5py.h5z.FILTER_FLETCHER32,
            ], dataset.name


def test_per_site_descriptors_are_float32_chunked_with_fletcher32_only(
    tmp_path: Path, make_batch: Callable[..., Batch]
) -> None:
    batch = make_batch(20)
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(batch)
        write_dense(writer, "soap", np.ones((batch.numbers.shape[0], 30)), per="site")
    with h5py.File(tmp_path / "a.h5") as file:
        dataset = file["descriptors/soap"]
        assert dataset.dtype == np.float32
        assert dataset.chunks is not None
        assert (dataset.compression, dataset.shuffle, dataset.fletcher32) == (None, False, True)


def test_library_version_at_most_v110(dataset_path: Path) -> None:
    with h5py.File(dataset_path) as file:
        assert file.id.get_create_plist().get_version()[0] <= 3
    assert dataset_path.read_bytes()[8] <= 3


def test_every_dimension_has_a_scale(dataset_path: Path) -> None:
    with h5py.File(dataset_path) as file:
        for dataset in every_dataset(file):
            if dataset.is_scale:
                continue
            for axis in range(dataset.ndim):
                scales = dataset.dims[axis].values()
                assert len(scales) == 1, dataset.name
                assert scales[0].shape == (dataset.shape[axis],), dataset.name


def test_scales_follow_when_rows_are_appended(dataset_path: Path, make_batch: Callable[..., Batch]) -> None:
    with DatasetWriter.append_to(dataset_path) as writer:
        writer.append(make_batch(30, seed=8), ids=["x" * 40 + str(k) for k in range(30)])
    test_every_dimension_has_a_scale(dataset_path)


def test_text_is_fixed_width_utf8_and_nothing_has_a_variable_length(dataset_path: Path) -> None:
    with h5py.File(dataset_path) as file:
        items: list[h5py.HLObject] = [file, *every_dataset(file)]
        texts = 0
        for item in items:
            kinds = [item.id.get_type()] if isinstance(item, h5py.Dataset) else []
            own = {"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"}  # HDF5's, for dimension scales
            kinds += [h5py.h5a.open(item.id, name.encode()).get_type() for name in set(item.attrs) - own]
            for kind in kinds:
                assert not isinstance(kind, h5py.h5t.TypeVlenID), item.name
                if isinstance(kind, h5py.h5t.TypeStringID):
                    texts += 1
                    assert not kind.is_variable_str(), item.name
                    assert kind.get_cset() == h5py.h5t.CSET_UTF8, item.name
        assert texts > 90


def test_chunks(dataset_path: Path) -> None:
    with h5py.File(dataset_path) as file:
        assert file["entries/cell"].chunks == (1024, 3, 3)
        assert file["results/energy"].chunks == (1024,)
        assert file["sites/position"].chunks == (8192, 3)


def test_a_shard_appears_under_its_name_when_closed(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    path = tmp_path / "a.h5"
    with DatasetWriter(path) as writer:
        writer.append(make_batch(10))
        assert not path.exists()
    with h5py.File(path) as file:  # and no writer's mark is left in it
        assert file["entries/id"].shape == (10,)


def test_parallel_output_is_one_file_a_rank_merged(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(90)
    parts = []
    for rank in range(3):
        parts.append(tmp_path / f"rank-{rank}.h5")
        with DatasetWriter(parts[-1]) as writer:
            rows = np.arange(90)[rank::3]
            writer.append(batch[rows], ids=[f"e{k}" for k in rows])
    merge_datasets(parts, tmp_path / "all.h5")
    with Dataset(tmp_path / "all.h5") as ds:
        order = ds.find_all([f"e{k}" for k in range(90)])
        assert np.array_equal(ds.batch(order).positions, batch.positions)


def test_failed_structures_stay_with_status_and_message(dataset_path: Path) -> None:
    with h5py.File(dataset_path) as file:
        status = file["results/energy_status"][:]
        assert (status == 4).sum() == 5
        assert all(m.decode() for m in file["entries/message"][:][status == 4])
        assert np.isnan(file["results/energy"][:][status == 4]).all()
        assert not np.isnan(file["results/energy"][:][status == 1]).any()


def test_results_carry_units_and_definitions(dataset_path: Path) -> None:
    with h5py.File(dataset_path) as file:
        for name, dataset in file["results"].items():
            if not name.endswith(("_status", "_process")):
                assert all(dataset.attrs[k] for k in ("units", "long_name", "property_definition")), name
        flags = file["results/energy_status"].attrs
        assert flags["flag_values"].tolist() == list(range(13))
        assert flags["flag_meanings"].split()[4] == b"crashed"


def test_plain_h5py_reads_the_ragged_layout(dataset_path: Path, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(50)
    with h5py.File(dataset_path) as file:
        start, size = file["entries/site_start"][7], file["entries/row_size"][7]
        assert np.array_equal(file["sites/position"][start : start + size], batch[7].positions)
        assert file["entries/id"].asstr()[0].count("-") == 1


def test_pandas_reads_it_through_h5py(dataset_path: Path) -> None:
    with h5py.File(dataset_path) as file:
        frame = pd.DataFrame({k: file[f"results/{k}"][:] for k in ("energy", "energy_status", "n_steps")})
    assert frame.groupby("energy_status")["energy"].count().to_dict() == {1: 39, 2: 6, 4: 0}


def test_xarray_reads_every_group(dataset_path: Path) -> None:
    with h5py.File(dataset_path) as file:
        energy, ids = file["results/energy"][:], file["entries/id"][:].astype("S")
    for group in GROUPS:
        with xr.open_dataset(dataset_path, group=group, engine="h5netcdf") as data:
            data.load()
            assert not [d for d in data.sizes if str(d).startswith("phony")]
            if group == "results":
                assert data["energy"].dims == ("entry",)
                assert data["stress"].dims == ("entry", "voigt")
                assert data["eos_volume"].dims == ("entry", "eos_point")
                assert data["energy"].attrs["units"] == "eV"
                assert np.array_equal(data["energy"].values, energy, equal_nan=True)
            if group == "entries":
                assert data["cell"].dims == ("entry", "cell_vector", "xyz")
                assert np.array_equal(data["id"].values.astype("S"), ids)
                assert data["last_modified"].dtype.kind == "M"
            if group == "sites":
                assert data["forces"].dims == ("site", "xyz")
    with xr.open_dataset(dataset_path, engine="h5netcdf") as root:
        assert root.attrs["node_class"] == "computation"
        assert json.loads(root.attrs["software"])["matcompute"]


@pytest.mark.apt
@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump is not installed (apt: hdf5-tools)")
def test_h5dump_reads_every_value(dataset_path: Path) -> None:
    done = subprocess.run(["h5dump", dataset_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower()
    with h5py.File(dataset_path) as file:
        for path, dims in (("/results/energy", "1"), ("/entries/id", "1"), ("/sites/position", "2")):
            shown = subprocess.run(
                ["h5dump", "-y", "-w", "0", "-m", "%.17g", "-d", path, dataset_path],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            data = shown[shown.index("DATA {") + 6 :].split("}")[0].replace("\n", " ")
            values = [v.strip().strip('"').replace("\\000", "") for v in data.split(",")]
            expected = file[path][:].ravel()
            assert len(values) == expected.size, dims
            if path == "/entries/id":
                assert values == [v.decode() for v in expected]
            else:
                got = np.array([float(v.replace("-nan", "nan")) for v in values])
                assert np.array_equal(got, expected, equal_nan=True)

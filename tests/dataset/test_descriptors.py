from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from matcompute.dataset import Dataset, DatasetError, DatasetWriter, UnknownNameError, validate_dataset
from matcompute.dataset.descriptors import BlockSparse, read_descriptor, write_block_sparse, write_dense
from matcompute_kernels import Batch


def test_round_trip(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    rng = np.random.default_rng(0)
    batch = make_batch(2000)
    m = batch.numbers.shape[0]
    averaged, dense = rng.normal(size=(2000, 12)), rng.normal(size=(m, 5)).astype("f4")
    counts = rng.integers(0, 4, size=m)
    ptr = np.concatenate([[0], np.cumsum(counts)])
    sparse = BlockSparse(
        ptr, rng.integers(1, 90, size=(ptr[-1], 2)).astype("u1"), rng.random((ptr[-1], 9)).astype("f4")
    )
    path = tmp_path / "a.h5"
    with DatasetWriter(path) as writer:
        writer.append(batch)
        write_dense(writer, "averaged", averaged, features=[f"f{k}" for k in range(12)])
        write_dense(writer, "dense", dense, per="site")
        write_block_sparse(writer, "sparse", sparse)
    with Dataset(path) as ds:
        assert np.array_equal(read_descriptor(ds, "averaged"), averaged)
        rows = np.array([1500, 3, 700])
        assert np.array_equal(read_descriptor(ds, "averaged", rows), averaged[rows])
        assert np.array_equal(read_descriptor(ds, "dense", slice(10, 20)), dense[10:20])
        back = read_descriptor(ds, "sparse")
        assert isinstance(back, BlockSparse)
        for name in ("ptr", "pairs", "values"):
            assert np.array_equal(getattr(back, name), getattr(sparse, name))
        with pytest.raises(UnknownNameError, match="did you mean 'averaged'"):
            read_descriptor(ds, "avraged")
        with pytest.raises(DatasetError, match="as a whole"):
            read_descriptor(ds, "sparse", rows)
    assert validate_dataset(path) == []
    with xr.open_dataset(path, group="descriptors", engine="h5netcdf") as data:
        assert data["averaged"].dims == ("entry", "averaged_feature")
        assert data["dense"].dims == ("site", "dense_feature")
    with xr.open_dataset(path, group="descriptors/sparse", engine="h5netcdf") as data:
        assert data["values"].dims == ("sparse_block", "sparse_value")
        assert data["row_size"].attrs["sample_dimension"] == "sparse_block"


def test_wrong_shapes(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(make_batch(3))
        with pytest.raises(DatasetError, match="expected \\(3, features\\)"):
            write_dense(writer, "x", np.zeros((2, 4)))
        with pytest.raises(DatasetError, match="4 features and 1 feature names"):
            write_dense(writer, "x", np.zeros((3, 4)), features=["a"])
        blocks = BlockSparse(np.zeros(3, "i8"), np.zeros((0, 2), "u1"), np.zeros((0, 4), "f4"))
        with pytest.raises(DatasetError, match="4 offsets"):
            write_block_sparse(writer, "x", blocks, per="entry")

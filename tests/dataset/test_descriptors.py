from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from matcompute.dataset import (
    Dataset,
    DatasetError,
    DatasetWriter,
    Status,
    UnknownNameError,
    validate_dataset,
)
from matcompute.dataset.descriptors import (
    BlockSparse,
    descriptor_names,
    descriptor_status,
    read_descriptor,
    remove_descriptor,
    write_block_sparse,
    write_dense,
    write_status,
)
from matcompute_kernels import Batch

KINDS = np.array([[8, 8], [8, 12], [8, 26], [12, 12], [12, 26], [26, 26]], dtype="u1")
OFFSET = np.array([0, 3, 8, 13, 16, 21, 24])


def blocks_of(rows: int, seed: int = 0) -> BlockSparse:
    """Rows with some of the pairs each, in their order."""
    rng = np.random.default_rng(seed)
    there = rng.random((rows, len(KINDS))) < 0.4
    kind = np.nonzero(there)[1]
    ptr = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    n = int(np.diff(OFFSET)[kind].sum())
    return BlockSparse(ptr, KINDS[kind], rng.random(n).astype("f4"), KINDS, OFFSET)


@pytest.fixture
def path(tmp_path: Path, make_batch: Callable[..., Batch]) -> Path:
    """A file with a dense descriptor per entry and per site, and a block-sparse one."""
    batch = make_batch(2000)
    rng = np.random.default_rng(0)
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(batch)
        write_dense(writer, "averaged", rng.normal(size=(2000, 12)), features=[f"f{k}" for k in range(12)])
        write_dense(writer, "dense", rng.normal(size=(len(batch.numbers), 5)).astype("f4"), per="site")
        write_block_sparse(writer, "sparse", blocks_of(len(batch.numbers)))
        write_status(writer, "sparse", np.full(2000, Status.OK, "u1"))
    return tmp_path / "a.h5"


def test_round_trip(path: Path) -> None:
    rng = np.random.default_rng(0)
    averaged = rng.normal(size=(2000, 12))
    with Dataset(path) as ds:
        dense, sparse = rng.normal(size=(ds.n_sites, 5)).astype("f4"), blocks_of(ds.n_sites)
        assert np.array_equal(read_descriptor(ds, "averaged"), averaged)
        rows = np.array([1500, 3, 700])
        assert np.array_equal(read_descriptor(ds, "averaged", rows), averaged[rows])
        assert np.array_equal(read_descriptor(ds, "dense", slice(10, 20)), dense[10:20])
        back = read_descriptor(ds, "sparse")
        assert isinstance(back, BlockSparse)
        for name in ("ptr", "pairs", "values", "kinds", "offset"):
            assert np.array_equal(getattr(back, name), getattr(sparse, name))
        assert descriptor_names(ds) == ["averaged", "dense", "sparse"]
        assert (descriptor_status(ds, "sparse") == Status.OK).all()
        assert (descriptor_status(ds, "averaged", rows) == Status.OK).tolist() == [True] * 3
        with pytest.raises(UnknownNameError, match="did you mean 'averaged'"):
            read_descriptor(ds, "avraged")
        with pytest.raises(UnknownNameError, match="did you mean .sparse"):
            read_descriptor(ds, "sparse_status")
        with pytest.raises(DatasetError, match="not both"):
            read_descriptor(ds, "sparse", rows, entries=rows)
    assert validate_dataset(path) == []
    with xr.open_dataset(path, group="descriptors", engine="h5netcdf") as data:
        assert data["averaged"].dims == ("entry", "averaged_feature")
        assert data["dense"].dims == ("site", "dense_feature")
    with xr.open_dataset(path, group="descriptors/sparse", engine="h5netcdf") as data:
        assert data["values"].dims == ("sparse_value",)
        assert data["pair"].dims == ("sparse_block", "pair")
        assert data["row_size"].attrs["sample_dimension"] == "sparse_block"


def test_blocks_by_row_and_entry(path: Path) -> None:
    with Dataset(path) as ds:
        dense = blocks_of(ds.n_sites).toarray()
        assert dense.shape == (ds.n_sites, 24)
        assert np.array_equal(read_descriptor(ds, "sparse", dense=True), dense)
        rng = np.random.default_rng(1)
        for rows in (
            slice(5, 30),
            slice(0, 0),
            slice(None, None, 7),
            rng.integers(0, ds.n_sites, 50),
            rng.random(ds.n_sites) < 0.3,
        ):
            part = read_descriptor(ds, "sparse", rows)
            assert isinstance(part, BlockSparse)
            assert np.array_equal(part.toarray(), dense[rows])
            assert np.array_equal(part.tocsr().toarray(), dense[rows])
        _, ptr = ds.site_selection(None)
        one = read_descriptor(ds, "sparse", entries=slice(17, 18))
        assert np.array_equal(one.toarray(), dense[ptr[17] : ptr[18]])
        some = np.array([900, 3])
        sites = np.concatenate([np.arange(ptr[e], ptr[e + 1]) for e in some])
        assert np.array_equal(read_descriptor(ds, "sparse", entries=some, dense=True), dense[sites])
        first = one.row(0)
        for pair, values in first.items():
            k = KINDS.tolist().index(list(pair))
            assert np.array_equal(dense[ptr[17], OFFSET[k] : OFFSET[k + 1]], values)


def test_written_in_parts_and_replaced(path: Path) -> None:
    with DatasetWriter.append_to(path) as writer:
        whole = blocks_of(writer.n_sites)
        remove_descriptor(writer, "sparse")
        remove_descriptor(writer, "dense")
        parts = []
        for start in range(0, writer.n_sites, 997):
            rows = slice(start, min(start + 997, writer.n_sites))
            a, b = whole.ptr[rows.start], whole.ptr[rows.stop]
            values = whole.values[whole.value_ptr[a] : whole.value_ptr[b]]
            ptr = whole.ptr[rows.start : rows.stop + 1] - a
            parts.append(BlockSparse(ptr, whole.pairs[a:b], values, KINDS, OFFSET))
        write_block_sparse(writer, "sparse", iter(parts))
    assert validate_dataset(path) == []
    with Dataset(path) as ds:
        assert descriptor_names(ds) == ["averaged", "sparse"]
        assert np.array_equal(read_descriptor(ds, "sparse", dense=True), whole.toarray())


@pytest.mark.parametrize(
    ("part", "change", "rule"),
    [
        ("sparse/row_size", lambda x: x + 1, "ragged"),
        ("sparse/block_start", lambda x: x + 1, "ragged"),
        ("sparse/value_start", lambda x: x + 1, "ragged"),
        ("sparse/pair", lambda x: x * 0 + 77, "descriptor"),
        ("sparse/values", lambda x: x * np.nan, "nan"),
        ("sparse/kind_size", lambda x: x + 1, "ragged"),
        ("sparse_status", lambda x: x + 100, "flags"),
    ],
)
def test_damage_is_named(path: Path, part: str, change: Callable[..., np.ndarray], rule: str) -> None:
    with h5py.File(path, "r+") as file:
        item = file["descriptors"][part]
        item[...] = change(item[...])
    found = validate_dataset(path, limit=3)
    assert {(v.path, v.rule) for v in found} >= {
        (f"/descriptors/{part.replace('kind_size', 'kind_offset')}", rule)
    }


def test_nan_without_a_status(path: Path) -> None:
    with DatasetWriter.append_to(path) as writer:
        writer.file["descriptors/averaged"][5] = np.nan
        status = np.full(len(writer), Status.OK, "u1")
        write_status(writer, "averaged", status)
    assert [(v.path, v.row, v.rule) for v in validate_dataset(path)] == [("/descriptors/averaged", 5, "nan")]


def test_blocks_that_do_not_fit() -> None:
    good = blocks_of(10)
    with pytest.raises(DatasetError, match="no columns for the pair"):
        BlockSparse(good.ptr, good.pairs + 1, good.values, KINDS, OFFSET)
    with pytest.raises(DatasetError, match="values, the blocks need"):
        BlockSparse(good.ptr, good.pairs, good.values[:-1], KINDS, OFFSET)
    with pytest.raises(DatasetError, match="ptr ends at"):
        BlockSparse(good.ptr[:-1], good.pairs, good.values, KINDS, OFFSET)


def test_wrong_shapes(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    with DatasetWriter(tmp_path / "a.h5") as writer:
        writer.append(make_batch(3))
        with pytest.raises(DatasetError, match="expected \\(3, features\\)"):
            write_dense(writer, "x", np.zeros((2, 4)))
        with pytest.raises(DatasetError, match="4 features and 1 feature names"):
            write_dense(writer, "x", np.zeros((3, 4)), features=["a"])
        with pytest.raises(DatasetError, match="2 rows, expected 3"):
            write_block_sparse(writer, "x", blocks_of(2), per="entry")

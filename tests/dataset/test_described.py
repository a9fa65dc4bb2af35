"""Descriptors with what is known about them: info, labels, statuses, processes; added to, merged, traced, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from matcompute.dataset import (
    Dataset,
    DatasetError,
    DatasetWriter,
    Selection,
    Status,
    UnknownNameError,
    merge_datasets,
    trace_value,
    validate_dataset,
)
from matcompute.dataset.descriptors import (
    BlockSparse,
    DescriptorInfo,
    descriptor_process,
    descriptor_status,
    read_descriptor,
    write_descriptor,
)
from matcompute_kernels import Batch

INFO = DescriptorInfo(
    "soap",
    6,
    kernel="soap",
    parameters={"species": ["Al", "O"], "r_cut": 5.0},
    units="1",
    long_name="SOAP power spectrum",
    definition="dscribe",
    labels=tuple(f"Al-O n={k}" for k in range(6)),
)
KINDS = np.array([[8, 8], [8, 13], [13, 13]], dtype="u1")
OFFSET = np.array([0, 1, 4, 6])


def describe(path: Path, info: DescriptorInfo = INFO, seed: int = 0, process: int = 0) -> np.ndarray:
    """Add a descriptor to a dataset, in parts; entries 2 and 3 have none."""
    with DatasetWriter.append_to(path) as writer:
        n = len(writer)
        values = np.random.default_rng(seed).normal(size=(n, info.n_features))
        values[2:4] = np.nan
        status = np.full(n, Status.OK, "u1")
        status[2:4] = Status.INVALID_INPUT
        parts = (values[a : a + 7] for a in range(0, n, 7))
        write_descriptor(writer, info, parts, status=status, process=np.full(n, process, "i4"))
    return values


def blocks(rows: int, seed: int = 0) -> BlockSparse:
    rng = np.random.default_rng(seed)
    there = rng.random((rows, 3)) < 0.5
    kind = np.nonzero(there)[1]
    ptr = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return BlockSparse(
        ptr, KINDS[kind], rng.random(int(np.diff(OFFSET)[kind].sum())).astype("f4"), KINDS, OFFSET
    )


@pytest.mark.parametrize("count", [6, 5000])
def test_all_that_is_known_comes_back(dataset_path: Path, count: int) -> None:
    """With few labels as with so many that an attribute has no room for them."""
    info = replace(INFO, n_features=count, labels=tuple(f"Al-O l=1 n={k} n'={k}" for k in range(count)))
    values = describe(dataset_path, info)
    assert validate_dataset(dataset_path) == []
    with Dataset(dataset_path) as ds:
        assert ds.descriptors == {"soap": info}
        assert ("soap_label" in ds.file["descriptors"]) == (count == 5000)
        np.testing.assert_array_equal(read_descriptor(ds, "soap"), values)
        assert (descriptor_process(ds, "soap") == 0).all()
        assert np.flatnonzero(descriptor_status(ds, "soap") != Status.OK).tolist() == [2, 3]


def test_parts_must_fit(dataset_path: Path) -> None:
    for parts, words in (
        ([np.zeros((4, 6))], "has 4 rows, expected 50"),
        ([np.zeros((25, 6)), np.zeros((25, 5))], "columns"),
        ([np.zeros((50, 5))], "5 features and 6 feature names"),
    ):
        with pytest.raises(DatasetError, match=words), DatasetWriter.append_to(dataset_path) as writer:
            write_descriptor(writer, INFO, parts)
    assert validate_dataset(dataset_path) == []


def test_added_entries_have_no_descriptor(dataset_path: Path, make_batch: Callable[..., Batch]) -> None:
    values = describe(dataset_path)
    with DatasetWriter.append_to(dataset_path) as writer:
        sparse = replace(INFO, name="local", per="site", layout="block-sparse", dtype="f4")
        write_descriptor(writer, sparse, [blocks(writer.n_sites)], status=np.full(50, Status.OK, "u1"))
    with DatasetWriter.append_to(dataset_path) as writer:
        writer.append(make_batch(5, 99), ids=[f"new-{k}" for k in range(5)])
    assert {v.rule for v in validate_dataset(dataset_path)} <= {"provenance"}
    with Dataset(dataset_path) as ds:
        found = read_descriptor(ds, "soap")
        np.testing.assert_array_equal(found[:50], values)
        assert np.isnan(found[50:]).all()
        assert (descriptor_status(ds, "soap", slice(50, None)) == Status.NOT_ATTEMPTED).all()
        assert (descriptor_process(ds, "soap", slice(50, None)) == -1).all()
        local = read_descriptor(ds, "local", entries=slice(48, 52))
        assert isinstance(local, BlockSparse)
        assert len(local) == ds.entry_column("n_sites")[48:52].sum()


def test_merge_joins_descriptors(tmp_path: Path, make_dataset: Callable[..., Any]) -> None:
    paths = [tmp_path / f"{k}.h5" for k in range(3)]
    for seed, path in enumerate(paths):
        make_dataset(path, 30, seed=seed)
    first, last = describe(paths[0], seed=1), describe(paths[2], seed=2)
    info = replace(INFO, name="local", per="site", layout="block-sparse", dtype="f4")
    with DatasetWriter.append_to(paths[1]) as writer:
        local = blocks(writer.n_sites, seed=3)
        write_descriptor(writer, info, [local], status=np.full(30, Status.OK, "u1"))
        writer.add_selection(Selection("select", np.arange(30) < 7, "7 farthest points", ("soap",), (1,)))
    out = tmp_path / "all.h5"
    merge_datasets(paths, out)
    assert [v for v in validate_dataset(out) if v.rule != "provenance"] == []
    with Dataset(out) as ds:
        values = read_descriptor(ds, "soap")
        np.testing.assert_array_equal(values[:30], first)
        np.testing.assert_array_equal(values[60:], last)
        assert np.isnan(values[30:60]).all()
        status = descriptor_status(ds, "soap")
        assert (status[30:60] == Status.NOT_ATTEMPTED).all()
        assert ds.descriptors["soap"] == INFO
        # The rows of /provenance moved, and what points to them followed.
        process = descriptor_process(ds, "soap")
        with Dataset(paths[2]) as old:
            uuid = old.provenance[0].uuid
        assert ds.provenance[int(process[89])].uuid == uuid
        assert ds.selections["select"].mask.sum() == 7
        assert len(ds.selections["select"].processes) == 1
        middle = read_descriptor(ds, "local", entries=slice(30, 60))
        assert isinstance(middle, BlockSparse)
        np.testing.assert_array_equal(middle.toarray(), local.toarray())
        assert read_descriptor(ds, "local", entries=slice(0, 30)).ptr[-1] == 0  # type: ignore[union-attr]


def test_merge_keeps_chosen_rows(tmp_path: Path, make_dataset: Callable[..., Any]) -> None:
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for path in paths:
        make_dataset(path, 30, seed=0)  # the same entries
    describe(paths[0], seed=1)
    last = describe(paths[1], seed=2)
    merge_datasets(paths, tmp_path / "out.h5", duplicates="last")
    with Dataset(tmp_path / "out.h5") as ds:
        np.testing.assert_array_equal(read_descriptor(ds, "soap"), last)


def test_merge_refuses_other_columns(tmp_path: Path, make_dataset: Callable[..., Any]) -> None:
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for seed, path in enumerate(paths):
        make_dataset(path, 10, seed=seed)
    describe(paths[0])
    describe(paths[1], replace(INFO, parameters={"species": ["Al", "Ti"], "r_cut": 5.0}))
    with pytest.raises(DatasetError, match="different species") as caught:
        merge_datasets(paths, tmp_path / "out.h5")
    assert "describe both files" in str(caught.value)
    assert not (tmp_path / "out.h5").exists()


def test_trace_of_a_descriptor_and_of_a_selection(dataset_path: Path) -> None:
    describe(dataset_path, process=1)
    with DatasetWriter.append_to(dataset_path) as writer:
        writer.add_selection(Selection("select", np.arange(50) < 7, "7 farthest points", ("soap",), (1,)))
    with Dataset(dataset_path) as ds:
        steps = trace_value(ds, 5, "soap")
        assert [s.kind for s in steps] == ["value", "process", "process", "method", "structure", "source"]
        assert steps[0].label == "soap: a row of 6 columns (soap)"
        assert steps[0].details["parameters"] == INFO.parameters
        assert steps[0].details["definition"] == "dscribe"
        assert steps[1].uuid == ds.provenance[1].uuid
        failed = trace_value(ds, 2, "soap")[0].details
        assert (failed["status"], "refused" in failed["cause"]) == ("invalid_input", True)
        steps = trace_value(ds, 5, "select")
        assert steps[0].label == "passed select: 7 farthest points"
        assert (steps[0].details["inputs"], steps[1].kind) == (["soap"], "process")
        assert "did not pass" in trace_value(ds, 9, "select")[0].label
        with pytest.raises(UnknownNameError, match="did you mean 'soap'"):
            trace_value(ds, 0, "sope")


def test_what_points_nowhere_is_found(dataset_path: Path) -> None:
    describe(dataset_path)
    assert validate_dataset(dataset_path) == []
    with h5py.File(dataset_path, "r+") as file:
        file["descriptors/soap_process"][7] = 99
        file["descriptors/soap_process"][8] = -1
        group = file["selections"]
        first = next(iter(group))
        group[first].attrs["processes"] = np.array([77], "i4")
    found = {(v.path, v.row, v.rule) for v in validate_dataset(dataset_path)}
    assert ("/descriptors/soap_process", 7, "index") in found
    assert ("/descriptors/soap_process", 8, "provenance") in found
    assert any(rule == "index" and place.startswith("/selections/") for place, _, rule in found)


def test_release_wants_a_chain_from_every_descriptor(dataset_path: Path) -> None:
    assert validate_dataset(dataset_path, release=True) == []
    describe(dataset_path, process=0)
    assert validate_dataset(dataset_path, release=True) == []
    with DatasetWriter.append_to(dataset_path) as writer:
        orphan = replace(
            writer._provenance[0], uuid="00000000-0000-4000-8000-0000000000ff", inputs=(), outputs=()
        )
        writer.set_provenance(type(writer._provenance)((*writer._provenance.processes, orphan)))
    with h5py.File(dataset_path, "r+") as file:
        file["descriptors/soap_process"][...] = len(file["provenance/process_uuid"]) - 1
    (violation,) = validate_dataset(dataset_path, release=True)
    assert violation.message == "no chain from this process to a source"


def test_order_of_the_gates_is_kept(dataset_path: Path) -> None:
    """`list(data.selections)` is the order of the stages, whatever their names."""
    names = ["zeta", "hull", "select", "alpha", "top"]
    with DatasetWriter.append_to(dataset_path) as writer:
        before = list(writer._inherited)
        for k, name in enumerate(names):
            writer.add_selection(Selection(name, np.arange(50) < 40 - k, f"step {k}"))
    with Dataset(dataset_path) as ds:
        found = list(ds.selections)
        assert [name for name in found if name not in before or name in names] == names
        assert [ds.selections[name].expression for name in names] == [f"step {k}" for k in range(5)]

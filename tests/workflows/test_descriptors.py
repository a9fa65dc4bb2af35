"""Descriptors through shards, merges and lost batches; no jobs are run."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from matcompute.campaign.dispatcher.collect import entry_status
from matcompute.dataset import Dataset, DatasetError, DatasetWriter, Metadata, Status, validate_dataset
from matcompute.dataset.descriptors import (
    BlockSparse,
    DescriptorInfo,
    descriptor_status,
    read_descriptor,
    write_descriptor,
)
from matcompute_kernels import Batch
from matcompute_workflows import ShardData, merge_descriptors, merging
from matcompute_workflows.rows import write_lost
from matcompute_workflows.taskfile import check_task, task_file

N = 12
KINDS = np.array([[13, 13], [13, 29], [29, 29]], dtype="u1")
OFFSET = np.array([0, 2, 6, 8])
OK, LEFT, BAD = int(Status.OK), int(Status.NOT_ATTEMPTED), int(Status.INVALID_INPUT)


@pytest.fixture
def batch():
    return Batch.from_atoms([bulk("Cu", a=3.5 + 0.02 * k).repeat((1 + k % 3, 1, 1)) for k in range(N)])


def _blocks(rows, seed):
    rng = np.random.default_rng(seed)
    there = rng.random((rows, 3)) < 0.6
    kind = np.nonzero(there)[1]
    ptr = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return BlockSparse(
        ptr, KINDS[kind], rng.random(int(np.diff(OFFSET)[kind].sum())).astype("f4"), KINDS, OFFSET
    )


def _shard(path, batch, rows, info, values, status):
    """A result shard of a describe stage: some rows, in an order of its own."""
    with DatasetWriter(path, Metadata()) as writer:
        writer.append(
            batch[rows],
            ids=[f"e{row}" for row in rows],
            results={"cpu_time": np.ones(len(rows))},
            status={"cpu_time": np.where(status == LEFT, LEFT, OK).astype("u1")},
        )
        write_descriptor(writer, info, [values], status=status)
    return ShardData(path, stage=info.name).store()


def _structures(path, batch):
    with DatasetWriter(path, Metadata()) as writer:
        writer.append(batch, ids=[f"e{row}" for row in range(N)])
    return ShardData(path).store()


def test_later_attempts_replace_earlier_ones(workspace, batch, tmp_path, monkeypatch):
    """Dense rows: batches in any order, a retry that says something about two entries, one that was never reached."""
    monkeypatch.setattr(merge_descriptors, "_BYTES", 8 * 3 * 4)  # four rows at once
    info = DescriptorInfo("soap", 3, kernel="soap", parameters={"r_cut": 5.0}, labels=("a", "b", "c"))
    rng = np.random.default_rng(0)
    orders = [np.array([7, 2, 9, 4, 0]), np.array([1, 3, 5, 6, 8, 10]), np.array([9, 3, 10])]
    statuses = [np.full(5, OK, "u1"), np.full(6, OK, "u1"), np.array([OK, OK, LEFT], "u1")]
    statuses[0][2] = statuses[1][1] = BAD
    values = [rng.normal(size=(len(rows), 3)) for rows in orders]
    expected = np.full((N, 3), np.nan)
    for rows, value, status in zip(orders, values, statuses, strict=True):
        value[status != OK] = np.nan
        expected[rows[status == OK]] = value[status == OK]
    shards = {
        f"batch_{k}": _shard(tmp_path / f"{k}.h5", batch, orders[k], info, values[k], statuses[k])
        for k in range(3)
    }
    assert shards["batch_0"].descriptors == ["soap"]
    out = tmp_path / "final.h5"
    merging.write_dataset(out, {}, ["soap"], _structures(tmp_path / "s.h5", batch), shards)
    with Dataset(out) as data:
        np.testing.assert_array_equal(read_descriptor(data, "soap"), expected)
        assert descriptor_status(data, "soap").tolist() == [OK] * 11 + [LEFT]
        assert data.descriptors["soap"].differs_from(info) is None
    assert {v.rule for v in validate_dataset(out)} <= {"provenance"}


def test_blocks_of_sites_come_in_order(workspace, batch, tmp_path, monkeypatch):
    monkeypatch.setattr(merge_descriptors, "_BYTES", 8 * 8 * 5)
    info = DescriptorInfo("local", 8, kernel="soap", per="site", layout="block-sparse", dtype="f4")
    sites = batch.n_sites
    orders = [np.array([7, 2, 9, 4, 0, 11]), np.array([1, 3, 5, 6, 8])]
    expected = np.zeros((int(sites.sum()), 8), dtype="f4")
    shards = {}
    for k, rows in enumerate(orders):
        blocks = _blocks(int(sites[rows].sum()), seed=k)
        shards[f"batch_{k}"] = _shard(
            tmp_path / f"{k}.h5", batch, rows, info, blocks, np.full(len(rows), OK, "u1")
        )
        expected[np.concatenate([np.arange(batch.ptr[r], batch.ptr[r + 1]) for r in rows])] = blocks.toarray()
    out = tmp_path / "final.h5"
    merging.write_dataset(out, {}, ["local"], _structures(tmp_path / "s.h5", batch), shards)
    with Dataset(out) as data:
        np.testing.assert_array_equal(read_descriptor(data, "local", dense=True), expected)
        assert descriptor_status(data, "local")[10] == LEFT
    assert {v.rule for v in validate_dataset(out)} <= {"provenance"}


def test_shards_that_do_not_fit_are_refused(workspace, batch, tmp_path):
    shards = {}
    for k, r_cut in enumerate((5.0, 6.0)):
        info = DescriptorInfo("soap", 2, kernel="soap", parameters={"r_cut": r_cut})
        rows = np.arange(6) + 6 * k
        shards[f"b{k}"] = _shard(
            tmp_path / f"{k}.h5", batch, rows, info, np.ones((6, 2)), np.full(6, OK, "u1")
        )
    with pytest.raises(DatasetError, match="different r_cut: 5.0 and 6.0"):
        merging.write_dataset(tmp_path / "f.h5", {}, ["soap"], _structures(tmp_path / "s.h5", batch), shards)


def test_what_a_lost_batch_has_described_is_kept(workspace, batch, tmp_path):
    info = DescriptorInfo("soap", 2, kernel="soap")
    status = np.array([OK, BAD, LEFT, OK], "u1")
    values = np.arange(8.0).reshape(4, 2)
    values[1:3] = np.nan
    shard = _shard(tmp_path / "a.h5", batch, np.arange(4), info, values, status)
    # The worst of an entry's statuses; what the worker did not come to is lost.
    assert entry_status(shard)[0].tolist() == [OK, BAD, int(Status.LOST), OK]
    with shard.as_path() as source:
        write_lost(source, tmp_path / "lost.h5")
    with Dataset(tmp_path / "lost.h5") as data:
        np.testing.assert_array_equal(read_descriptor(data, "soap"), values)
        assert descriptor_status(data, "soap").tolist() == [OK, BAD, int(Status.LOST), OK]
        assert data.descriptors["soap"].differs_from(info) is None


def test_task_without_a_calculator():
    task = {"task": "describe", "parameters": {"descriptor": "rdf"}, "stage": "rdf"}
    assert check_task(task) is None
    assert task_file(task)["calculator"] is None

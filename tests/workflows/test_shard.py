"""The shard node: checked when made, told by its attributes, read back from the object store."""

from __future__ import annotations

import hashlib

import h5py
import numpy as np
import pytest
from ase.build import bulk

from matcompute.dataset import DatasetError
from matcompute_workflows import ShardData


def test_attributes_tell_what_is_inside(workspace, write_shard):
    path = write_shard([bulk("Cu", cubic=True), bulk("Al")])
    node = ShardData(path, stage="relax").store()
    assert (node.n_entries, node.n_sites, node.stage) == (2, 5, "relax")
    assert node.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert node.properties == []


def test_it_reads_back_stored_and_unstored_and_packed(workspace, write_shard):
    path = write_shard()
    node = ShardData(path)
    with node.open() as before:
        ids = before.ids.tolist()
    node.store()
    with node.open() as stored:
        assert stored.ids.tolist() == ids
    with node.open(mode="rb") as handle:
        assert handle.read() == path.read_bytes()
    assert node.get_content(mode="rb") == path.read_bytes()
    with node.as_path() as in_place:
        assert str(workspace.aiida_path) in str(in_place), "a fresh object is read without a copy"
    node.backend.get_repository().maintain(live=False)
    with node.as_path() as copied:
        assert str(workspace.aiida_path) not in str(copied)
    with node.open() as packed:
        assert packed.ids.tolist() == ids
    assert node.save_as(path.with_name("copy.h5")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("damage", ["text", "truncated", "version", "empty"])
def test_a_bad_file_is_an_error_when_the_node_is_made(workspace, write_shard, damage):
    path = write_shard()
    if damage == "text":
        path.write_text("no HDF5")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        with h5py.File(path, "r+") as file:
            file.attrs["format_version"] = np.bytes_("9.0")
    with pytest.raises(DatasetError, match="shard.h5"):
        ShardData(path)


def test_queries_find_shards_by_what_they_hold(workspace, write_shard):
    from aiida.orm import QueryBuilder

    node = ShardData(write_shard([bulk("Pt")]), stage="only-here").store()
    query = QueryBuilder().append(ShardData, filters={"attributes.stage": "only-here"}, project=["uuid"])
    assert query.all(flat=True) == [node.uuid]


def test_the_content_decides_whether_two_shards_are_equal(workspace, write_shard):
    path = write_shard()
    one, two = ShardData(path).store(), ShardData(path).store()
    other = ShardData(path, stage="eos").store()
    assert one.base.caching.get_hash() == two.base.caching.get_hash() != other.base.caching.get_hash()

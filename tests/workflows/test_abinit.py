"""ABINIT in a batch, and the moments that it may start from."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from ase.build import bulk


@pytest.mark.apt
@pytest.mark.skipif(shutil.which("abinit") is None, reason="ABINIT is not installed")
def test_a_batch_with_abinit(write_shard, submit_batch, wait_for):
    parameters = {"protocol": "fast", "ecut": 200.0, "kpoint_spacing": 0.9}
    task = {
        "task": "static",
        "parameters": {},
        "calculator": {"name": "abinit", "parameters": parameters},
        "stage": "static",
    }
    node = submit_batch(write_shard([bulk("Si"), bulk("Al")]), task)
    wait_for(node, timeout=300)
    assert node.exit_status == 0, node.exit_message
    with node.outputs.results.open() as results:
        assert (results.column("energy_per_atom") < -50).all()
        (method,) = results.methods
    assert (method.code, method.cutoff) == ("abinit", 200.0)
    assert method.parameters["pseudopotentials"].keys() == {"Al", "Si"}
    summary = node.outputs.summary.get_dict()
    assert summary["code"]["version"] == method.code_version
    # The time of ABINIT, not of the worker that waits for it.
    assert summary["cpu_s"] > 0.2


def test_moments_follow_the_rows(workspace, tmp_path):
    from aiida.orm import List

    from matcompute.dataset import PROPERTIES, DatasetWriter, Metadata
    from matcompute_kernels import Batch
    from matcompute_workflows import ShardData, take_rows

    shards = []
    for name, found in (("with", [1.0, 2.0, 0.1]), ("without", None)):
        with DatasetWriter(tmp_path / f"{name}.h5", Metadata(title="test")) as writer:
            batch = Batch.from_atoms([bulk("Fe"), bulk("NiO", "rocksalt", a=4.2)])
            if found is not None:
                writer.declare(PROPERTIES["magmom"])
            moments = {} if found is None else {"magmom": np.array(found)}
            writer.append(batch, ids=[f"{name}-0", f"{name}-1"], site_results=moments)
        shards.append(ShardData(tmp_path / f"{name}.h5"))
    mixed = take_rows(List([[1, 0], [0, 1], [0, 0]]), parent_0=shards[0], parent_1=shards[1])
    with mixed.open() as dataset:
        np.testing.assert_array_equal(dataset.column("magmom"), [np.nan, 2.0, 0.1, 1.0])
    plain = take_rows(List([[0, 1], [0, 0]]), parent_0=shards[1])
    with plain.open() as dataset:
        assert "magmom" not in dataset.properties

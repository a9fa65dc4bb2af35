"""The batch job end to end, through the daemon."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk


def test_a_batch_gives_the_same_numbers_as_ase(write_shard, submit_batch, wait_for):
    from ase.calculators.emt import EMT

    atoms = [bulk("Cu", a=3.6), bulk("Al", cubic=True), bulk("Ni")]
    task = {
        "task": "static",
        "parameters": {},
        "calculator": {"name": "emt", "parameters": {}},
        "stage": "static",
    }
    node = submit_batch(write_shard(atoms), task)
    wait_for(node)
    assert node.exit_status == 0, node.exit_message
    expected = []
    for one in atoms:
        one.calc = EMT()
        expected.append(one.get_potential_energy())
    with node.outputs.results.open() as results:
        assert np.allclose(results.column("energy"), expected, atol=1e-10)
    summary = node.outputs.summary.get_dict()
    assert summary["state"] == "finished"
    assert summary["n_total"] == 3


def test_what_the_job_leaves(write_shard, submit_batch, wait_for, workspace):
    node = submit_batch(write_shard(), processes=2)
    wait_for(node)
    job = node.called[0]
    assert job.is_finished_ok
    assert job.label == node.label
    task = json.loads(job.base.repository.get_object_content("task.json"))
    assert task["slots"] == str(workspace.slots_dir)
    assert task["processes"] == 2
    names = job.outputs.retrieved.base.repository.list_object_names()
    assert {"summary.json", "exit_status"} <= set(names)
    journals = [name for name in names if name.startswith("journal-")]
    lines = [
        json.loads(line)
        for name in journals
        for line in job.outputs.retrieved.base.repository.get_object_content(name).splitlines()
    ]
    assert sorted(line["id"] for line in lines if line["event"] == "done") == sorted(
        _ids(node.inputs.batch.shard)
    )
    # The result shard is a node of its own, not a second copy in the retrieved folder.
    assert "results.h5" not in names
    assert job.outputs.results.stage == "relax"
    assert job.outputs.remote_folder.get_remote_path().startswith(str(workspace.scratch_dir))


def _ids(shard):
    with shard.open() as dataset:
        return dataset.ids.tolist()


def test_one_bad_structure_does_not_stop_a_batch(write_shard, submit_batch, wait_for):
    from matcompute.dataset import Status

    node = submit_batch(write_shard([bulk("Cu"), bulk("Fe"), bulk("Al")]))
    wait_for(node)
    assert node.exit_status == 0
    with node.outputs.results.open() as results:
        assert results.status("energy_per_atom").tolist() == [
            Status.OK,
            Status.UNSUPPORTED_SPECIES,
            Status.OK,
        ]
        assert "Fe" in str(results.entry_column("message")[1])


def test_mpi_ranks(write_shard, submit_batch, wait_for):
    pytest.importorskip("mpi4py")
    node = submit_batch(write_shard(), ranks=2)
    wait_for(node)
    assert node.exit_status == 0, node.exit_message
    assert node.outputs.summary.get_dict()["ranks"] == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"task": "relaxx"}, 412),
        ({"parameters": {"fmaxx": 1.0}}, 410),
        ({"calculator": {"name": "emt", "parameters": {}, "model_sha256": "0" * 64}}, 411),
    ],
)
def test_what_a_restart_cannot_mend_ends_at_once(
    write_shard, submit_batch, wait_for, emt_task, change, expected
):
    node = submit_batch(write_shard(), {**emt_task, **change})
    wait_for(node)
    assert node.exit_status == expected, node.exit_message
    assert len(node.called) == 1
    assert node.exit_message.strip()[-1] not in ": "


def test_walltime_goes_on_from_the_checkpoint(write_shard, submit_batch, wait_for, emt_task):
    # A short walltime for far more work: the job stops early, cleanly, again and again.
    atoms = []
    for seed in range(16):
        one = bulk("Al", cubic=True).repeat(2)
        one.rattle(0.05, seed=seed)
        atoms.append(one)
    task = {**emt_task, "parameters": {"fmax": 0.001}}
    node = submit_batch(write_shard(atoms), task, walltime_s=3, processes=1)
    wait_for(node)
    assert node.exit_status == 0, node.exit_message
    jobs = node.called
    assert len(jobs) > 1, "the work fitted into one walltime: the test shows nothing"
    assert {job.exit_status for job in jobs[:-1]} <= {321}
    done: list[str] = []
    last = jobs[-1].outputs.retrieved
    for name in last.base.repository.list_object_names():
        if name.startswith("journal-"):
            lines = last.base.repository.get_object_content(name).splitlines()
            done += [json.loads(line)["id"] for line in lines if json.loads(line)["event"] == "done"]
    assert len(done) == len(set(done)) == len(atoms), "a finished structure was computed again"

"""Real kill -9 of each part of the daemon while a batch is under way: after repair the batch is complete."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from ase.build import bulk

from matcompute.node.checkpoint import count_journal
from matcompute.workspace._broker import forget_damaged_sockets
from matcompute.workspace.runtime import DaemonFiles

#: Seconds after which something that should happen is given up: far more than a slow, busy machine needs.
PATIENCE_S = 300.0
pytestmark = [pytest.mark.kill, pytest.mark.timeout(4 * PATIENCE_S)]


def _until(condition, what):
    """Wait for something; a time that passes proves nothing."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S:.0f} s"
        time.sleep(0.05)


def _slow_shard(write_shard, name="shard.h5", n=8):
    atoms = []
    for seed in range(n):
        one = bulk("Al", cubic=True).repeat(2)
        one.rattle(0.05, seed=seed)
        atoms.append(one)
    return write_shard(atoms, name)


def _kill(*pids):
    """Kill and wait until they are gone: a process dies some milliseconds after the signal was sent."""
    processes = [psutil.Process(pid) for pid in pids]
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    _until(lambda: not any(_alive(process) for process in processes), "their death")


def _alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _mended(workspace, old_broker):
    now = workspace.daemon_status()
    return now.running and now.broker != old_broker


def _job_runs(node):
    """Whether the batch's job is under way (and not finished)."""
    return any("job_id" in job.base.attributes.all and not job.is_terminated for job in node.called)


@pytest.mark.parametrize("job_runs", [False, True])
@pytest.mark.parametrize(
    "victims", [("worker",), ("broker",), ("supervisor",), ("supervisor", "worker", "broker")]
)
def test_a_batch_survives(victims, job_runs, workspace, write_shard, submit_batch, wait_for):
    before = workspace.ensure_daemon()
    node = submit_batch(_slow_shard(write_shard), processes=1)
    if job_runs:
        _until(lambda: _job_runs(node) or node.is_terminated, "a job")
    _kill(*(getattr(before, part) for part in victims))
    report = workspace.repair()
    assert report.daemon.running
    wait_for(node)
    assert node.is_finished_ok, node.exit_message
    summary = node.outputs.summary.get_dict()
    assert summary["counts"] == {"ok": 8}
    after = workspace.daemon_status()
    assert after.running
    for part in victims:
        assert getattr(after, part) != getattr(before, part)


def test_a_killed_broker_is_noticed_by_the_worker_itself(workspace, write_shard, submit_batch, wait_for):
    before = workspace.ensure_daemon()
    _kill(before.broker)
    _until(lambda: _mended(workspace, before.broker), "a daemon with a new broker")
    assert workspace.daemon_status().worker != before.worker
    # This process is still connected to the old broker.
    workspace.ensure_daemon()
    node = submit_batch(write_shard())
    wait_for(node)
    assert node.is_finished_ok


def test_a_broker_that_died_while_it_wrote_deletes_nothing(workspace):
    """AiiDA's broker would delete the folder that an empty ``broker.sockets`` names: the current one, all of it."""
    files = DaemonFiles.of(workspace)
    before = workspace.ensure_daemon()
    there = {path.name for path in workspace.root.iterdir()}
    os.kill(before.supervisor, signal.SIGSTOP)  # until the file is damaged, nothing starts a new broker
    os.kill(before.broker, signal.SIGKILL)
    files.broker_sockets.write_text("")
    os.kill(before.supervisor, signal.SIGCONT)
    _until(lambda: _mended(workspace, before.broker), "a daemon with a new broker")
    assert there <= {path.name for path in workspace.root.iterdir()}


def test_damaged_sockets_files_are_forgotten(tmp_path):
    file = tmp_path / "broker.sockets"
    assert not forget_damaged_sockets(file)
    good = Path(tempfile.gettempdir()) / "aiida_zeromq_abc"
    for text, damaged in [("", True), (".", True), ("/", True), (f"{good}/..", True), (str(good), False)]:
        file.write_text(text)
        assert forget_damaged_sockets(file) == damaged, text
        assert file.exists() != damaged


def test_a_killed_supervisor_leaves_no_strays(workspace):
    before = workspace.ensure_daemon()
    children = [psutil.Process(pid) for pid in (before.worker, before.broker)]
    _kill(before.supervisor)
    _until(lambda: not any(_alive(child) for child in children), "the end of its children")
    assert workspace.daemon_status().state == "broken"
    assert workspace.ensure_daemon().action == "restarted"


def test_a_lost_task_is_made_again(workspace, write_shard, submit_batch, wait_for):
    """The submitter died between storing the process and sending its task: here the task file is taken away."""
    workspace.stop_daemon()
    workspace.ensure_daemon()
    status = workspace.daemon_status()
    os.kill(status.worker, signal.SIGSTOP)  # nothing takes the task meanwhile
    try:
        node = submit_batch(write_shard())
        files = DaemonFiles.of(workspace)
        _until(lambda: any(any(queue.glob("*.json")) for queue in files.queues), "its task")
        _kill(status.supervisor, status.worker, status.broker)
        for queue in files.queues:
            for file in queue.glob("*.json"):
                file.unlink()
    finally:
        report = workspace.repair()
    assert node.pk in report.revived
    wait_for(node)
    assert node.is_finished_ok
    assert workspace.repair().revived == []


def test_a_process_that_a_failure_has_paused_goes_on(workspace, write_shard, submit_batch, wait_for):
    """The folder of the jobs cannot be written: AiiDA tries some times (see the fixture), then pauses the job."""
    workspace.ensure_daemon()
    aside = workspace.scratch_dir.with_name("aside")
    workspace.scratch_dir.rename(aside)
    workspace.scratch_dir.write_text("a file where a folder should be")
    try:
        node = submit_batch(write_shard())
        _until(lambda: any(job.paused for job in node.called), "the pause")
    finally:
        workspace.scratch_dir.unlink()
        aside.rename(workspace.scratch_dir)
    (job,) = node.called
    assert job.paused
    assert workspace.repair().resumed == [job.pk]
    wait_for(node)
    assert node.is_finished_ok


def test_a_killed_job_script_leaves_nothing_computed_twice(workspace, write_shard, submit_batch, wait_for):
    """Only the shell of the job is killed: the node program goes on without it, and its successor waits for it."""
    import json

    workspace.ensure_daemon()
    node = submit_batch(_slow_shard(write_shard, n=40))
    _until(lambda: _job_runs(node), "a job")
    job = node.called[0]
    folder = Path(job.get_remote_workdir())
    _until(lambda: count_journal(folder / "checkpoint"), "a finished structure")
    _kill(int(job.get_job_id()))
    wait_for(node)
    assert node.is_finished_ok, node.exit_message
    assert node.called[0].exit_status == 300
    retrieved = node.called[-1].outputs.retrieved.base.repository
    done = [
        json.loads(line)["id"]
        for name in retrieved.list_object_names()
        if name.startswith("journal-")
        for line in retrieved.get_object_content(name).splitlines()
        if json.loads(line)["event"] == "done"
    ]
    assert len(done) == len(set(done)) == 40

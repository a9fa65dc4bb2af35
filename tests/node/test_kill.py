"""Real kills of the program, a worker and an MPI rank: nothing finished is computed again, results are the same."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import PATIENCE_S, JobFolder, alloys

pytestmark = pytest.mark.kill

N = 14
#: The structures wait at a gate: a blow lands at the very structure, however fast or slow the machine is.
SPEC: dict[str, Any] = {"parameters": {"fmax": 0.02}, "calculator": "slow"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, plugin_path: Any) -> dict[str, Any]:
    """Return the values of the same job when nothing happens to it."""
    job = JobFolder(tmp_path_factory.mktemp("undisturbed"), plugin_path)
    job.write(alloys(N), **SPEC)
    assert job.run().returncode == 0
    values: dict[str, Any] = job.values()
    return values


def _finish(
    job: Any, undisturbed: dict[str, Any], same: Callable[..., None], before: set[str], ranks: int = 0
) -> None:
    job.gate.open()
    finished = job.run(ranks=ranks)
    assert finished.returncode == 0, finished.stderr
    done = job.done()
    assert max(done.values()) == 1, "a finished structure was computed again"
    assert before <= done.keys()
    summary = job.summary
    assert summary["state"] == "finished"
    assert summary["n_reused"] >= len(before)
    assert summary["n_computed"] + summary["n_reused"] == N
    # Only what was in flight at the kill was begun twice.
    assert job.starts() <= N + 2
    same(job.values(), undisturbed)


@pytest.mark.parametrize("finished", [0, 3, 9])
def test_program_killed(
    make_job: Callable[..., Any], make_alloys: Callable[..., Any], same: Any, undisturbed: Any, finished: int
) -> None:
    job = make_job(structures=make_alloys(N), **SPEC)
    job.gate.close()
    with job.start() as process:
        job.wait_begun(1, process)
        job.let_done(finished, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = set(job.done())
    assert len(before) < N
    _finish(job, undisturbed, same, before)


def test_workers_die_with_the_program(make_job: Callable[..., Any], make_alloys: Callable[..., Any]) -> None:
    job = make_job(structures=make_alloys(N), **SPEC)
    job.gate.close()
    with job.start() as process:
        job.let_done(2, process)
        process.kill()
        process.communicate()
    end = time.monotonic() + PATIENCE_S
    while any(_alive(pid) for pid in job.pids()):
        assert time.monotonic() < end, "a worker computes on after its supervisor was killed"
        time.sleep(0.02)


@pytest.mark.parametrize("finished", [1, 8])
def test_worker_killed(
    make_job: Callable[..., Any], make_alloys: Callable[..., Any], same: Any, undisturbed: Any, finished: int
) -> None:
    job = make_job(structures=make_alloys(N), **SPEC)
    job.gate.close()
    with job.start() as process:
        job.let_done(finished, process)
        os.kill(sorted(job.pids())[0], signal.SIGKILL)
        job.gate.open()
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert job.summary["n_retried"] <= 1
    assert len(job.pids()) == 3, "the dead worker was not replaced"
    assert job.done() == {f"entry-{i}": 1 for i in range(N)}
    same(job.values(), undisturbed)


@pytest.mark.parametrize("finished", [2, 8])
def test_mpi_rank_killed(
    make_job: Callable[..., Any], make_alloys: Callable[..., Any], same: Any, undisturbed: Any, finished: int
) -> None:
    job = make_job(structures=make_alloys(N), **SPEC)
    job.gate.close()
    with job.start(ranks=2) as process:
        job.let_done(finished, process)
        worker = sorted(job.pids())[-1]
        os.kill(_parent(worker), signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    _finish(job, undisturbed, same, set(job.done()), ranks=2)


def test_mpi_worker_killed(
    make_job: Callable[..., Any], make_alloys: Callable[..., Any], same: Any, undisturbed: Any
) -> None:
    job = make_job(structures=make_alloys(N), **SPEC)
    job.gate.close()
    with job.start(ranks=2) as process:
        job.let_done(3, process)
        os.kill(sorted(job.pids())[-1], signal.SIGKILL)
        job.gate.open()
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert job.done() == {f"entry-{i}": 1 for i in range(N)}
    same(job.values(), undisturbed)


@pytest.mark.parametrize(("number", "ranks"), [(signal.SIGTERM, 0), (signal.SIGUSR1, 0), (signal.SIGTERM, 2)])
def test_signal_stops_cleanly(
    make_job: Callable[..., Any],
    make_alloys: Callable[..., Any],
    same: Any,
    undisturbed: Any,
    number: signal.Signals,
    ranks: int,
) -> None:
    job = make_job(structures=make_alloys(N), **SPEC)
    job.gate.close()
    with job.start(ranks=ranks) as process:
        job.let_done(3, process)
        process.send_signal(number)
        job.gate.open()
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75, err
    assert "run again to continue" in err
    summary = job.summary
    assert (summary["state"], summary["exit_code"]) == ("partial", 75)
    assert summary["counts"]["ok"] == len(job.done()) < N
    assert not (job.folder / "results.h5").exists()
    _finish(job, undisturbed, same, set(job.done()), ranks)


@pytest.mark.parametrize("ranks", [0, 2])
def test_signal_with_the_last_structures_in_flight(
    make_job: Callable[..., Any], make_alloys: Callable[..., Any], ranks: int
) -> None:
    job = make_job(structures=make_alloys(2), parameters={"fmax": 1e-9}, calculator="slow")
    job.env["TEST_SLEEP"] = "0.3"
    with job.start(ranks=ranks) as process:
        job.wait_begun(2, process)
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75, err
    assert job.summary["counts"] == {"not_attempted": 2}


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as handle:  # noqa: PTH123
            return handle.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as handle:  # noqa: PTH123
        return int(handle.read().rsplit(")", 1)[1].split()[1])

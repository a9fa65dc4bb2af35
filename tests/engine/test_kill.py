"""Real ``kill -9`` of every part at several points: nothing is lost and nothing finished is computed again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from matcompute.dataset import Dataset
from matcompute.dataset.diff import diff_datasets

from .conftest import COUNT, Site

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(300)]

#: Words in the command lines of the daemon's parts; the supervisor comes first, it would start the others again.
DAEMON = ("start-circus", "worker", "broker")


def kill(pid: int | None) -> None:
    if pid is None:
        return  # it was between two lives
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.wait_procs([psutil.Process(pid)], timeout=10)


class Run:
    """A campaign that is running, and its jobs."""

    def __init__(self, site: Site, name: str, **options: object) -> None:
        self.site, self.name = site, name
        self.before = site.jobs()
        self.front = site.start("campaign", "run", str(site.campaign_file(name, **options)), "--no-progress")  # type: ignore[arg-type]
        self.killed = 0

    @property
    def jobs(self) -> set[Path]:
        return self.site.jobs() - self.before

    def when(self, condition: Callable[[], object], what: str) -> object:
        return self.site.until(lambda: self.front.poll() is not None or condition(), what)

    def when_done(self, count: int, stage: str) -> None:
        """Wait until so many structures of a stage are finished."""
        self.when(lambda: self.site.done(self.jobs, stage) >= count, f"{count} done in {stage}")
        assert self.front.poll() is None, self.front.communicate()[0]

    def when_batch(self, state: str, stage: str) -> None:
        statement = (
            "SELECT count(*) FROM batch JOIN stage ON stage.id = batch.stage_id JOIN campaign "
            "ON campaign.id = batch.campaign_id WHERE campaign.name = ? AND batch.state = ? AND stage.name = ?"
        )
        self.when(lambda: self.site.query(statement, self.name, state, stage)[0][0], f"{state} in {stage}")

    def finish(self) -> Path:
        """Wait for the end, resuming if the command has ended before."""
        text = self.front.communicate(timeout=200)[0]
        if self.front.returncode != 0:
            text += self.site.matcompute("campaign", "resume", self.name, "--no-progress").stdout
        assert self.site.campaign_state(self.name) == "finished", text
        return self.site.dataset(self.name)

    def check(self, reference: Path) -> None:
        """The dataset is the undisturbed one; whatever was finished was finished once."""
        with Dataset(reference) as old, Dataset(self.finish()) as new:
            difference = diff_datasets(old, new, atol=0.0, ignore=["cpu_time", "relax__cpu_time"])
            assert difference.equal, difference.to_json()
            assert difference.compared
        counts = self.site.events(self.jobs, "done")
        assert len([key for key in counts if key[0] == "relax"]) >= COUNT
        again = {key: n for key, n in counts.items() if n > 1}
        assert not again, f"computed again after it was finished: {again}"


def test_node_program(site: Site, undisturbed: Path) -> None:
    """All processes of a job, at three points of its life."""
    run = Run(site, "kill-node")
    for count, stage in ((1, "relax"), (9, "relax"), (5, "eos")):
        run.when_done(count, stage)
        programs = site.node_programs()
        assert programs
        for process in programs:
            kill(process.pid)
    run.check(undisturbed)
    assert len(run.jobs) >= 5, "each killed job has a successor"


def test_worker_of_the_node_program(site: Site, undisturbed: Path) -> None:
    """One process of a job: the others go on."""
    run = Run(site, "kill-node-worker")
    for count in (2, 8):
        run.when_done(count, "relax")
        workers = [p for p in site.node_programs() if p.ppid() in {q.pid for q in site.node_programs()}]
        assert workers
        kill(workers[0].pid)
    run.check(undisturbed)


def test_mpi_rank(site: Site, undisturbed: Path) -> None:
    run = Run(site, "kill-rank", resources="ranks: 2")
    for count in (2, 8):
        run.when_done(count, "relax")
        ranks = sorted(site.node_programs(), key=lambda process: process.pid)
        assert len(ranks) >= 2
        kill(ranks[-1 if count == 2 else 0].pid)
    run.check(undisturbed)


def test_aiida_worker(site: Site, undisturbed: Path) -> None:
    run = Run(site, "kill-worker", size=8)
    run.when_batch("intent", "relax")
    kill(site.until(lambda: site.daemon("worker"), "a worker")[0])
    for count in (1, 8, 14):
        run.when_done(count, "relax")
        kill(site.until(lambda: site.daemon("worker"), "a worker")[0])
    run.check(undisturbed)


def test_whole_daemon(site: Site, undisturbed: Path) -> None:
    run = Run(site, "kill-daemon", size=8)
    for count, stage in ((1, "relax"), (12, "relax"), (3, "eos")):
        run.when_done(count, stage)
        # Jobs go on while the daemon of the last blow is mended: wait for a whole one.
        site.until(lambda: all(site.daemon(part) for part in DAEMON), "a whole daemon")
        for part in DAEMON:
            for pid in site.daemon(part):
                kill(pid)
        assert not any(site.daemon(part) for part in ("worker", "broker"))
    run.check(undisturbed)


def test_dispatcher(site: Site, undisturbed: Path) -> None:
    """At each of its steps; the command that watches starts a new one each time."""
    run = Run(site, "kill-dispatcher", size=8)

    def strike() -> None:
        run.when(site.dispatcher, "a dispatcher")
        if site.campaign_state(run.name) != "finished":
            kill(site.dispatcher())
            run.killed += 1

    run.when(lambda: site.campaign_state(run.name) == "ingesting", "ingesting")
    strike()
    run.when_batch("planned", "relax")
    strike()
    run.when_batch("intent", "relax")
    strike()
    run.when_batch("submitted", "relax")
    strike()
    run.when_done(10, "relax")
    strike()
    run.when_batch("finished", "relax")
    strike()
    run.when_batch("intent", "eos")
    strike()
    run.when(lambda: site.campaign_state(run.name) == "merging", "merging")
    strike()
    run.check(undisturbed)
    assert run.killed >= 6, "the campaign was faster than the blows"


def test_everything_at_once(site: Site, undisturbed: Path) -> None:
    """As in a power cut: command, dispatcher, daemon and jobs; then ``campaign resume``."""
    run = Run(site, "kill-everything", size=8)
    run.when_done(5, "relax")
    run.front.kill()
    run.front.communicate()
    kill(site.dispatcher())
    for part in DAEMON:
        for pid in site.daemon(part):
            kill(pid)
    for process in site.node_programs():
        kill(process.pid)
    result = site.matcompute("campaign", "resume", run.name, "--no-progress")
    assert "finished" in result.stdout
    run.front = subprocess.Popen(["true"], stdout=subprocess.PIPE, text=True)
    run.check(undisturbed)

"""Real ``kill -9`` of every part at several points: nothing is lost and nothing finished is computed again.

A blow is aimed at a point of the campaign's life, not at a time. Structures wait at a gate until the test lets them
pass, so a point that counts them cannot be missed. A step of the dispatcher can, if this machine goes past it between
two looks: such a blow is counted and told in a warning. A test in which none landed shows nothing and fails.
"""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psutil
import pytest

from matcompute.dataset import Dataset
from matcompute.dataset.diff import diff_datasets

from .conftest import COUNT, PATIENCE_S, Site

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(4 * PATIENCE_S)]

#: Words in the command lines of the daemon's parts; the supervisor comes first, it would start the others again.
DAEMON = ("start-circus", "worker", "broker")


def lives(process: psutil.Process) -> bool:
    """Whether this very process (ids are used again) is alive; one that its parent has not yet buried is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def kill(site: Site, victims: list[psutil.Process]) -> int:
    """Kill processes and wait until these are gone; return how many were alive."""
    hit = [process for process in victims if lives(process)]
    send(hit, signal.SIGKILL)
    site.until(lambda: not any(lives(process) for process in hit), f"the death of {hit}")
    return len(hit)


class Run:
    """A campaign that is running, its jobs, and the blows against it."""

    def __init__(self, site: Site, name: str, **options: object) -> None:
        self.site, self.name = site, name
        self.before = site.jobs()
        site.gate.close()
        self.front = site.start("campaign", "run", str(site.campaign_file(name, **options)), "--no-progress")  # type: ignore[arg-type]
        self.landed = 0
        self.late: list[str] = []

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing running behind a test that failed."""
        if kind is not None and self.front.poll() is None:
            self.front.kill()
            self.front.communicate()
            self.site.matcompute("campaign", "cancel", self.name, "--yes", check=False)

    # ------------------------------------------------------------------ points of its life
    @property
    def jobs(self) -> set[Path]:
        return self.site.jobs() - self.before

    def done(self, count: int, stage: str) -> Callable[[], bool]:
        """So many structures of a stage are finished."""
        return lambda: self.site.done(self.jobs, stage) >= count

    def batch(self, state: str, stage: str) -> Callable[[], bool]:
        """A batch of a stage is in this state."""
        statement = (
            "SELECT count(*) FROM batch JOIN stage ON stage.id = batch.stage_id JOIN campaign "
            "ON campaign.id = batch.campaign_id WHERE campaign.name = ? AND batch.state = ? AND stage.name = ?"
        )
        return lambda: bool(self.site.query(statement, self.name, state, stage)[0][0])

    def stage_over(self, stage: str) -> Callable[[], bool]:
        statement = (
            "SELECT count(*) FROM stage JOIN campaign ON campaign.id = stage.campaign_id "
            "WHERE campaign.name = ? AND stage.name = ? AND stage.state = 'finished'"
        )
        return lambda: bool(self.site.query(statement, self.name, stage)[0][0])

    def state(self, *states: str) -> Callable[[], bool]:
        return lambda: self.site.campaign_state(self.name) in states

    # ------------------------------------------------------------------ blows
    def strike(
        self,
        what: str,
        point: Callable[[], bool],
        victims: Callable[[], list[psutil.Process]],
        *,
        past: Callable[[], bool] = lambda: False,
        freeze: bool = False,
    ) -> None:
        """Kill processes at a point.

        Parameters
        ----------
        what
            The point in words.
        point
            Whether it is reached.
        victims
            Who is killed; while there is nobody, the point is awaited.
        past
            Whether the point cannot come any more.
        freeze
            Stop the victims and look once more before the blow: they die at the very point.
        """

        def attempt() -> object:
            if self.front.poll() is not None or past():
                return "late"
            if not point():
                self.site.gate.let_one_pass()
                return None
            found = victims()
            if not found:
                return None
            if freeze:
                send(found, signal.SIGSTOP)
                if not point():
                    send(found, signal.SIGCONT)
                    return None
            return "landed" if kill(self.site, found) else None

        if self.site.until(attempt, what) == "landed":
            self.landed += 1
        else:
            self.late.append(what)

    def check(self, reference: Path) -> None:
        """The dataset is the undisturbed one; whatever was finished was finished once."""
        self.site.gate.open()
        text = self.front.communicate(timeout=2 * PATIENCE_S)[0]
        if self.front.returncode != 0:
            text += self.site.matcompute("campaign", "resume", self.name, "--no-progress").stdout
        assert self.site.campaign_state(self.name) == "finished", text
        with Dataset(reference) as old, Dataset(self.site.dataset(self.name)) as new:
            difference = diff_datasets(old, new, atol=0.0, ignore=["cpu_time", "relax__cpu_time"])
            assert difference.equal, difference.to_json()
            assert difference.compared
        counts = self.site.events(self.jobs, "done")
        assert len([key for key in counts if key[0] == "relax"]) >= COUNT
        again = {key: n for key, n in counts.items() if n > 1}
        assert not again, f"computed again after it was finished: {again}"
        if self.late:
            warnings.warn(
                f"{len(self.late)} of {self.landed + len(self.late)} blows came too late: {self.late}",
                stacklevel=2,
            )
        assert self.landed, "no blow landed: the test shows nothing"

    @property
    def successors(self) -> int:
        """How many jobs go on from another one's checkpoint."""
        statement = "SELECT count(*) FROM batch b JOIN campaign c ON c.id = b.campaign_id WHERE c.name = ?"
        return len(self.jobs) - self.site.query(statement, self.name)[0][0]


def test_node_program(site: Site, undisturbed: Path) -> None:
    """All processes of a job, at three points of its life."""
    with Run(site, "kill-node") as run:
        for count, stage in ((1, "relax"), (9, "relax"), (5, "eos")):
            run.strike(f"{count} done in {stage}", run.done(count, stage), site.node_programs)
        run.check(undisturbed)
        assert run.successors >= 1, "a killed job has a successor"


def test_worker_of_the_node_program(site: Site, undisturbed: Path) -> None:
    """One process of a job: the others go on."""

    def worker() -> list[psutil.Process]:
        programs = site.node_programs()
        for process in programs:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended
                if process.parent() in programs:
                    return [process]
        return []

    with Run(site, "kill-node-worker") as run:
        # In two stages: a structure that two workers died of counts as the cause.
        for count, stage in ((2, "relax"), (1, "eos")):
            run.strike(f"{count} done in {stage}", run.done(count, stage), worker)
        run.check(undisturbed)


def test_mpi_rank(site: Site, undisturbed: Path) -> None:
    """The last and the first rank."""

    def rank(number: int) -> list[psutil.Process]:
        programs = sorted(site.node_programs(), key=lambda process: process.pid)
        return [programs[number]] if len(programs) >= 2 else []

    with Run(site, "kill-rank", resources="ranks: 2") as run:
        for count, number in ((2, -1), (8, 0)):
            run.strike(f"{count} done", run.done(count, "relax"), lambda number=number: rank(number))  # type: ignore[misc]
        run.check(undisturbed)


def test_aiida_worker(site: Site, undisturbed: Path) -> None:
    def worker() -> list[psutil.Process]:
        return site.daemon("worker")

    with Run(site, "kill-worker", size=8) as run:
        run.strike("an intent", run.batch("intent", "relax"), worker, past=run.stage_over("relax"))
        for count in (1, 8, 14):
            run.strike(f"{count} done", run.done(count, "relax"), worker)
        run.check(undisturbed)


def test_whole_daemon(site: Site, undisturbed: Path) -> None:
    """Every part of a whole daemon; the dispatcher and the jobs, which live on, mend what they need."""

    def daemon() -> list[psutil.Process]:
        parts = [site.daemon(part) for part in DAEMON]
        return [process for part in parts for process in part] if all(parts) else []

    with Run(site, "kill-daemon", size=8) as run:
        for count, stage in ((1, "relax"), (12, "relax"), (3, "eos")):
            run.strike(f"{count} done in {stage}", run.done(count, stage), daemon)
        run.check(undisturbed)


def test_dispatcher(site: Site, undisturbed: Path) -> None:
    """At each of its steps; the command that watches starts a new one each time."""
    with Run(site, "kill-dispatcher", size=4) as run:
        ended = run.state("merging", "finished")
        for what, point, past in (
            ("ingesting", run.state("ingesting"), run.state("running", "merging", "finished")),
            ("planned", run.batch("planned", "relax"), run.stage_over("relax")),
            ("intent", run.batch("intent", "relax"), run.stage_over("relax")),
            ("submitted", run.batch("submitted", "relax"), run.stage_over("relax")),
            ("10 done", run.done(10, "relax"), ended),
            ("recorded", run.batch("finished", "relax"), ended),
            ("intent of a later stage", run.batch("intent", "eos"), run.stage_over("eos")),
            ("merging", run.state("merging"), run.state("finished")),
        ):
            run.strike(what, point, site.dispatchers, past=past, freeze=True)
        run.check(undisturbed)


def test_everything_at_once(site: Site, undisturbed: Path) -> None:
    """As in a power cut: command, dispatcher, daemon and jobs; then ``campaign resume``."""

    def everything() -> list[psutil.Process]:
        # Whoever would start another one again comes first.
        parts = [[psutil.Process(run.front.pid)], site.dispatchers(), *(site.daemon(part) for part in DAEMON)]
        return [process for part in [*parts, site.node_programs()] for process in part]

    with Run(site, "kill-everything", size=8) as run:
        run.strike("5 done", run.done(5, "relax"), everything)
        run.check(undisturbed)

"""Running pilots: they are submitted, awaited, watched, and ended; one that does not come is explained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.centres.errors import CentreError
from matcompute.centres.model import Centre, LoginBlock
from matcompute.centres.pilot import pilot_cluster
from matcompute.centres.remote import Remote
from matcompute.centres.schedulers.queue import look
from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from dask_jobqueue import JobQueueCluster
    from distributed import Client

__all__ = ["LOGS", "START_S", "PilotError", "pilots", "pilots_of"]

#: How long to wait for the first pilot, in s: it has to go through the centre's queue.
START_S = 600.0
#: Folder of the jobs' output, in the folder where the pilots are started.
LOGS = "pilot-logs"
#: Seconds between two looks at the queue.
_LOOK_S = 2.0
#: States in which a job is on its way out of the queue.
_ENDING = ("completing", "completed", "failed", "cancelled", "timeout", "node_fail", "out_of_memory")


class PilotError(CentreError):
    """Pilots cannot be had; the message says what the scheduler and the jobs' output say."""


@contextmanager
def pilots(
    centre: Centre,
    partition: str | None = None,
    *,
    account: str | None = None,
    jobs: int | None = None,
    start_timeout_s: float = START_S,
    on_wait: Callable[[str], None] | None = None,
    **keywords: Any,
) -> Iterator[Client]:
    """Start pilots; give a client of theirs when the first one works; end them all in the end.

    The process must be where the scheduler's commands are: on a login node, or in a job.

    Parameters
    ----------
    centre, partition, account
        As in :func:`matcompute.centres.pilot.dask_keywords`.
    jobs
        Pilots; by default the profile's ``pilot.max_jobs``.
    start_timeout_s
        How long to wait for the first one, in s.
    on_wait
        Told what the pilots wait for, whenever that changes.
    **keywords
        Of ``dask_jobqueue``, in place of the profile's.

    Yields
    ------
    distributed.Client
        With at least one worker; others come when the scheduler starts them.

    Raises
    ------
    PilotError
        If they cannot be submitted, all end at once, or none works in time.
    """
    from distributed import Client

    keywords = {"log_directory": LOGS, **keywords}
    with _closing(pilot_cluster(centre, partition, account=account, **keywords)) as cluster:
        watch = _Watch(centre, cluster, Path(keywords["log_directory"]))
        watch.submit(jobs or centre.pilot.max_jobs, start_timeout_s)
        with Client(cluster) as client:
            watch.await_first(client, start_timeout_s, on_wait)
            try:
                yield client
            except Exception as error:
                if client.nthreads():
                    raise
                raise PilotError(f"{error}: {watch.told()}", hint=watch.hint) from error


@contextmanager
def _closing(cluster: JobQueueCluster) -> Iterator[JobQueueCluster]:
    try:
        yield cluster
    finally:
        # Dask insists that every worker was started; one whose job was refused was not.
        with suppress(AssertionError):
            cluster.close()


def pilots_of(profile: Path, on_wait: Callable[[str], None] | None = None) -> AbstractContextManager[Client]:
    """Start the pilots of the centre that a profile file describes; see :func:`pilots`.

    Raises
    ------
    CentreError
        If the file is wrong, or has variables that nobody has filled in.
    """
    centre = Centre.load(profile)
    if centre.unfilled:
        raise CentreError(
            f"{profile}: no value for {', '.join(centre.unfilled)}",
            hint="`matcompute centre export ID --filled` prints the profile with your values",
        )
    return pilots(centre, on_wait=on_wait)


class _Watch:
    """Submits pilots and finds out what has become of them."""

    hint = "pilot in the centre's profile says what a pilot asks for; `matcompute centre doctor` tries the partition"

    def __init__(self, centre: Centre, cluster: JobQueueCluster, logs: Path) -> None:
        # Where this runs the scheduler's commands are at hand: no login.
        self.here = centre.model_copy(update={"login": LoginBlock()})
        self.cluster, self.logs = cluster, logs

    def submit(self, jobs: int, timeout: float) -> None:
        # What `scale` does, but not in the background: there a refusal goes to a log, and nobody is told.
        async def work() -> None:
            for _ in range(jobs):
                self.cluster.worker_spec.update(self.cluster.new_worker_spec())
            await self.cluster._correct_state()

        try:
            self.cluster.sync(work, callback_timeout=timeout)
        except (RuntimeError, ValueError, OSError, TimeoutError) as error:
            raise PilotError(f"pilots cannot be submitted: {_refusal(error)}", hint=self.hint) from error

    @property
    def job_ids(self) -> list[str]:
        return [str(job.job_id) for job in self.cluster.workers.values() if job.job_id]

    def await_first(self, client: Client, timeout: float, on_wait: Callable[[str], None] | None) -> None:
        deadline, before, absent = time.monotonic() + timeout, "", 0
        while not client.nthreads():
            states, told = self.look()
            # A job that was just submitted, or is ending, may be missing from one answer.
            absent = absent + 1 if states is not None and not states else 0
            if absent > 2 and not client.nthreads():
                raise PilotError(f"all pilots have ended before they worked: {self.told()}", hint=self.hint)
            if time.monotonic() > deadline:
                raise PilotError(
                    f"no pilot works after {timeout:.0f} s: {self.told()}",
                    hint="wait longer, or choose another partition (pilot.partition); " + self.hint,
                )
            if on_wait is not None and told != before:
                on_wait(told)
            before = told
            time.sleep(_LOOK_S)

    def look(self) -> tuple[dict[str, str] | None, str]:
        """Return the states of the pilots in the queue by number, None if it cannot be asked; and that in words."""
        try:
            seen = look(Remote(self.here), self.here.scheduler.type)
        except MatcomputeError as error:
            return None, error.message
        if seen.jobs is None:
            return None, f"{len(self.job_ids)} jobs ({', '.join(self.job_ids)})"
        mine = [job for job in seen.jobs if job.job_id in self.job_ids]
        words = []
        for job in mine:
            part = seen.partitions.get(job.partition)
            why = f" ({job.reason})" if job.reason not in ("", "None") else ""
            where = "" if part is None or part.starts else f", which starts no jobs ({part.state})"
            words.append(f"job {job.job_id} is {job.state}{why} in partition {job.partition}{where}")
        states = {job.job_id: job.state for job in mine if job.state not in _ENDING}
        return states, "; ".join(words) or f"jobs {', '.join(self.job_ids) or '-'} are not in the queue"

    def told(self) -> str:
        """Return what the queue and the jobs' output say."""
        _, queue = self.look()
        lines = [f"{path}: {line}" for path, line in self._last_lines()]
        return "\n".join([queue, *lines])

    def _last_lines(self) -> Iterator[tuple[Path, str]]:
        for job_id in self.job_ids[:3]:
            for path in sorted(self.logs.glob(f"*{job_id}*")):
                lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
                said = [line for line in lines if line and " - INFO - " not in line]
                for line in said[-3:]:
                    yield path, line


def _refusal(error: BaseException) -> str:
    """Return what a submission command said, without what ``dask_jobqueue`` writes around it."""
    _, found, said = str(error).partition("stderr:\n")
    lines = [line.strip() for line in (said if found else str(error)).splitlines() if line.strip()]
    return "; ".join(lines) or type(error).__name__

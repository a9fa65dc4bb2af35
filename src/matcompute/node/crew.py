"""The workers of one supervisor: starts them, replaces the dead, kills the hung, and tells what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from matcompute.node.exit_codes import ExitCode
from matcompute.node.ledger import Done, Failed, Left, Lost
from matcompute.node.worker import WorkerHandle

if TYPE_CHECKING:
    from matcompute.node.job import Job

__all__ = ["Crew", "Event"]

Event = Done | Left | Lost | Failed

#: So many workers may die before their first structure; then the fault is not a structure's.
_BARREN_DEATHS = 2


class Crew:
    """Workers ``numbers``, each its own process.

    Parameters
    ----------
    numbers
        Worker numbers (the rank, under MPI).
    make_job
        Gives the job inside of a worker.
    stop_at
        ``time.monotonic()`` at which the walltime is used up, or None.
    timeout_s
        Time-out of a structure; a worker that does not even notice it is killed.
    """

    def __init__(
        self,
        numbers: Iterable[int],
        make_job: Callable[[], Job],
        stop_at: float | None,
        timeout_s: float | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.workers = [WorkerHandle(number, make_job, stop_at) for number in numbers]
        self._resting: set[int] = set()
        self._barren = 0
        self._kill_at: float | None = None
        for worker in self.workers:
            worker.start()

    @property
    def busy(self) -> bool:
        """Whether a structure is in flight."""
        return any(worker.flight is not None for worker in self.workers)

    def free(self) -> list[WorkerHandle]:
        """Return the workers that can take a structure."""
        return [worker for worker in self.workers if worker.ready and worker.flight is None]

    def rest(self, worker: WorkerHandle) -> None:
        """Tell a free worker, once, that there is nothing to do for now."""
        if worker.number not in self._resting:
            self._resting.add(worker.number)
            worker.send("rest")

    def compute(self, worker: WorkerHandle, index: int, attempt: int) -> None:
        """Hand a structure to a free worker; if it has just died, that is told as a loss by :meth:`poll`."""
        self._resting.discard(worker.number)
        worker.compute(index, attempt)

    def interrupt(self, grace_s: float) -> None:
        """Have the workers leave their structures; after ``grace_s`` those that do not are killed."""
        self._kill_at = time.monotonic() + grace_s
        for worker in self.workers:
            if worker.flight is not None:
                worker.interrupt()

    def poll(self, timeout_s: float) -> list[Event]:
        """Wait for something to happen, at most ``timeout_s``, and return it."""
        events: list[Event] = []
        by_connection = {w.connection: w for w in self.workers if not w.gone}
        if not by_connection:
            time.sleep(timeout_s)
        for connection in wait(list(by_connection), timeout_s) if by_connection else ():
            events += self._hear(by_connection[connection])  # type: ignore[index]
        self._kill_hung()
        return events

    def quit(self, *, kill: bool = False) -> None:
        """End all workers; idle ones close their checkpoint first."""
        for worker in self.workers:
            if kill or worker.flight is not None:
                worker.kill()
            else:
                worker.send("quit")
        for worker in self.workers:
            worker.quit()

    def _hear(self, worker: WorkerHandle) -> list[Event]:
        message = worker.receive()
        if message is None:
            return self._replace(worker)
        kind, *rest = message
        if kind == "ready":
            worker.ready = True
            self._resting.discard(worker.number)
        elif kind == "begun" and worker.flight is not None:
            worker.flight.since = time.monotonic()
        elif kind == "done":
            worker.flight = None
            self._barren = 0
            return [Done(*rest)]
        elif kind == "stopped":
            worker.flight = None
            return [Left(*rest)]
        elif kind == "error":
            worker.flight, worker.failed = None, True
            return [Failed(*rest)]
        return []

    def _replace(self, worker: WorkerHandle) -> list[Event]:
        flight, killed_hung = worker.flight, worker.killed_hung
        why = worker.bury()
        worker.flight, worker.ready = None, False
        if worker.failed:
            worker.gone = True
            return []
        if flight is None:
            self._barren += 1
            if self._barren > _BARREN_DEATHS:
                worker.gone = True
                return [Failed(int(ExitCode.INTERNAL), f"workers die before they compute anything: {why}")]
        worker.start()
        self._resting.discard(worker.number)
        if flight is None:
            return []
        if self._kill_at is not None:
            return [Left(flight.index, "killed: it did not stop in time")]
        if killed_hung:
            return [Lost(flight.index, flight.attempt, f"took longer than {self.timeout_s:g} s", True)]
        return [Lost(flight.index, flight.attempt, why)]

    def _kill_hung(self) -> None:
        now = time.monotonic()
        for worker in self.workers:
            if worker.flight is None:
                continue
            # Twice: the worker itself ends a structure that is merely slow, between two evaluations.
            hung = self.timeout_s is not None and now - worker.flight.since > 2 * self.timeout_s + 1
            if hung or (self._kill_at is not None and now > self._kill_at):
                worker.killed_hung = hung
                worker.kill()

"""What is left to do and what has come of the rest: the queue, costliest first, and the tally."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset import Status

if TYPE_CHECKING:
    from matcompute.node.job import Job
    from matcompute.node.records import Record

__all__ = ["Done", "Failed", "Ledger", "Left", "Lost", "Tally"]

#: How many failed structures the summary shows in full.
_EXAMPLES = 20


@dataclass(frozen=True)
class Done:
    """A structure is finished and checkpointed."""

    index: int
    status: int
    cpu_s: float
    wall_s: float
    message: str


@dataclass(frozen=True)
class Left:
    """A structure was left unfinished because the job stops."""

    index: int
    reason: str | None


@dataclass(frozen=True)
class Lost:
    """The worker died, or was killed, with this structure in flight."""

    index: int
    attempt: int
    why: str
    timed_out: bool = False


@dataclass(frozen=True)
class Failed:
    """A worker cannot work at all: the job ends with this exit code."""

    exit_code: int
    text: str


@dataclass
class Tally:
    """Counts for the summary."""

    n_total: int
    n_reused: int = 0
    n_computed: int = 0
    n_retried: int = 0
    cpu_s: float = 0.0
    busy_s: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)

    def add(self, entry_id: str, status: int, message: str) -> None:
        """Count one attempted structure, reused or computed."""
        label = Status(status).label
        self.counts[label] = self.counts.get(label, 0) + 1
        if status != Status.OK and len(self.failures) < _EXAMPLES:
            self.failures.append({"id": entry_id, "status": label, "message": message})

    def counts_of_all(self) -> dict[str, int]:
        """Return the counts with the structures that were not attempted."""
        left = self.n_total - sum(self.counts.values())
        return self.counts | ({Status.NOT_ATTEMPTED.label: left} if left else {})


class Ledger:
    """Hands structures out and books what comes back.

    Workers take the costliest structure that is left whenever they are free: no estimate has to be right for them to
    end together, since what is left for the end is cheap (longest processing time first, R. L. Graham, SIAM J. Appl.
    Math. 17, 416 (1969): within 4/3 of the best possible).

    Parameters
    ----------
    job
        The job.
    reused
        Records of the checkpoint by key.
    n_workers
        Number of workers: the ledger's own checkpoint file is the one after theirs.
    """

    def __init__(self, job: Job, reused: dict[tuple[str, str], Record], n_workers: int) -> None:
        self.job = job
        self.tally = Tally(len(job.ids))
        self.in_flight: set[int] = set()
        self._n_workers = n_workers
        todo = []
        for index in range(len(job.ids)):
            record = reused.get(job.key(index))
            if record is not None:
                self.tally.n_reused += 1
                self.tally.add(record.entry_id, record.status, record.message)
            else:
                todo.append(index)
        # A stable sort: the order of equal costs, and with it the whole run, is the same each time.
        order: Any = np.argsort(-job.costs()[todo], kind="stable") if todo else []
        self.queue: deque[tuple[int, int]] = deque((todo[i], 1) for i in order)

    def __len__(self) -> int:
        return len(self.queue)

    @property
    def finished(self) -> bool:
        """Whether every structure was attempted."""
        return not self.queue and not self.in_flight

    def take(self) -> tuple[int, int] | None:
        """Return (index, attempt) of the next structure, or None when none is left."""
        if not self.queue:
            return None
        index, attempt = self.queue.popleft()
        self.in_flight.add(index)
        return index, attempt

    def put_back(self, index: int, attempt: int) -> None:
        """Undo :meth:`take`, when the worker was gone before it could begin."""
        self.in_flight.discard(index)
        self.queue.appendleft((index, attempt))

    def book(self, events: Iterable[Done | Left | Lost]) -> None:
        """Book what workers report.

        A structure whose worker died is tried once more: the machine may have been at fault. The second time it is
        marked ``crashed``.
        """
        for event in events:
            self.in_flight.discard(event.index)
            if isinstance(event, Done):
                self.tally.n_computed += 1
                self.tally.cpu_s += event.cpu_s
                self.tally.busy_s += event.wall_s
                self.tally.add(self.job.ids[event.index], event.status, event.message)
            elif isinstance(event, Lost):
                self._book_lost(event)
            else:
                self.queue.appendleft((event.index, 1))

    def _book_lost(self, event: Lost) -> None:
        if event.attempt == 1 and not event.timed_out:
            self.tally.n_retried += 1
            self.queue.appendleft((event.index, 2))
            return
        if event.timed_out:
            status, message = Status.TIMED_OUT, event.why
        else:
            status, message = Status.CRASHED, f"{event.why}, twice with this structure"
        self._record(event.index, event.attempt, status, message)
        self.tally.n_computed += 1
        self.tally.add(self.job.ids[event.index], status, message)

    def _record(self, index: int, attempt: int, status: Status, message: str) -> None:
        from matcompute.node.checkpoint import CheckpointWriter, Journal
        from matcompute.node.records import Record

        checkpoint = CheckpointWriter(self.job.checkpoint, self._n_workers)
        journal = Journal(self.job.checkpoint, -1)
        try:
            checkpoint.add(Record(*self.job.key(index), status, message, attempt))
            journal.write("done", self.job.ids[index], attempt, status=int(status))
        finally:
            checkpoint.close()
            journal.close()

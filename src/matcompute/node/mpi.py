"""A job under ``mpiexec``: rank 0 holds the queue, every rank has one worker process that computes.

The rank itself only talks: a structure that crashes its calculator costs a worker, not the MPI job, and rank 0 serves
the queue without threads. Workers are forked before MPI is initialised. All waiting is by polling with short sleeps,
because a blocking receive of MPICH spins on the core that a worker needs. A rank that is killed takes the MPI job
with it (MPI's rule); the next run continues from the checkpoint.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from matcompute.node.crew import Crew
from matcompute.node.errors import UnavailableError
from matcompute.node.ledger import Failed, Left
from matcompute.node.processes import grace_s, raise_failure

if TYPE_CHECKING:
    from matcompute.node.deadline import StopRequest
    from matcompute.node.job import Job
    from matcompute.node.ledger import Ledger
    from matcompute.node.summary import Summary

__all__ = ["RankZero", "Ranks", "launched_ranks", "launcher_rank", "serve_rank", "start_crew"]

_TAG = 77

#: Environment variables by which launchers tell the number of ranks.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def launched_ranks(environ: Mapping[str, str] = os.environ) -> int:
    """Return how many ranks the launcher has started; 0 when the program was not started by one."""
    for name in _SIZES:
        if environ.get(name, "").isdigit():
            size = int(environ[name])
            # srun without --mpi starts single tasks under a step as well: one task is no MPI job.
            if size > 1 or not name.startswith("SLURM"):
                return size
    return 0


def launcher_rank(environ: Mapping[str, str] = os.environ) -> int:
    """Return this process's rank as the launcher tells it, before MPI is initialised; 0 if it does not."""
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID"):
        if environ.get(name, "").isdigit():
            return int(environ[name])
    return 0


class Ranks:
    """The communicator, reduced to what polling needs.

    Raises
    ------
    UnavailableError
        If mpi4py is missing, or belongs to another MPI than the launcher.
    """

    def __init__(self) -> None:
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise UnavailableError(
                f"the job was started by an MPI launcher, but mpi4py cannot be loaded: {error}",
                hint="pip install mpi4py mpich (or mpi4py built with the centre's MPI), or start without mpiexec",
            ) from error
        self.comm = MPI.COMM_WORLD
        self.rank: int = self.comm.Get_rank()
        self.size: int = self.comm.Get_size()
        launched = launched_ranks()
        if self.size == 1 and launched > 1:
            raise UnavailableError(
                f"the launcher started {launched} ranks, but mpi4py sees one: it belongs to another MPI",
                hint="use the mpiexec of the MPI that mpi4py was built with",
            )

    def send(self, to: int, *message: Any) -> None:
        """Send a small message without waiting for the receiver's attention."""
        self.comm.send(message, dest=to, tag=_TAG)

    def receive(self) -> tuple[int, tuple[Any, ...]] | None:
        """Return (rank, message), or None if nothing has come."""
        from mpi4py import MPI

        status = MPI.Status()
        if not self.comm.iprobe(source=MPI.ANY_SOURCE, tag=_TAG, status=status):
            return None
        source = status.Get_source()
        return source, self.comm.recv(source=source, tag=_TAG)

    def tell_all(self, *message: Any) -> None:
        """Send a message to every other rank."""
        for other in range(self.size):
            if other != self.rank:
                self.send(other, *message)


def serve_rank(ranks: Ranks, crew: Crew, request: StopRequest) -> int:
    """Work for rank 0 until it says how to exit; return that exit code.

    Sends ``("free",)`` and ``("events", …)``; receives ``("compute", index, attempt)``, ``("rest",)``,
    ``("interrupt", grace)``, ``("quit",)`` and ``("exit", code)``.
    """
    announced = told = ended = False
    waiting = False
    while True:
        if not ended:
            # While an answer is awaited the worker stands still, so look often; else the pipe wakes us.
            events = crew.poll(0.0002 if waiting else 0.02)
            if events:
                announced = False
                ranks.send(0, "events", events)
            if not announced and crew.free():
                announced = waiting = True
                ranks.send(0, "free")
            if request.reason is not None and not told:
                told = True
                ranks.send(0, "stop", request.reason)
        else:
            time.sleep(0.005)
        received = ranks.receive()
        if received is None:
            continue
        kind, *arguments = received[1]
        waiting = False
        if kind == "compute":
            free = crew.free()
            if free:
                crew.compute(free[0], *arguments)
            else:
                # The worker died between its announcement and the answer.
                announced = False
                ranks.send(0, "refused", *arguments)
        elif kind == "rest":
            for worker in crew.free():
                crew.rest(worker)
        elif kind == "interrupt":
            crew.interrupt(*arguments)
        elif kind == "quit":
            crew.quit(kill=bool(arguments and arguments[0]))
            ended = True
            ranks.send(0, "bye")
        elif kind == "exit":
            if not ended:
                crew.quit(kill=True)
            return int(arguments[0])


class RankZero:
    """Serves the queue to all ranks, its own worker among them.

    Parameters
    ----------
    ranks, crew
        The communicator and rank 0's own worker.
    job, ledger, summary, request
        As for :func:`matcompute.node.processes.run_processes`.
    """

    def __init__(
        self, ranks: Ranks, crew: Crew, job: Job, ledger: Ledger, summary: Summary, request: StopRequest
    ) -> None:
        self.ranks, self.crew, self.job = ranks, crew, job
        self.ledger, self.summary, self.request = ledger, summary, request
        self.idle: set[int] = set()
        self.flying: dict[int, int] = {}
        self.interrupted = False
        # Short structures need a quick answer, long ones a quiet rank 0.
        mean = float(job.costs().mean()) if len(job.ids) else 1.0
        self.poll_s = 0.0003 if mean < 0.1 else 0.002

    def run(self) -> str | None:
        """Compute what the ledger holds; see :func:`matcompute.node.processes.run_processes`."""
        failed = True
        try:
            while not self.ledger.finished:
                if self.request.reason is None:
                    self._hand_out()
                elif not self.ledger.in_flight:
                    break
                elif not self.interrupted:
                    self.interrupted = True
                    self.ranks.tell_all("interrupt", grace_s(self.job))
                    self.crew.interrupt(grace_s(self.job))
                for event in self.crew.poll(self.poll_s):
                    self._book(event)
                self._listen()
                self.summary.refresh(self.ledger.tally)
            failed = False
        finally:
            self._quit(kill=failed)
        return None if self.ledger.finished else self.request.reason

    def _hand_out(self) -> None:
        for worker in self.crew.free():
            work = self.ledger.take()
            if work is None:
                self.crew.rest(worker)
            else:
                self.crew.compute(worker, *work)
        for rank in sorted(self.idle):
            work = self.ledger.take()
            if work is None:
                return
            self.idle.discard(rank)
            self.ranks.send(rank, "compute", *work)

    def _listen(self) -> None:
        while (received := self.ranks.receive()) is not None:
            rank, (kind, *arguments) = received
            if kind == "free":
                self.idle.add(rank)
                if not len(self.ledger):
                    self.ranks.send(rank, "rest")
            elif kind == "refused":
                self.ledger.put_back(*arguments)
            elif kind == "stop":
                self.request.ask(arguments[0])
            elif kind == "events":
                for event in arguments[0]:
                    self._book(event)

    def _book(self, event: Any) -> None:
        if isinstance(event, Failed):
            raise_failure(event)
        self.ledger.book([event])
        if isinstance(event, Left) and self.request.reason is None:
            self.request.ask(event.reason)

    def _quit(self, *, kill: bool) -> None:
        self.ranks.tell_all("quit", kill)
        self.crew.quit(kill=kill)
        missing = self.ranks.size - 1
        give_up = time.monotonic() + 30.0
        while missing and time.monotonic() < give_up:
            received = self.ranks.receive()
            if received is None:
                time.sleep(0.002)
            elif received[1][0] == "bye":
                missing -= 1


def start_crew(
    make_job: Callable[[], Job], rank: int, stop_at: float | None, timeout_s: float | None
) -> Crew:
    """Fork the worker of this rank; to be called before MPI is initialised."""
    return Crew([rank], make_job, stop_at, timeout_s)

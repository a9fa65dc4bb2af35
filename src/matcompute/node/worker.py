"""A worker process, and the handle that its supervisor holds.

The supervisor sends ``("compute", index, attempt)``, ``("rest",)`` (nothing to do now: give the core back) or
``("quit",)``. The worker answers ``("ready",)`` once loaded, ``("begun", index)``,
``("done", index, status, cpu_s, wall_s, message)``, ``("stopped", index, reason)`` or ``("error", exit_code, text)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from matcompute.errors import MatcomputeError
from matcompute.node.deadline import Stopped, StopRequest, StructureDeadline
from matcompute.node.exit_codes import ExitCode
from matcompute.node.threads import pin_threads

if TYPE_CHECKING:
    from matcompute.node.checkpoint import CheckpointWriter, Journal
    from matcompute.node.job import Job

__all__ = ["Flight", "WorkerHandle"]

_PR_SET_PDEATHSIG = 1


@dataclass
class Flight:
    """The structure that a worker is computing."""

    index: int
    attempt: int
    since: float


class WorkerHandle:
    """Starts one worker and talks to it; used by the supervisor of a process pool and by each MPI rank.

    Workers are forked: what the supervisor has imported and loaded is there at once and shared in memory. The
    supervisor therefore starts no threads and loads only what may be forked.

    Parameters
    ----------
    number
        Number of the worker: its checkpoint file and journal.
    make_job
        Gives the job inside of the worker.
    stop_at
        ``time.monotonic()`` at which the walltime is used up, or None.
    """

    def __init__(self, number: int, make_job: Callable[[], Job], stop_at: float | None) -> None:
        self.number = number
        self.make_job = make_job
        self.stop_at = stop_at
        self.ready = False
        self.killed_hung = False
        #: It told that it cannot work; its end is awaited.
        self.failed = False
        #: Dead, and not replaced.
        self.gone = False
        self.flight: Flight | None = None
        self.process: Any = None
        self.connection: Connection = None  # type: ignore[assignment]

    def start(self) -> None:
        """Fork the worker."""
        context = get_context("fork")
        self.connection, other = context.Pipe()
        self.ready, self.killed_hung, self.flight = False, False, None
        # Signals wait until the worker has its own handlers: one that came in between would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
        try:
            self.process = context.Process(
                target=_main,
                args=(self.number, self.make_job, self.stop_at, other, self.connection, os.getpid()),
                name=f"matcompute-worker-{self.number}",
            )
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
        other.close()

    def send(self, *message: Any) -> bool:
        """Send a message; False if the worker is gone."""
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError, OSError):
            return False
        return True

    def compute(self, index: int, attempt: int) -> bool:
        """Have a structure computed; False if the worker is gone."""
        self.flight = Flight(index, attempt, time.monotonic())
        return self.send("compute", index, attempt)

    def receive(self) -> tuple[Any, ...] | None:
        """Return the next message, or None when the worker is dead."""
        try:
            message: tuple[Any, ...] = self.connection.recv()
        except (EOFError, ConnectionResetError, OSError):
            return None
        return message

    def interrupt(self) -> None:
        """Ask the worker to leave its structure at the next step."""
        if self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the worker at once."""
        if self.process.is_alive():
            self.process.kill()

    def bury(self) -> str:
        """Wait for a dead worker and return how it died."""
        self.process.join()
        self.connection.close()
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-code).name
                more = " (out of memory?)" if -code == signal.SIGKILL else ""
                return f"worker was killed by {name}{more}"
        return f"worker ended with exit status {code}"

    def quit(self, patience_s: float = 5.0) -> None:
        """Let an idle worker end; kill it if it does not."""
        self.send("quit")
        self.process.join(patience_s)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def _main(
    number: int,
    make_job: Callable[[], Job],
    stop_at: float | None,
    connection: Connection,
    supervisor_end: Connection,
    supervisor: int,
) -> None:
    request = StopRequest(stop_at)
    request.install()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
    supervisor_end.close()
    _die_with(supervisor)
    _leave_mpi()
    try:
        _Worker(number, make_job(), connection, request).serve()
    except MatcomputeError as error:
        _tell(connection, "error", int(error.exit_code), str(error))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except BaseException:
        _tell(connection, "error", int(ExitCode.INTERNAL), traceback.format_exc())


def _tell(connection: Connection, *message: Any) -> None:
    with contextlib.suppress(OSError):
        connection.send(message)


class _Worker:
    def __init__(self, number: int, job: Job, connection: Connection, request: StopRequest) -> None:
        from matcompute.node.slots import CoreSlots

        self.job = job
        self.connection = connection
        self.request = request
        self.slots = None if job.slots is None else CoreSlots(job.slots, job.spec.threads)
        self.number = number
        self.begun = time.monotonic()
        # Opened with the first structure: only then has the supervisor the lock of the job's folder.
        self.checkpoint: CheckpointWriter | None = None
        self.journal: Journal | None = None

    def _open(self) -> tuple[CheckpointWriter, Journal]:
        from matcompute.node.checkpoint import CheckpointWriter, Journal

        if self.checkpoint is None or self.journal is None:
            self.checkpoint = CheckpointWriter(self.job.checkpoint, self.number)
            self.journal = Journal(self.job.checkpoint, self.number)
        return self.checkpoint, self.journal

    def serve(self) -> None:
        # Loading a model takes seconds of a core, so it needs a slot as well.
        self._take_slot()
        self.job.calculator()
        pin_threads(self.job.spec.threads)
        self._give_slot()
        self.connection.send(("ready",))
        while True:
            kind, *arguments = self.connection.recv()
            if kind == "quit":
                break
            if kind == "rest":
                self._give_slot()
            else:
                self._compute(*arguments)
        self._give_slot()
        if self.checkpoint is not None and self.journal is not None:
            self.checkpoint.close()
            self.journal.close()

    def _take_slot(self) -> bool:
        return self.slots is None or self.slots.acquire(lambda: self.request.reason is not None)

    def _give_slot(self) -> None:
        if self.slots is not None:
            self.slots.release()

    def _compute(self, index: int, attempt: int) -> None:
        from matcompute.dataset import Status
        from matcompute.node.compute import compute
        from matcompute.node.records import Record

        entry_id = self.job.ids[index]
        if not self._take_slot() or self.request.reason is not None:
            self.connection.send(("stopped", index, self.request.reason))
            return
        checkpoint, journal = self._open()
        journal.write("start", entry_id, attempt)
        if self.slots is not None:
            self.connection.send(("begun", index))
        deadline = StructureDeadline(self.request, self.job.spec.structure_timeout_s)
        try:
            record = compute(self.job, index, deadline, attempt)
        except Stopped as stop:
            if not self._hopeless(deadline, stop):
                journal.write("stopped", entry_id, attempt, reason=stop.reason)
                self.connection.send(("stopped", index, stop.reason))
                return
            message = f"not finished after {deadline.elapsed:.0f} s, nearly the whole walltime of the job"
            record = Record(*self.job.key(index), Status.TIMED_OUT, message, attempt, wall_s=deadline.elapsed)
        checkpoint.add(record)
        journal.write("done", entry_id, attempt, status=int(record.status))
        self.connection.send(("done", index, int(record.status), record.cpu_s, record.wall_s, record.message))

    def _hopeless(self, deadline: StructureDeadline, stop: Stopped) -> bool:
        # It had nearly the whole job to itself: every later job of this length would end at the same place.
        return (
            stop.reason == "walltime"
            and self.request.stop_at is not None
            and deadline.elapsed > 0.8 * (self.request.stop_at - self.begun)
        )


def _die_with(supervisor: int) -> None:
    """Have the kernel kill this process when the supervisor dies, so that no orphan computes on."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(int(ExitCode.INTERNAL))


def _leave_mpi() -> None:
    """Close the launcher's socket: the launcher must see the rank itself die, not its worker."""
    descriptor = os.environ.pop("PMI_FD", None)
    if descriptor is not None:
        with contextlib.suppress(OSError, ValueError):
            os.close(int(descriptor))

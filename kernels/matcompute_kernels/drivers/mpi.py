"""Chunks over the ranks of an MPI job: rank 0 holds the queue and computes too, each rank asks when it is free.

A chunk is on disk before it is reported. What holds when a rank dies: at most one chunk for each rank that ends is
lost, the launcher ends the job, and a rerun, on any number of ranks, computes what is missing. That others take over
without a rerun is not to be counted on: where the launcher is told to let them live (``mpiexec -disable-auto-cleanup``)
and MPI itself survives, which MPICH does not always, rank 0 hands the chunk of a dead rank of its own machine to
another one.
All waiting is by polling with short sleeps: a blocking receive of MPICH spins on a core.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from socket import gethostname
from typing import Any

from matcompute_kernels.cuda.backend import set_local_rank
from matcompute_kernels.drivers.job import (
    Chunk,
    DriverError,
    Job,
    Outcome,
    ProgressFunction,
    StopFunction,
    Summary,
    Tally,
)
from matcompute_kernels.errors import KernelInputError

__all__ = ["run_mpi"]

_TAG = 78
_POLL_S = 0.0005
_LIVENESS_S = 0.5


def run_mpi(
    job: Job,
    comm: Any = None,
    *,
    progress: ProgressFunction | None = None,
    stop: StopFunction | None = None,
) -> Summary:
    """Run a job on all ranks of a communicator; every rank calls this with the same job.

    Parameters
    ----------
    job
        What to do.
    comm
        An mpi4py communicator; None: ``COMM_WORLD``.
    progress
        Called on rank 0 after every chunk with the structures done and all.
    stop
        Asked on rank 0 between chunks: whether to end early.

    Returns
    -------
    Summary
        The same on every rank.

    Raises
    ------
    DriverError
        On every rank: if mpi4py is not installed or a chunk cannot be computed; what is done stays done.
    KernelInputError
        On every rank: if the kernel refuses a parameter.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise DriverError(
            f"the MPI driver needs mpi4py: pip install mpi4py mpich, or the centre's own build ({error})"
        ) from error
    comm = MPI.COMM_WORLD if comm is None else comm
    # One GPU a rank, if the kernel uses one: by its place among the ranks of its machine.
    machine = comm.Split_type(MPI.COMM_TYPE_SHARED)
    set_local_rank(machine.Get_rank())
    machine.Free()
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # Hydra's notice that a rank has died
    return _Lead(comm, MPI, job, progress, stop).run() if comm.Get_rank() == 0 else _follow(comm, MPI, job)


def _receive(comm: Any, mpi: Any) -> tuple[int, Any] | None:
    status = mpi.Status()
    if not comm.iprobe(source=mpi.ANY_SOURCE, tag=_TAG, status=status):
        return None
    return status.Get_source(), comm.recv(source=status.Get_source(), tag=_TAG)


def _follow(comm: Any, mpi: Any, job: Job) -> Summary:
    """Compute what rank 0 hands out until it says stop."""
    comm.send(("ready", (gethostname(), os.getpid())), dest=0, tag=_TAG)
    while True:
        received = _receive(comm, mpi)
        if received is None:
            time.sleep(_POLL_S)
            continue
        kind, content = received[1]
        if kind == "stop":
            return _result(*content)
        try:
            answer: tuple[str, Any] = ("done", job.execute(Chunk(*content)))
        except Exception as error:
            answer = ("failed", _failure(content, error))
        comm.send(answer, dest=0, tag=_TAG)


class _Lead:
    """Rank 0: serves the queue by polling while one thread of it computes."""

    def __init__(
        self,
        comm: Any,
        mpi: Any,
        job: Job,
        progress: ProgressFunction | None,
        stop: StopFunction | None,
    ) -> None:
        self.comm, self.mpi, self.job, self.progress, self.stop = comm, mpi, job, progress, stop
        self.queue: deque[Chunk] = deque()
        self.idle: set[int] = set()
        self.flying: dict[int, Chunk] = {}
        self.home: dict[int, tuple[str, int]] = {}
        self.lost: set[int] = set()
        self.failure: Exception | None = None

    def run(self) -> Summary:
        """Lead until all is done or has failed."""
        summary = None
        try:
            tally = self.job.begin()
            self.queue.extend(tally.todo)
            with ThreadPoolExecutor(1) as pool:
                self._serve(pool, tally)
            summary = tally.summary()
        except Exception as error:
            known = isinstance(error, DriverError | KernelInputError)
            self.failure = self.failure or (
                error if known else DriverError(f"{type(error).__name__}: {error}")
            )
            raise
        finally:
            self._stop(summary)
        return _result(summary, self.failure)

    def _serve(self, pool: ThreadPoolExecutor, tally: Tally) -> None:
        own: tuple[Chunk, Future[Outcome]] | None = None
        looked = time.monotonic()
        while True:
            moved = self._listen(tally)
            if own is not None and own[1].done():
                chunk, future = own
                own, moved = None, True
                if future.exception() is None:
                    self._book(future.result(), tally)
                else:
                    self.failure = self.failure or _failure(chunk, future.exception())
            if self.failure is not None or (self.queue and self.stop is not None and self.stop()):
                self.queue.clear()
            for rank in sorted(self.idle)[: len(self.queue)]:
                self.idle.discard(rank)
                self.flying[rank] = self.queue.popleft()
                self.comm.send(("compute", tuple(self.flying[rank])), dest=rank, tag=_TAG)
            if own is None and self.queue:
                chunk = self.queue.popleft()
                own = (chunk, pool.submit(self.job.execute, chunk))
            if own is None and not self.flying and not self.queue:
                return
            if not moved:
                time.sleep(_POLL_S)
                if self.flying and time.monotonic() - looked > _LIVENESS_S:
                    self._bury()
                    looked = time.monotonic()

    def _listen(self, tally: Tally) -> bool:
        moved = False
        while (received := _receive(self.comm, self.mpi)) is not None:
            rank, (kind, content) = received
            moved = True
            if kind == "ready":
                self.home[rank] = content
            elif kind == "done":
                self._book(content, tally)
            else:
                self.failure = self.failure or content
            self.flying.pop(rank, None)
            self.idle.add(rank)
        return moved

    def _book(self, outcome: Outcome, tally: Tally) -> None:
        self.job.keep(outcome)
        tally.add(outcome, self.progress)

    def _bury(self) -> None:
        """Take back the chunks of ranks on this machine that are no more."""
        for rank in list(self.flying):
            host, pid = self.home[rank]
            if host == gethostname() and not _alive(pid):
                self.lost.add(rank)
                self.queue.appendleft(self.flying.pop(rank))

    def _stop(self, summary: Summary | None) -> None:
        """Tell every rank that lives how it ended; wait for those that still compute or have not come yet."""
        left = set(range(1, self.comm.Get_size())) - self.lost
        while left:
            for rank in sorted(left & self.idle):
                self.comm.send(("stop", (summary, self.failure)), dest=rank, tag=_TAG)
                left.discard(rank)
            received = _receive(self.comm, self.mpi)
            if received is not None:
                self.idle.add(received[0])
                if received[1][0] == "ready":
                    self.home[received[0]] = received[1][1]
            elif left:
                left -= {r for r in left & self.home.keys() if self._gone(r)}
                time.sleep(_POLL_S)

    def _gone(self, rank: int) -> bool:
        host, pid = self.home[rank]
        return host == gethostname() and not _alive(pid)


def _result(summary: Summary | None, failure: Exception | None) -> Summary:
    if failure is not None:
        raise failure
    if summary is None:
        raise DriverError("rank 0 failed")
    return summary


def _failure(chunk: Any, error: BaseException | None) -> Exception:
    """What every rank raises: what a chunk failed with, as it is if a parameter is wrong."""
    if isinstance(error, KernelInputError):
        return error
    text = "".join(traceback.format_exception_only(error)).strip() if error is not None else ""
    return DriverError(f"structures {chunk[1]} to {chunk[2] - 1}: {text}")


def _alive(pid: int) -> bool:
    """Whether a process of this machine runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return not Path("/proc/self").exists()
    except OSError:
        return True
    return state not in "ZX"

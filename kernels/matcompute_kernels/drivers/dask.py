"""Chunks over the workers of a Dask cluster, wherever it runs: local processes, dask-mpi, a batch system.

A task is a chunk and the job (a few hundred bytes when its source and sink are files and folders): workers read
their structures and write their arrays themselves, and what travels back is a receipt.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from matcompute_kernels.cuda.backend import claim_local_rank
from matcompute_kernels.drivers.job import (
    Chunk,
    DriverError,
    Job,
    Outcome,
    ProgressFunction,
    StopFunction,
    Summary,
    usable_cores,
)
from matcompute_kernels.errors import KernelInputError

__all__ = ["run_dask"]

#: A job larger than this when pickled is sent to each worker once, not with each task.
_LARGE = 1 << 16
#: Seconds without a finished chunk after which the workers are looked at.
_LOOK_S = 5.0


def run_dask(
    job: Job,
    cluster: Any = None,
    *,
    workers: int | None = None,
    progress: ProgressFunction | None = None,
    stop: StopFunction | None = None,
    patience_s: float = 300.0,
) -> Summary:
    """Run a job on a Dask cluster.

    Parameters
    ----------
    job
        What to do. Its kernel, source and sink are pickled (by cloudpickle), so that functions of a script will do.
    cluster
        A ``distributed.Client``, a cluster (``LocalCluster``, ``dask_jobqueue.SLURMCluster`` …), a scheduler's
        address or the path of its scheduler file. After ``dask_mpi.initialize()``: ``Client()``. None: a
        LocalCluster, for the time of the job.
    workers
        Processes of that LocalCluster; None: as many as this process may use cores.
    progress
        Called after every chunk with the structures done and all.
    stop
        Asked after every chunk: whether to end early.
    patience_s
        Longest time without a worker that works, in s: those of a batch system may come late and end early.

    Raises
    ------
    DriverError
        If Dask is not installed, no scheduler answers, a chunk cannot be computed, or no worker is left that could;
        what is done stays done. A worker's death alone is no error: Dask gives its chunk to another one.
    KernelInputError
        If the kernel refuses a parameter.
    """
    try:
        import cloudpickle
        from distributed import wait
    except ImportError as error:
        raise DriverError(f"the Dask driver needs Dask: pip install dask distributed ({error})") from error
    tally = job.begin()
    if not tally.todo:
        return tally.summary()
    with _client(cluster, workers) as client:
        payload: Any = cloudpickle.dumps(job)
        if len(payload) > _LARGE:
            payload = client.scatter(payload, broadcast=True, hash=False)
        todo, run = iter(tally.todo), uuid4().hex[:8]
        flying: set[Any] = set()
        patience, look_s = _Patience(client, patience_s), min(_LOOK_S, patience_s)

        def fill() -> None:
            # A few chunks a thread wait at the workers; the scheduler never holds the whole job.
            room = 3 * max(sum(client.nthreads().values()), 1) - len(flying)
            for chunk in (chunk for _, chunk in zip(range(room), todo)):
                key = f"matcompute-{run}-{chunk.number}"
                flying.add(client.submit(_execute, payload, chunk, key=key, pure=False))

        fill()
        try:
            while flying:
                try:
                    ended = wait(flying, timeout=look_s, return_when="FIRST_COMPLETED").done
                except TimeoutError:
                    patience.look()
                    continue
                for future in ended:
                    outcome = _outcome(future, look_s)
                    if outcome is None:  # lost with its worker: it is computed again
                        patience.look()
                        continue
                    patience.reset()
                    flying.discard(future)
                    job.keep(outcome)
                    tally.add(outcome, progress)
                    future.release()
                    if stop is None or not stop():
                        fill()
        finally:
            client.cancel(list(flying))
    return tally.summary()


class _Patience:
    """Says when nothing more can be hoped for: no worker, or only workers that do nothing."""

    def __init__(self, client: Any, seconds: float) -> None:
        self.client, self.seconds = client, seconds
        self.reset()

    def reset(self) -> None:
        """A chunk is done, or a worker works."""
        self.since = time.monotonic()

    def look(self) -> None:
        """Look at the workers.

        Raises
        ------
        DriverError
            If none has worked for too long.
        """
        states = Counter(self.client.run_on_scheduler(_states))
        if states["running"]:
            self.reset()
        elif time.monotonic() - self.since > self.seconds:
            told = ", ".join(f"{count} {name}" for name, count in sorted(states.items()))
            cause = "; a paused one is short of memory and may stay so" if states["paused"] else ""
            raise DriverError(
                f"no Dask worker has worked for {self.seconds:.0f} s ({told or 'there is none'}){cause}"
            )


def _states(dask_scheduler: Any) -> list[str]:
    return [worker.status.name for worker in dask_scheduler.workers.values()]


def _outcome(future: Any, timeout: float) -> Outcome | None:
    """Return the result of a chunk; None if it does not come although the chunk is done."""
    try:
        outcome: Outcome = future.result(timeout=timeout)
    except KernelInputError:
        raise  # a parameter is wrong
    except Exception as error:
        if isinstance(error, TimeoutError) and future.status != "error":
            return None
        raise DriverError(f"chunk {future.key.rpartition('-')[2]}: {error}") from error
    return outcome


@contextmanager
def _client(cluster: Any, workers: int | None) -> Iterator[Any]:
    from distributed import Client, LocalCluster

    if isinstance(cluster, Client):
        yield cluster
        return
    with ExitStack() as stack:
        # Only what starts here may be told as a missing scheduler: errors of the job pass through the yield.
        try:
            if cluster is None:
                # What fails in a worker is raised here; its log would say it again.
                own = LocalCluster(
                    n_workers=workers or usable_cores(),
                    threads_per_worker=1,
                    dashboard_address=":0",
                    silence_logs=logging.CRITICAL,
                )
                cluster = stack.enter_context(own)
            file = isinstance(cluster, str | Path) and Path(cluster).is_file()
            made = Client(scheduler_file=str(cluster)) if file else Client(cluster)
        except (OSError, ValueError) as error:
            raise DriverError(f"no Dask scheduler at {cluster}: {error}") from error
        yield stack.enter_context(made)


@lru_cache(maxsize=4)
def _load(payload: bytes) -> Job:
    """Unpickle a job once a process: its source stays open, its sink goes on with its file."""
    job: Job = pickle.loads(payload)
    return job


def _execute(payload: bytes, chunk: Chunk) -> Outcome:
    from distributed import get_worker

    claim_local_rank(get_worker().scheduler.address)  # one GPU a worker, if the kernel uses one
    return _load(payload).execute(Chunk(*chunk))

"""Chunks over the threads of this process; kernels leave the interpreter's lock while they compute."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from matcompute_kernels.drivers.job import Job, Outcome, ProgressFunction, StopFunction, Summary, usable_cores

__all__ = ["run_threads"]


def run_threads(
    job: Job,
    *,
    threads: int | None = None,
    progress: ProgressFunction | None = None,
    stop: StopFunction | None = None,
) -> Summary:
    """Run a job on threads.

    Parameters
    ----------
    job
        What to do; the kernel's own ``threads`` should stay 1.
    threads
        How many; None: as many as this process may use cores.
    progress
        Called after every chunk with the structures done and all.
    stop
        Asked between chunks: whether to end early.
    """
    threads = threads or usable_cores()
    tally = job.begin()
    todo = iter(tally.todo)
    flying: set[Future[Outcome]] = set()
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                # Twice as many as threads: none waits for us, and finished arrays do not pile up.
                room = 0 if stop is not None and stop() else 2 * threads
                while len(flying) < room and (chunk := next(todo, None)) is not None:
                    flying.add(pool.submit(job.execute, chunk))
                if not flying:
                    break
                ready, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in ready:
                    outcome = future.result()
                    job.keep(outcome)
                    tally.add(outcome, progress)
        finally:
            pool.shutdown(cancel_futures=True)
    return tally.summary()

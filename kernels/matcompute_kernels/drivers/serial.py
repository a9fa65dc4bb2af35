"""One chunk after the other, in this process."""

from __future__ import annotations

from matcompute_kernels.drivers.job import Job, ProgressFunction, StopFunction, Summary

__all__ = ["run_serial"]


def run_serial(
    job: Job, *, progress: ProgressFunction | None = None, stop: StopFunction | None = None
) -> Summary:
    """Run a job in this thread.

    Parameters
    ----------
    job
        What to do.
    progress
        Called after every chunk with the structures done and all.
    stop
        Asked between chunks: whether to end early.
    """
    tally = job.begin()
    for chunk in tally.todo:
        if stop is not None and stop():
            break
        outcome = job.execute(chunk)
        job.keep(outcome)
        tally.add(outcome, progress)
    return tally.summary()

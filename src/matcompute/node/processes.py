"""A job over processes of one machine: the supervisor holds the queue, the crew computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from matcompute.node.crew import Crew
from matcompute.node.errors import NodeError
from matcompute.node.ledger import Failed, Left

if TYPE_CHECKING:
    from matcompute.node.deadline import StopRequest
    from matcompute.node.job import Job
    from matcompute.node.ledger import Ledger
    from matcompute.node.summary import Summary

__all__ = ["grace_s", "raise_failure", "run_processes"]


def run_processes(job: Job, ledger: Ledger, summary: Summary, request: StopRequest) -> str | None:
    """Compute what the ledger holds.

    Returns
    -------
    str or None
        Why the job stopped early; None when every structure was attempted.

    Raises
    ------
    NodeError
        If the job cannot go on; what is finished is in the checkpoint.
    """
    if ledger.finished:
        return None
    job.preload()
    n_workers = min(job.spec.processes, len(ledger))
    crew = Crew(range(n_workers), lambda: job, request.stop_at, job.spec.structure_timeout_s)
    interrupted = False
    failed = True
    try:
        while not ledger.finished:
            if request.reason is not None:
                if not crew.busy:
                    break
                if not interrupted:
                    interrupted = True
                    crew.interrupt(grace_s(job))
            else:
                _hand_out(crew, ledger)
            for event in crew.poll(0.2):
                if isinstance(event, Failed):
                    raise_failure(event)
                ledger.book([event])
                if isinstance(event, Left) and request.reason is None:
                    # The signal reached the worker only: the whole job was meant.
                    request.ask(event.reason)
            summary.refresh(ledger.tally)
        failed = False
    finally:
        crew.quit(kill=failed)
    return None if ledger.finished else request.reason


def _hand_out(crew: Crew, ledger: Ledger) -> None:
    for worker in crew.free():
        work = ledger.take()
        if work is None:
            crew.rest(worker)
        else:
            crew.compute(worker, *work)


def grace_s(job: Job) -> float:
    """Return how long workers may take to leave their structures, in s: one evaluation, in general."""
    return max(2.0, 0.5 * job.margin_s) if job.spec.walltime_s is not None else 20.0


def raise_failure(event: Failed) -> NoReturn:
    """Raise what a worker told as the error that ends the job."""
    message, _, hint = event.text.partition("\n  hint: ")
    error = NodeError(message, hint=hint or None)
    error.exit_code = event.exit_code
    raise error

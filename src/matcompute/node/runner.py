"""``matcompute-node run``: from the task file to the exit status."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.errors import MatcomputeError
from matcompute.node.deadline import StopRequest
from matcompute.node.errors import NodeError, WriteError
from matcompute.node.exit_codes import ExitCode
from matcompute.node.scratch import sweep_scratch
from matcompute.node.threads import keep_out_of_home, pin_threads

if TYPE_CHECKING:
    from matcompute.node.job import Job
    from matcompute.node.ledger import Tally

__all__ = ["WITHDRAWN", "Outcome", "dry_run", "run"]

#: A file of this name in the job's folder: the job was taken back, its structures may be computed elsewhere. The AiiDA
#: plugin writes it (``matcompute_workflows.submission``).
WITHDRAWN = "withdrawn"


class Outcome:
    """Exit code of a job and what to print about it."""

    def __init__(self, exit_code: int, text: str, *, quiet: bool = False) -> None:
        self.exit_code = int(exit_code)
        self.text = text
        #: Only rank 0 speaks.
        self.quiet = quiet


def run(
    path: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    mpi: bool | None = None,
    collect: bool = False,
) -> Outcome:
    """Run a task file to its end, to its walltime or to the first signal.

    Parameters
    ----------
    path
        The task file.
    overrides
        Fields of the task file replaced by the command line.
    mpi
        Whether this process is a rank of an MPI job; None: look at the launcher's environment.
    collect
        Compute nothing: write the result shard from what the checkpoint holds, the rest as not attempted.
    """
    from matcompute.node.mpi import launched_ranks

    started = time.monotonic()
    path = Path(path).absolute()
    overrides = {k: v for k, v in (overrides or {}).items() if v is not None}
    head = _peek(path) | overrides
    # Before NumPy is imported, or the BLAS has its threads already.
    pin_threads(_positive(head.get("threads"), 1))
    keep_out_of_home(path.parent)
    request = StopRequest()
    request.install()
    walltime = head.get("walltime_s")
    if isinstance(walltime, int | float) and walltime > 0:
        margin = head.get("margin_s", 60.0)
        margin = float(margin) if isinstance(margin, int | float) else 60.0
        request.stop_at = started + walltime - min(margin, 0.2 * walltime)
    if collect:
        return _Collect(path, overrides, request, started, ranks=1).execute()
    under_mpi = launched_ranks() > 0 if mpi is None else mpi
    if under_mpi:
        return _run_rank(path, overrides, head, request, started)
    return _Run(path, overrides, request, started, ranks=_positive(head.get("processes"), 1)).execute()


def dry_run(path: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Check a task file and everything it names; compute nothing and write nothing.

    Returns
    -------
    dict
        Number of structures, how many the checkpoint has already, estimated core-seconds of the rest.
    """
    from matcompute.node.checkpoint import read_checkpoint
    from matcompute.node.compute import check_input
    from matcompute.node.job import Job

    job = Job.load(path, overrides)
    reused = read_checkpoint(job.checkpoint, (job.key(i) for i in range(len(job.ids))))
    todo = [i for i in range(len(job.ids)) if job.key(i) not in reused]
    costs = job.costs()
    refused = [(job.ids[i], *problem) for i in todo if (problem := check_input(job, i)) is not None]
    return {
        "task": job.spec.task,
        "calculator": None if job.spec.calculator is None else job.spec.calculator.name,
        "model_sha256": job.model_sha256,
        "structures": len(job.ids),
        "sites": len(job.batch.numbers),
        "in_checkpoint": len(job.ids) - len(todo),
        "to_compute": len(todo),
        "refused": [{"id": i, "status": s.label, "message": m} for i, s, m in refused],
        "estimated_core_s": float(sum(costs[i] for i in todo)) * job.spec.threads,
    }


class _Run:
    """One supervised job; ``compute`` is what differs between processes and MPI."""

    def __init__(
        self, path: Path, overrides: Mapping[str, Any], request: StopRequest, started: float, ranks: int
    ) -> None:
        from matcompute.node.summary import Summary

        self.path, self.overrides, self.request = path, overrides, request
        self.summary = Summary(path.parent, started, ranks)
        self.ranks = ranks
        self.tally: Tally | None = None

    def compute(self, job: Job, ledger: Any) -> str | None:
        from matcompute.node.processes import run_processes

        return run_processes(job, ledger, self.summary, self.request)

    def execute(self) -> Outcome:
        try:
            with job_lock(self.path.parent, self.request) as locked:
                if not locked:
                    return self._end(
                        ExitCode.STOPPED_EARLY, "partial", "stopped while another copy of the job ran"
                    )
                if (self.path.parent / WITHDRAWN).exists():
                    return self._end(
                        ExitCode.STOPPED_EARLY,
                        "partial",
                        f"the job was taken back: '{WITHDRAWN}' is in its folder",
                    )
                return self._locked()
        except MatcomputeError as error:
            return self._error(int(error.exit_code), str(error))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG):
                return self._error(ExitCode.CANNOT_WRITE, f"{error.filename or 'a file'}: {error.strerror}")
            return self._error(ExitCode.INTERNAL, traceback.format_exc())
        except Exception:
            return self._error(ExitCode.INTERNAL, traceback.format_exc())

    def _locked(self) -> Outcome:
        from matcompute.node.checkpoint import checkpoint_writable, read_checkpoint
        from matcompute.node.job import Job
        from matcompute.node.ledger import Ledger
        from matcompute.node.results import write_results

        job = Job.load(self.path, self.overrides)
        checkpoint_writable(job.checkpoint)
        keys = {job.key(i) for i in range(len(job.ids))}
        records = read_checkpoint(job.checkpoint, keys)
        ledger = Ledger(job, records, self.ranks)
        self.tally = ledger.tally
        self.summary.describe(job)
        self.summary.refresh(ledger.tally, force=True)
        try:
            reason = self.compute(job, ledger)
        finally:
            # Of workers that were killed.
            sweep_scratch()
        if reason is not None:
            left = ledger.tally.n_total - sum(ledger.tally.counts.values())
            text = f"stopped by {reason} with {left} of {ledger.tally.n_total} structures left; run again to continue"
            return self._end(ExitCode.STOPPED_EARLY, "partial", text)
        if ledger.tally.n_computed:
            records = read_checkpoint(job.checkpoint, keys)
        lost = keys - records.keys()
        if lost:
            raise WriteError(
                f"{len(lost)} finished structures are not in the checkpoint {job.checkpoint}",
                hint="the file system lost them; run again to compute them",
            )
        write_results(job, records)
        return self._end(ExitCode.FINISHED, "finished", "")

    def _end(self, code: ExitCode, state: str, text: str) -> Outcome:
        self.summary.finish(state, int(code), self.tally, text)
        return Outcome(code, text)

    def _error(self, code: int, text: str) -> Outcome:
        # With the disk full not even the summary may be written; the exit code still tells.
        with contextlib.suppress(NodeError, OSError):
            self.summary.finish("error", int(code), self.tally, text)
        return Outcome(code, text)


class _Collect(_Run):
    """A job that was given up: what is finished becomes a result shard."""

    def _locked(self) -> Outcome:
        from matcompute.dataset import Status
        from matcompute.node.checkpoint import read_checkpoint
        from matcompute.node.job import Job
        from matcompute.node.ledger import Ledger
        from matcompute.node.records import Record
        from matcompute.node.results import write_results

        job = Job.load(self.path, self.overrides)
        keys = [job.key(i) for i in range(len(job.ids))]
        records = read_checkpoint(job.checkpoint, keys)
        self.tally = Ledger(job, records, self.ranks).tally
        self.summary.describe(job)
        left = [key for key in keys if key not in records]
        missing = {key: Record(*key, int(Status.NOT_ATTEMPTED), cpu_s=float("nan")) for key in left}
        write_results(job, records | missing)
        if not left:
            return self._end(ExitCode.FINISHED, "finished", "")
        return self._end(
            ExitCode.STOPPED_EARLY, "partial", f"collected; {len(left)} of {len(keys)} are not attempted"
        )


def _run_rank(
    path: Path, overrides: Mapping[str, Any], head: Mapping[str, Any], request: StopRequest, started: float
) -> Outcome:
    from matcompute.node.job import Job
    from matcompute.node.mpi import Ranks, RankZero, launcher_rank, serve_rank, start_crew

    timeout = head.get("structure_timeout_s")
    crew = start_crew(
        lambda: Job.load(path, overrides),
        launcher_rank(),
        request.stop_at,
        float(timeout) if isinstance(timeout, int | float) else None,
    )
    try:
        ranks = Ranks()
    except NodeError as error:
        crew.quit(kill=True)
        return Outcome(error.exit_code, str(error), quiet=launcher_rank() != 0)
    if ranks.rank != 0:
        return Outcome(serve_rank(ranks, crew, request), "", quiet=True)

    class _RunZero(_Run):
        def compute(self, job: Job, ledger: Any) -> str | None:
            return RankZero(ranks, crew, job, ledger, self.summary, self.request).run()

    outcome = _RunZero(path, overrides, request, started, ranks.size).execute()
    crew.quit(kill=True)
    ranks.tell_all("exit", outcome.exit_code)
    return outcome


@contextlib.contextmanager
def job_lock(folder: Path, request: StopRequest) -> Iterator[bool]:
    """Hold the job's folder; a second copy of the same job waits here, and then finds everything done.

    Yields False if the job was asked to stop first. The lock is the kernel's: it goes with its holder.
    """
    path = folder / "job.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError as error:
        raise NodeError(f"{folder}: no such folder") from error
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror}", hint="make the job's folder writable"
        ) from error
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if request.reason is not None:
                    yield False
                    return
                time.sleep(0.1)
        yield True
    finally:
        os.close(descriptor)


def _peek(path: Path) -> dict[str, Any]:
    """Read the task file without checking it: errors are told later, with the lock and the summary in place."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _positive(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default

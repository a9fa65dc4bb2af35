"""What jobs used, from the scheduler's own accounting: Slurm's sacct, Grid Engine's qacct."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from matcompute.centres.schedulers.queue import Runs
from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from matcompute.centres.model import Centre

__all__ = ["AccountingError", "JobUsage", "accounting_of", "parse_qacct", "parse_sacct", "usage"]


class AccountingError(MatcomputeError):
    """The scheduler's accounting cannot be read."""


@dataclass(frozen=True)
class JobUsage:
    """What the accounting says of a job that has ended.

    Attributes
    ----------
    state
        In Slurm's words, for every scheduler: COMPLETED, FAILED, CANCELLED, TIMEOUT, OUT_OF_MEMORY, NODE_FAIL,
        PREEMPTED.
    exit
        Exit status, -1 if unknown.
    elapsed_s, core_s, gpu_s
        Wall time; cores times wall time, GPUs times wall time, of all its runs if it was requeued.
    queue_s
        From submission (of the last run) to start; None if unknown.
    max_rss_gb
        Largest resident memory; None if unknown.
    reason, node
        Why it ended so, where it ran.
    """

    state: str
    exit: int
    elapsed_s: float
    core_s: float
    gpu_s: float = 0.0
    queue_s: float | None = None
    max_rss_gb: float | None = None
    reason: str = ""
    node: str = ""


def accounting_of(centre: Centre) -> str:
    """Return how a centre's accounting is asked: sacct, qacct or none."""
    wanted = centre.scheduler.accounting
    if wanted != "auto":
        return wanted
    return {"slurm": "sacct", "sge": "qacct"}.get(centre.scheduler.type, "none")


def usage(
    remote: Runs, accounting: str, job_ids: Sequence[str], *, timeout: float = 60.0
) -> dict[str, JobUsage]:
    """Return what jobs used, as far as the accounting knows them already: it may lag behind by minutes.

    Raises
    ------
    AccountingError
        If it does not answer (there is none, the database is down).
    """
    if accounting == "none" or not job_ids:
        return {}
    bad = [job for job in job_ids if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job)]
    if bad:
        raise AccountingError(f"'{bad[0]}' is not the number of a job")
    command, parse = _QUESTIONS[accounting]
    found = remote.run(command(job_ids), timeout)
    if found.code != 0:
        lines = [line for line in (found.stderr or found.stdout).splitlines() if line.strip()]
        raise AccountingError(
            f"{accounting} does not answer: {lines[-1] if lines else f'exit status {found.code}'}",
            hint="without accounting the node program's own measurement counts; "
            "set scheduler.accounting: none in the profile to ask no more",
        )
    try:
        return parse(found.stdout)
    except (ValueError, KeyError, IndexError) as error:
        raise AccountingError(f"the answer of {accounting} is not understood: {error}") from error


# ---------------------------------------------------------------------- Slurm
_FIELDS = (
    "JobIDRaw,JobID,State,ExitCode,ElapsedRaw,AllocCPUS,CPUTimeRAW,AllocTRES,MaxRSS,Reason,NodeList,"
    "Submit,Start,End"
)
_ENDED = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "OUT_OF_MEMORY",
    "NODE_FAIL",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
    "REVOKED",
    "REQUEUED",
}


def _ask_sacct(job_ids: Sequence[str]) -> str:
    # -D: every run of a job that was requeued. Times as seconds need no time zone.
    return f"SLURM_TIME_FORMAT=%s sacct -n -P -D -j {shlex.quote(','.join(job_ids))} -o {_FIELDS}"


def parse_sacct(text: str) -> dict[str, JobUsage]:
    """Read the lines of ``sacct -n -P -D -o <fields>``: jobs, and their steps, which alone know the memory."""
    runs: dict[str, list[dict[str, str]]] = {}
    memory: dict[str, float] = {}
    names = _FIELDS.split(",")
    for line in text.splitlines():
        if line.count("|") < len(names) - 1:
            continue
        row = dict(zip(names, line.split("|"), strict=False))
        job, _, step = row["JobID"].partition(".")
        if step:
            memory[job] = max(memory.get(job, 0.0), _bytes(row["MaxRSS"]))
        else:
            runs.setdefault(job, []).append(row)
    found = {}
    for job, rows in runs.items():
        last = rows[-1]
        state = last["State"].split()[0].rstrip("+") if last["State"] else ""
        if state not in _ENDED or state == "REQUEUED" or not last["End"].isdigit():
            continue
        found[job] = JobUsage(
            state=state,
            exit=_slurm_exit(last["ExitCode"]),
            elapsed_s=sum(float(row["ElapsedRaw"] or 0) for row in rows),
            core_s=sum(float(row["CPUTimeRAW"] or 0) for row in rows),
            gpu_s=sum(float(row["ElapsedRaw"] or 0) * _gpus(row["AllocTRES"]) for row in rows),
            queue_s=_between(last["Submit"], last["Start"]),
            max_rss_gb=memory[job] / 1e9 if memory.get(job) else None,
            reason=_slurm_reason(last),
            node="" if last["NodeList"] == "None assigned" else last["NodeList"],
        )
    return found


def _slurm_reason(row: dict[str, str]) -> str:
    parts = [row["State"] if " " in row["State"] else ""]
    if row["Reason"] not in ("", "None"):
        parts.append(row["Reason"])
    status, _, signal = row["ExitCode"].partition(":")
    if signal.isdigit() and int(signal):
        parts.append(f"signal {signal}")
    elif status not in ("", "0"):
        parts.append(f"exit status {status}")
    return ", ".join(part for part in parts if part)


def _slurm_exit(text: str) -> int:
    status, _, signal = text.partition(":")
    if not status.isdigit():
        return -1
    return int(status) or (128 + int(signal) if signal.isdigit() and int(signal) else 0)


def _gpus(tres: str) -> int:
    """GPUs of ``billing=4,cpu=4,gres/gpu=2,gres/gpu:a100=2,mem=8G,node=1``: the total if it is there."""
    counts: dict[str, int] = {}
    for part in tres.split(","):
        name, _, value = part.partition("=")
        if name == "gres/gpu" or name.startswith("gres/gpu:"):
            counts[name] = int(value or 0)
    return counts.get("gres/gpu", sum(counts.values()))


def _between(first: str, second: str) -> float | None:
    return max(0.0, float(second) - float(first)) if first.isdigit() and second.isdigit() else None


_UNITS = {"": 1.0, "K": 1024.0, "M": 1024.0**2, "G": 1024.0**3, "T": 1024.0**4}


def _bytes(text: str) -> float:
    match = re.fullmatch(r"([0-9.]+)([KMGT]?)B?", text.strip(), re.IGNORECASE)
    return float(match[1]) * _UNITS[match[2].upper()] if match else 0.0


# ---------------------------------------------------------------------- Grid Engine
def _ask_qacct(job_ids: Sequence[str]) -> str:
    # It takes one job at a time, and fails for one that it does not know yet: that is no error.
    jobs = " ".join(shlex.quote(job) for job in job_ids)
    each = f"for job in {jobs}; do LC_ALL=C qacct -j $job 2>/dev/null; done; true"
    return f"command -v qacct >/dev/null || exit 127; {each}"


#: ``failed`` of qacct → state. Others with an exit status of 0 were completed.
_SGE_FAILED = {
    37: "TIMEOUT",  # qmaster enforced h_rt, h_cpu or h_vmem limit
    19: "NODE_FAIL",  # before writing exit_status
    21: "NODE_FAIL",  # in recognizing job
    22: "NODE_FAIL",  # in pty startup
    25: "PREEMPTED",  # rescheduling
    24: "PREEMPTED",  # migrating
}


def parse_qacct(text: str) -> dict[str, JobUsage]:
    """Read the sections of ``qacct -j``: one for each run of a job."""
    runs: dict[str, list[dict[str, str]]] = {}
    for section in re.split(r"^=+$", text, flags=re.MULTILINE):
        row = {}
        for line in section.splitlines():
            name, _, value = line.strip().partition(" ")
            if name:
                row[name] = value.strip()
        if row.get("jobnumber", "").isdigit():
            runs.setdefault(row["jobnumber"], []).append(row)
    return {job: _sge_usage(rows) for job, rows in runs.items()}


def _sge_usage(rows: Sequence[dict[str, str]]) -> JobUsage:
    last = rows[-1]
    failed = int(last.get("failed", "0").split()[0] or 0)
    status = int(last.get("exit_status", "0").split()[0] or 0)
    state = _SGE_FAILED.get(failed)
    if state is None:
        state = "COMPLETED" if status == 0 and failed == 0 else "FAILED"
    memory = max((_bytes(row.get("maxvmem", "")) for row in rows), default=0.0)
    reason = last.get("failed", "") if failed else (f"exit status {status}" if status else "")
    elapsed = [_number(row.get("ru_wallclock", "0")) for row in rows]
    slots = [int(row.get("slots", "1") or 1) for row in rows]
    return JobUsage(
        state=state,
        exit=status,
        elapsed_s=sum(elapsed),
        core_s=sum(wall * n for wall, n in zip(elapsed, slots, strict=True)),
        queue_s=_sge_wait(last),
        max_rss_gb=memory / 1e9 if memory else None,
        reason=reason,
        node=last.get("hostname", ""),
    )


def _number(text: str) -> float:
    match = re.match(r"[0-9.]+", text.strip())
    return float(match[0]) if match else 0.0


def _sge_wait(row: dict[str, str]) -> float | None:
    first, second = _sge_time(row.get("qsub_time", "")), _sge_time(row.get("start_time", ""))
    return max(0.0, (second - first).total_seconds()) if first and second else None


def _sge_time(text: str) -> datetime | None:
    for form in ("%a %b %d %H:%M:%S %Y", "%m/%d/%Y %H:%M:%S.%f", "%m/%d/%Y %H:%M:%S"):
        try:
            return datetime.strptime(text.strip(), form)
        except ValueError:
            continue
    return None


_QUESTIONS: dict[str, tuple[Callable[[Sequence[str]], str], Callable[[str], dict[str, JobUsage]]]] = {
    "sacct": (_ask_sacct, parse_sacct),
    "qacct": (_ask_qacct, parse_qacct),
}


def chunks(job_ids: Iterable[str], size: int = 100) -> list[list[str]]:
    """Return job numbers in portions that fit a command line."""
    items = list(job_ids)
    return [items[start : start + size] for start in range(0, len(items), size)]

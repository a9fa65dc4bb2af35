"""How a scheduler says that a job ended: from the accounting that AiiDA asked for, else from the job's stderr."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["end_of_job"]

#: Slurm's states of a job that did not end by itself; others are the program's affair.
_STATES = {
    "TIMEOUT",
    "DEADLINE",
    "OUT_OF_MEMORY",
    "NODE_FAIL",
    "BOOT_FAIL",
    "PREEMPTED",
    "CANCELLED",
    "REQUEUED",
}
#: ``failed`` of Grid Engine's qacct → the same in Slurm's words.
_SGE_FAILED = {
    37: "TIMEOUT",
    19: "NODE_FAIL",
    21: "NODE_FAIL",
    22: "NODE_FAIL",
    24: "PREEMPTED",
    25: "PREEMPTED",
}
#: What slurmstepd and Grid Engine write into the job's stderr before they end it.
_STDERR = (
    ("TIMEOUT", r"DUE TO TIME LIMIT|exceeded hard wallclock time|job killed: walltime"),
    ("PREEMPTED", r"DUE TO PREEMPTION"),
    ("NODE_FAIL", r"DUE TO NODE FAIL"),
    ("OUT_OF_MEMORY", r"oom[-_ ]?kill|Exceeded (job|step) memory limit"),
    ("CANCELLED", r"\*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT"),
)


def end_of_job(detailed: Mapping[str, Any] | None, stderr: str = "") -> str:
    """Return the state in which a scheduler ended a job, empty if it ended by itself or nothing is known.

    Parameters
    ----------
    detailed
        AiiDA's ``detailed_job_info``: ``retval``, ``stdout``, ``stderr`` of sacct or qacct.
    stderr
        What the scheduler wrote to the job's stderr.
    """
    text = str((detailed or {}).get("stdout") or "")
    state = _from_sacct(text) or _from_qacct(text)
    if state:
        return state
    return next((name for name, pattern in _STDERR if re.search(pattern, stderr)), "")


def _from_sacct(text: str) -> str:
    lines = [line for line in text.splitlines() if "|" in line]
    if len(lines) < 2:
        return ""
    names, values = lines[0].split("|"), lines[1].split("|")
    if "State" not in names or len(values) <= names.index("State"):
        return ""
    words = re.findall(r"[A-Z_]+", values[names.index("State")])
    return words[0] if words and words[0] in _STATES else ""


def _from_qacct(text: str) -> str:
    failed = re.search(r"^failed\s+(\d+)", text, flags=re.MULTILINE)
    return _SGE_FAILED.get(int(failed[1]), "") if failed else ""

"""The parser of batches: which class of failure it was, and the result shard if there is one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from aiida.engine import ExitCode
from aiida.orm import Dict
from aiida.parsers import Parser

from matcompute_workflows.batch import EXIT_CODES, NODE_EXIT_CODES
from matcompute_workflows.scheduler import end_of_job
from matcompute_workflows.shard import ShardData
from matcompute_workflows.taskfile import FILES

__all__ = ["BatchParser", "classify"]

#: What programs and kernels print when memory is short. A plain SIGKILL alone is no proof.
_OUT_OF_MEMORY = re.compile(
    r"MemoryError|out of memory|oom[-_ ]?kill|Cannot allocate memory|bad_alloc|DefaultCPUAllocator",
    re.IGNORECASE,
)
#: What AiiDA's scheduler plugin has found → the same in the scheduler's words.
_SCHEDULER_FOUND = {110: "OUT_OF_MEMORY", 120: "TIMEOUT", 140: "NODE_FAIL"}
#: How the scheduler ended a job → exit code.
_ENDED = {
    "TIMEOUT": 320,
    "DEADLINE": 320,
    "NODE_FAIL": 302,
    "BOOT_FAIL": 302,
    "PREEMPTED": 303,
    "REQUEUED": 303,
    "CANCELLED": 304,
}


def classify(
    exit_status: int | None,
    summary: dict[str, Any],
    stderr: str,
    scheduler_exit_code: int | None = None,
    scheduler_state: str = "",
) -> tuple[int, str]:
    """Return the exit code of a batch and a detail for its message.

    Parameters
    ----------
    exit_status
        Of the node program as the shell saw it; None if the script did not come that far.
    summary
        ``summary.json`` of the node program, ``{}`` if there is none.
    stderr
        What the node program and the scheduler wrote to stderr.
    scheduler_exit_code
        What AiiDA's scheduler plugin has found (110 memory, 120 walltime, 140 node failure), None if nothing.
    scheduler_state
        How the scheduler ended the job; see :func:`matcompute_workflows.scheduler.end_of_job`.
    """
    progress = _progress(summary)
    ended = _SCHEDULER_FOUND.get(scheduler_exit_code or 0, scheduler_state)
    if ended == "OUT_OF_MEMORY":
        return 310, progress
    if exit_status == 0:
        return 0, ""
    memory = _OUT_OF_MEMORY.search(stderr)
    killed = exit_status is not None and (exit_status > 128 or exit_status < 0)
    if memory and (exit_status is None or killed or exit_status in (1, 70)):
        return 310, f"{_last_line(stderr)} {progress}".strip()
    if exit_status == 75:
        return 321, progress
    # A program that came to its end by itself tells more than the scheduler.
    if ended in _ENDED and (exit_status is None or killed):
        return _ENDED[ended], progress
    if exit_status is None:
        return 300, progress
    if killed:
        return 301, f"{exit_status - 128 if exit_status > 128 else -exit_status}; {progress}"
    return NODE_EXIT_CODES.get(exit_status, 334), _last_line(stderr) or f"exit status {exit_status}"


def _progress(summary: dict[str, Any]) -> str:
    if "n_total" not in summary:
        return "Nothing is known to be finished."
    counts = summary.get("counts", {})
    done = sum(int(value) for key, value in counts.items() if key != "not_attempted")
    return f"{done} of {summary['n_total']} structures were finished."


def _last_line(text: str) -> str:
    """Return the line that says what is wrong: the last ``error:``, else the last one at all."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or [""])[-1][:300]


class BatchParser(Parser):
    """Attach ``summary`` and ``results``; return one exit code per class of failure."""

    def parse(self, **kwargs: Any) -> ExitCode | None:
        """Parse a finished job."""
        summary = self._summary()
        if summary:
            self.out("summary", Dict(summary))
        status, detail = classify(
            self._exit_status(),
            summary,
            self._stderr(),
            scheduler_exit_code=self.node.exit_status,
            scheduler_state=end_of_job(self.node.get_detailed_job_info(), self._stderr()),
        )
        path = Path(kwargs["retrieved_temporary_folder"]) / FILES["results"]
        wrong = self._attach_results(path)
        if status == 0 and wrong is not None:
            status, detail = wrong
        return None if status == 0 else self._exit_code(status, detail)

    def _exit_code(self, status: int, detail: str) -> ExitCode:
        label = EXIT_CODES[status][0]
        code: ExitCode = self.exit_codes[label]
        return code.format(detail=detail)

    def _attach_results(self, path: Path) -> tuple[int, str] | None:
        """Attach the result shard, also of a job that ended early; return what is wrong with it."""
        from matcompute.errors import MatcomputeError

        if not path.is_file():
            return 340, _progress(self._summary())
        stage = str(self.node.inputs.task.get_dict().get("stage") or "")
        try:
            results = ShardData(path, stage=stage)
            mismatch = self._mismatch(path)
        except (MatcomputeError, OSError, KeyError, ValueError) as error:
            return 341, str(error).splitlines()[0]
        if mismatch is not None:
            return 342, mismatch
        self.out("results", results)
        return None

    def _mismatch(self, path: Path) -> str | None:
        import numpy as np

        from matcompute.dataset import Dataset

        shard: ShardData = self.node.inputs.shard
        with shard.dataset() as before, Dataset(path) as after:
            if len(before) != len(after):
                return f"it has {len(after)} entries, the input shard has {len(before)}"
            different = np.flatnonzero(np.asarray(before.ids) != np.asarray(after.ids))
            if different.size:
                row = int(different[0])
                return f"row {row} is '{after.ids[row]}', in the input shard '{before.ids[row]}'"
        return None

    def _exit_status(self) -> int | None:
        text = self._text(FILES["exit_status"]).strip()
        return int(text) if text.lstrip("-").isdigit() else None

    def _summary(self) -> dict[str, Any]:
        try:
            data = json.loads(self._text(FILES["summary"]) or "{}")
        except ValueError:
            return {}
        return data if isinstance(data, dict) else {}

    def _stderr(self) -> str:
        return "\n".join(
            self._text(name)
            for name in (FILES["stderr"], self.node.get_option("scheduler_stderr") or "")
            if name
        )

    def _text(self, name: str) -> str:
        try:
            content = self.retrieved.base.repository.get_object_content(name, mode="rb")
        except (FileNotFoundError, IsADirectoryError):
            return ""
        return content.decode("utf-8", errors="replace") if isinstance(content, bytes) else str(content)

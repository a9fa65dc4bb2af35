"""``task.json``: what a batch job tells the node program (schema ``matcompute.task/v1``)."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["FILES", "SCHEMA", "check_task", "task_file"]

SCHEMA = "matcompute.task/v1"
#: Names of the files of a job, relative to its working directory.
FILES = {
    "task": "task.json",
    "structures": "structures.h5",
    "results": "results.h5",
    "summary": "summary.json",
    "model": "model.bin",
    "checkpoint": "checkpoint",
    "stdout": "node.out",
    "stderr": "node.err",
    "exit_status": "exit_status",
}
_KEYS = {"task", "parameters", "calculator", "stage", "structure_timeout_s"}
_CALCULATOR_KEYS = {"name", "parameters", "model_sha256"}


def check_task(task: dict[str, Any]) -> str | None:
    """Return what is wrong with the ``task`` input of a batch, or None.

    It holds only what decides the numbers: ``task``, ``parameters`` (canonical units), ``calculator`` (``name``,
    ``parameters``, ``model_sha256``; left out where the task needs none), and the name of the ``stage``. How the work
    is spread is in the options.
    """
    unknown = sorted(set(task) - _KEYS)
    if unknown:
        return f"unknown keys {unknown}; known: {sorted(_KEYS)}"
    if not isinstance(task.get("task"), str):
        return "key 'task' must name a task"
    calculator = task.get("calculator")
    if calculator is None:
        return None
    if not isinstance(calculator, dict) or not isinstance(calculator.get("name"), str):
        return "key 'calculator' must be a mapping with a 'name'"
    unknown = sorted(set(calculator) - _CALCULATOR_KEYS)
    if unknown:
        return f"unknown keys {unknown} in 'calculator'; known: {sorted(_CALCULATOR_KEYS)}"
    sha256 = calculator.get("model_sha256")
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", str(sha256)):
        return f"'calculator.model_sha256' is {sha256!r}, expected 64 hexadecimal digits"
    return None


def task_file(
    task: dict[str, Any],
    *,
    model_sha256: str | None = None,
    walltime_s: float | None = None,
    processes: int = 1,
    threads: int = 1,
    slots: str | None = None,
) -> dict[str, Any]:
    """Return the contents of ``task.json``.

    Parameters
    ----------
    task
        The ``task`` input of the batch, see :func:`check_task`.
    model_sha256
        SHA-256 of the model file that travels with the job; None if none does.
    walltime_s
        Time that the job has, in s.
    processes, threads
        Worker processes and threads of each.
    slots
        Folder of the core slots that the jobs of one machine share.
    """
    calculator = task.get("calculator")
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "task": task["task"],
        "parameters": task.get("parameters", {}),
        "calculator": None
        if calculator is None
        else {
            "name": calculator["name"],
            "parameters": calculator.get("parameters", {}),
            "model": None if model_sha256 is None else FILES["model"],
            "model_sha256": model_sha256 or calculator.get("model_sha256"),
        },
        "structures": FILES["structures"],
        "results": FILES["results"],
        "checkpoint": FILES["checkpoint"],
        "stage": task.get("stage"),
        "walltime_s": walltime_s,
        "processes": processes,
        "threads": threads,
        "slots": slots,
    }
    if task.get("structure_timeout_s") is not None:
        content["structure_timeout_s"] = task["structure_timeout_s"]
    return content

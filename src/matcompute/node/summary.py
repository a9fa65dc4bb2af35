"""``summary.json``: how far a job is, or how it ended; replaced whole each time, so that a reader never sees half."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.node.errors import WriteError

if TYPE_CHECKING:
    from matcompute.node.job import Job
    from matcompute.node.ledger import Tally

__all__ = ["SCHEMA", "Summary", "write_json"]

SCHEMA = "matcompute.summary/v1"

#: Seconds between refreshes while the job runs.
_EVERY_S = 1.0


class Summary:
    """Writes the summary of one job.

    Parameters
    ----------
    folder
        The job's folder.
    started
        ``time.monotonic()`` at the start of the program.
    ranks
        Worker processes or MPI ranks.
    """

    def __init__(self, folder: Path, started: float, ranks: int) -> None:
        self.path = Path(folder) / "summary.json"
        self.started = started
        self.content: dict[str, Any] = {
            "schema": SCHEMA,
            "state": "running",
            "exit_code": None,
            "host": platform.node(),
            "pid": os.getpid(),
            "ranks": ranks,
            "started": time.time() - (time.monotonic() - started),
        }
        self._next = 0.0

    def describe(self, job: Job) -> None:
        """Add what is known once the job is loaded."""
        spec = job.spec
        self.content |= {
            "task": spec.task,
            "stage": spec.stage,
            "parameters": job.parameters.model_dump(mode="json"),
            "calculator": None if spec.calculator is None else spec.calculator.name,
            "threads": spec.threads,
            "slots": spec.slots,
            "code": {
                "name": job.adapter.package,
                "version": job.version,
                **job.adapter.method(job.calculator_parameters),
                "parameters": job.calculator_parameters,
            },
            "model_sha256": job.model_sha256,
            "versions": software_versions(),
        }

    def refresh(self, tally: Tally, *, force: bool = False) -> None:
        """Write the state of a running job, at most once a second."""
        now = time.monotonic()
        if force or now >= self._next:
            self._next = now + _EVERY_S
            self._write(tally)

    def finish(self, state: str, exit_code: int, tally: Tally | None, message: str = "", **more: Any) -> None:
        """Write the end: state ``finished``, ``partial`` or ``error``."""
        self.content |= {"state": state, "exit_code": exit_code, "message": message} | more
        self._write(tally)

    def _write(self, tally: Tally | None) -> None:
        wall = time.monotonic() - self.started
        content = self.content | {"wall_s": round(wall, 3), "updated": time.time()}
        if tally is not None:
            threads = content.get("threads", 1)
            # With shared slots a worker occupies its cores only while it computes; without, all the time.
            busy = tally.busy_s if content.get("slots") else wall * content["ranks"]
            content |= {
                "counts": tally.counts_of_all(),
                "n_total": tally.n_total,
                "n_computed": tally.n_computed,
                "n_reused": tally.n_reused,
                "n_retried": tally.n_retried,
                "cpu_s": round(tally.cpu_s, 3),
                "busy_s": round(tally.busy_s, 3),
                "core_s": round(busy * threads, 3),
                "failures": tally.failures,
            }
        write_json(self.path, content)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file by replacement.

    Raises
    ------
    WriteError
        If it cannot be written; the earlier file still stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WriteError(
            f"cannot write {path}: {error.strerror}",
            hint="free disk space or make the folder writable, then run again: finished structures are kept",
        ) from error


def software_versions() -> dict[str, str]:
    """Return the versions of matcompute, Python, NumPy and ASE."""
    from importlib import metadata

    import matcompute

    packages = {name: metadata.version(name) for name in ("numpy", "ase")}
    return {"matcompute": matcompute.__version__, "python": platform.python_version(), **packages}

"""The jobs of a process, as rows of the accounting: what the node program and AiiDA say of each."""

from __future__ import annotations

from typing import Any

__all__ = ["job_rows"]


def job_rows(process: Any) -> list[dict[str, Any]]:
    """Return the values of a usage row for every job that a process has called, the first one first.

    What a job that left no summary used is unknown here: 0, until the scheduler's accounting says it.
    """
    jobs = sorted(process.called, key=lambda node: node.pk)
    return [_row(job) for job in jobs if hasattr(job, "get_job_id")]


def _row(job: Any) -> dict[str, Any]:
    from matcompute_workflows.scheduler import end_of_job

    summary_node = getattr(job.outputs, "summary", None)
    summary = summary_node.get_dict() if summary_node is not None else {}
    options = job.get_options()
    cached = job.base.caching.is_created_from_cache
    wall = 0.0 if cached else float(summary.get("wall_s", 0.0))
    state = end_of_job(job.get_detailed_job_info())
    return {
        "job_uuid": job.uuid,
        "job_id": "" if cached else str(job.get_job_id() or ""),
        "state": "CACHED" if cached else state or ("COMPLETED" if job.is_finished_ok else "FAILED"),
        "exit_status": job.exit_status,
        "reason": str(job.exit_message or ""),
        # A copy from AiiDA's cache used nothing.
        "core_s": 0.0 if cached else float(summary.get("core_s", 0.0)),
        "gpu_s": wall * int(options.get("gpus", 0) or 0),
        "wall_s": wall,
        "node": str(summary.get("host", "")),
        "ended": job.mtime.timestamp(),
    }

"""The jobs of a process, as rows of the accounting: what the node program and AiiDA say of each."""

from __future__ import annotations

from typing import Any

__all__ = ["job_rows"]


def job_rows(process: Any) -> list[dict[str, Any]]:
    """Return the values of a usage row for every job that a process has called, the first one first.

    What a job that left no summary used is unknown here: 0, until the scheduler's accounting says it.
    """
    jobs = sorted(process.called_descendants, key=lambda node: node.pk)
    return [_row(job) for job in jobs if hasattr(job, "get_job_id")]


def _row(job: Any) -> dict[str, Any]:
    from matcompute.campaign.dispatcher.withdrawals import JOB_ID
    from matcompute_workflows.scheduler import end_of_job

    summary_node = getattr(job.outputs, "summary", None)
    summary = summary_node.get_dict() if summary_node is not None else {}
    options = job.get_options()
    cached = job.base.caching.is_created_from_cache
    if summary_node is None:
        summary = _of_code(job, options)
    wall = 0.0 if cached else float(summary.get("wall_s", 0.0))
    state = end_of_job(job.get_detailed_job_info())
    return {
        "job_uuid": job.uuid,
        "job_id": "" if cached else str(job.get_job_id() or job.base.extras.get(JOB_ID, "")),
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


def _of_code(job: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return what the output of a code says of its time; its cores are those that were asked for."""
    node = getattr(job.outputs, "output_parameters", None)
    wall = 0.0 if node is None else float(node.get_dict().get("wall_time_seconds") or 0.0)
    asked = options.get("resources", {})
    ranks = asked.get("tot_num_mpiprocs") or asked.get("num_machines", 1) * asked.get(
        "num_mpiprocs_per_machine", 1
    )
    return {"wall_s": wall, "core_s": wall * int(ranks) * int(asked.get("num_cores_per_mpiproc", 1) or 1)}

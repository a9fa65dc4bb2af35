"""Accounting: what each job used, who is charged, and what the costs of workloads have turned out to be."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.sqlite import insert

from matcompute.campaign.state.models import batch, campaign, stage, usage

if TYPE_CHECKING:
    from matcompute.campaign.state.batches import BatchRow

__all__ = [
    "GROUPINGS",
    "JobRow",
    "UsageRow",
    "ask_again_later",
    "jobs_of",
    "measured_factors",
    "note_job",
    "pending_jobs",
    "project_core_s",
    "queue_waits",
    "settle_job",
    "usage_by",
    "usage_over_time",
]

#: What ``centre usage --by`` knows → column.
GROUPINGS = ("centre", "campaign", "stage", "project", "partition", "workload")
#: Batches in a row that decide what a workload costs at a centre: recent ones, since machines and codes change.
MEASURED_BATCHES = 20


@dataclass(frozen=True)
class JobRow:
    """One row of the usage table."""

    id: int
    job_uuid: str
    batch_id: int
    campaign_id: int
    stage_id: int
    centre: str
    partition: str
    project: str
    workload: str
    job_id: str
    state: str
    exit_status: int | None
    reason: str
    core_s: float
    gpu_s: float
    wall_s: float
    queue_s: float | None
    max_rss_gb: float | None
    node: str
    source: str
    asked: int
    ended: float


@dataclass(frozen=True)
class UsageRow:
    """Usage of a group.

    Attributes
    ----------
    key
        Values of the grouping's columns.
    jobs, core_h, gpu_h, wall_h
        Jobs, and hours.
    accounted
        Share of the core-hours that the scheduler's accounting has confirmed, 0 to 1.
    wait_s
        Mean wait in the queue in s; None if unknown.
    """

    key: dict[str, str]
    jobs: int
    core_h: float
    gpu_h: float
    wall_h: float
    accounted: float
    wait_s: float | None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary."""
        data = asdict(self)
        return {**data.pop("key"), **data}


def note_job(connection: Connection, row: BatchRow, **values: Any) -> None:
    """Write down a job of a batch as its node program says; a job that is known already is left as it is."""
    connection.execute(
        insert(usage)
        .values(
            batch_id=row.id,
            campaign_id=row.campaign_id,
            stage_id=row.stage_id,
            centre=row.centre,
            partition=row.partition,
            project=row.project,
            workload=row.workload,
            **{"source": "summary", "ended": time.time(), **values},
        )
        .on_conflict_do_nothing(["job_uuid"])
    )


def settle_job(connection: Connection, job: JobRow, source: str, **values: Any) -> None:
    """Replace what a node program said by what the scheduler's accounting says; campaign and batch follow."""
    now = connection.execute(select(usage.c.core_s).where(usage.c.id == job.id)).scalar_one_or_none()
    if now is None:
        return
    connection.execute(update(usage).where(usage.c.id == job.id).values(source=source, **values))
    more = float(values.get("core_s", now)) - float(now)
    if more:
        connection.execute(
            update(batch).where(batch.c.id == job.batch_id).values(core_s=batch.c.core_s + more)
        )
        connection.execute(
            update(campaign).where(campaign.c.id == job.campaign_id).values(core_s=campaign.c.core_s + more)
        )


def ask_again_later(connection: Connection, ids: Sequence[int]) -> None:
    """Count that the scheduler was asked for jobs and did not know them."""
    connection.execute(update(usage).where(usage.c.id.in_(ids)).values(asked=usage.c.asked + 1))


def pending_jobs(connection: Connection, centre: str, *, most_asked: int, limit: int = 200) -> list[JobRow]:
    """Return jobs of a centre that its scheduler's accounting has not confirmed, the least asked first."""
    query = (
        select(usage)
        .where(
            usage.c.centre == centre,
            usage.c.source == "summary",
            usage.c.job_id != "",
            usage.c.asked < most_asked,
        )
        .order_by(usage.c.asked, usage.c.id)
        .limit(limit)
    )
    return [JobRow(**row) for row in connection.execute(query).mappings()]


def jobs_of(connection: Connection, campaign_id: int) -> list[JobRow]:
    """Return the jobs of a campaign, the oldest first."""
    query = select(usage).where(usage.c.campaign_id == campaign_id).order_by(usage.c.id)
    return [JobRow(**row) for row in connection.execute(query).mappings()]


def project_core_s(connection: Connection) -> dict[tuple[str, str], float]:
    """Return the core-seconds used by (centre, project)."""
    query = select(usage.c.centre, usage.c.project, func.sum(usage.c.core_s)).group_by(
        usage.c.centre, usage.c.project
    )
    return {(centre, project): float(total or 0.0) for centre, project, total in connection.execute(query)}


def measured_factors(connection: Connection, batches: int = MEASURED_BATCHES) -> dict[str, dict[str, float]]:
    """Return centre → workload → core-seconds used per core-second estimated, over the newest batches.

    The key ``""`` stands for all centres together: the best guess for a centre where nothing was measured.
    """
    newest = func.row_number().over(
        partition_by=(batch.c.centre, batch.c.workload), order_by=batch.c.finished.desc()
    )
    rows = (
        select(
            batch.c.centre,
            batch.c.workload,
            batch.c.core_s,
            # A batch that gave up has not done all of its work.
            (batch.c.estimate_s * batch.c.n_done / batch.c.n_total).label("estimate_s"),
            newest.label("place"),
        )
        .where(
            batch.c.state == "finished",
            batch.c.workload != "",
            batch.c.exit_status == 0,
            batch.c.core_s > 0,
            batch.c.estimate_s > 0,
        )
        .subquery()
    )
    query = (
        select(rows.c.centre, rows.c.workload, func.sum(rows.c.core_s), func.sum(rows.c.estimate_s))
        .where(rows.c.place <= batches)
        .group_by(rows.c.centre, rows.c.workload)
    )
    found: dict[str, dict[str, float]] = {}
    total: dict[str, list[float]] = {}
    for centre, workload, used, estimated in connection.execute(query):
        if estimated:
            found.setdefault(centre, {})[workload] = float(used) / float(estimated)
            both = total.setdefault(workload, [0.0, 0.0])
            both[0] += float(used)
            both[1] += float(estimated)
    if total:
        found[""] = {workload: used / estimated for workload, (used, estimated) in total.items()}
    return found


def queue_waits(connection: Connection, jobs: int = 10) -> dict[tuple[str, str], float]:
    """Return the mean wait in s of the newest jobs by (centre, partition), as far as the scheduler told."""
    newest = func.row_number().over(
        partition_by=(usage.c.centre, usage.c.partition), order_by=usage.c.ended.desc()
    )
    rows = (
        select(usage.c.centre, usage.c.partition, usage.c.queue_s, newest.label("place"))
        .where(usage.c.queue_s.is_not(None))
        .subquery()
    )
    query = (
        select(rows.c.centre, rows.c.partition, func.avg(rows.c.queue_s))
        .where(rows.c.place <= jobs)
        .group_by(rows.c.centre, rows.c.partition)
    )
    return {(centre, partition): float(wait) for centre, partition, wait in connection.execute(query)}


_COLUMNS: Mapping[str, tuple[Any, ...]] = {
    "centre": (usage.c.centre,),
    "campaign": (campaign.c.name.label("campaign"),),
    "stage": (campaign.c.name.label("campaign"), stage.c.name.label("stage")),
    "project": (usage.c.centre, usage.c.project),
    "partition": (usage.c.centre, usage.c.partition),
    "workload": (usage.c.workload,),
}


def _joined(columns: Sequence[Any]) -> Any:
    return (
        select(*columns)
        .select_from(usage)
        .join(campaign, campaign.c.id == usage.c.campaign_id)
        .join(stage, stage.c.id == usage.c.stage_id)
    )


def usage_by(
    connection: Connection,
    grouping: str,
    *,
    since: float | None = None,
    centre: str | None = None,
    campaign_name: str | None = None,
) -> list[UsageRow]:
    """Return usage by one of :data:`GROUPINGS`, the largest first."""
    keys = _COLUMNS[grouping]
    confirmed = func.sum(usage.c.core_s).filter(usage.c.source != "summary")
    query = _joined(
        [
            *keys,
            func.count().label("jobs"),
            func.sum(usage.c.core_s).label("core_s"),
            func.sum(usage.c.gpu_s).label("gpu_s"),
            func.sum(usage.c.wall_s).label("wall_s"),
            confirmed.label("confirmed"),
            func.avg(usage.c.queue_s).label("queue_s"),
        ]
    ).group_by(*keys)
    if since is not None:
        query = query.where(usage.c.ended >= since)
    if centre is not None:
        query = query.where(usage.c.centre == centre)
    if campaign_name is not None:
        query = query.where(campaign.c.name == campaign_name)
    rows = []
    for row in connection.execute(query.order_by(func.sum(usage.c.core_s).desc())).mappings():
        core_s = float(row["core_s"] or 0.0)
        rows.append(
            UsageRow(
                key={key.name: str(row[key.name]) for key in keys},
                jobs=int(row["jobs"]),
                core_h=core_s / 3600,
                gpu_h=float(row["gpu_s"] or 0.0) / 3600,
                wall_h=float(row["wall_s"] or 0.0) / 3600,
                accounted=float(row["confirmed"] or 0.0) / core_s if core_s else 0.0,
                wait_s=None if row["queue_s"] is None else float(row["queue_s"]),
            )
        )
    return rows


def usage_over_time(
    connection: Connection, grouping: str, *, since: float | None = None
) -> list[tuple[str, float, float]]:
    """Return (group, end in s since the epoch, core-hours) of every job, the oldest first."""
    keys = _COLUMNS[grouping]
    query = _joined([*keys, usage.c.ended, usage.c.core_s]).order_by(usage.c.ended)
    if since is not None:
        query = query.where(usage.c.ended >= since)
    return [
        (" / ".join(str(value) for value in row[: len(keys)]), float(row[-2]), float(row[-1]) / 3600)
        for row in connection.execute(query)
    ]

"""Rows about centres: what they answered last, what is blocked there, what was submitted to them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy import case as sql_case
from sqlalchemy.dialects.sqlite import insert

from matcompute.campaign.state.models import BATCH_OPEN, batch, block, centre, submission

__all__ = [
    "BlockRow",
    "CentreRow",
    "InFlight",
    "add_block",
    "begun_at",
    "blocks",
    "centre_rows",
    "clear_blocks",
    "end_submission",
    "in_flight",
    "is_rerouted",
    "note_submission",
    "recent_submissions",
    "set_centre",
    "submissions_of",
]

#: Shortest and longest time for which a centre is left alone after a failure there, in s.
BLOCK_S, LONGEST_BLOCK_S = 300.0, 6 * 3600.0


@dataclass(frozen=True)
class CentreRow:
    """One row of the centre table."""

    id: str
    state: str = "up"
    reason: str = ""
    since: float = 0.0
    checked: float | None = None
    answered: float | None = None
    failures: int = 0
    queue: dict[str, Any] | None = None
    partitions: dict[str, Any] | None = None


@dataclass(frozen=True)
class BlockRow:
    """One row of the block table."""

    id: int
    centre: str
    workload: str
    reason: str
    count: int
    created: float
    until: float


@dataclass(frozen=True)
class InFlight:
    """Our batches at a centre that have not ended: how many, by partition, and their expected core-seconds.

    A structure with a process of its own counts as many times as it may have jobs; ``singles`` are these jobs.
    """

    count: int = 0
    core_s: float = 0.0
    by_partition: Mapping[str, int] | None = None
    by_project: Mapping[str, float] | None = None
    singles: int = 0


def centre_rows(connection: Connection) -> dict[str, CentreRow]:
    """Return what is known of the centres that were asked, by id."""
    return {row["id"]: CentreRow(**row) for row in connection.execute(select(centre)).mappings()}


def set_centre(connection: Connection, centre_id: str, **values: Any) -> CentreRow:
    """Change columns of a centre's row, made if it is not there; ``since`` follows a change of the state."""
    now = time.time()
    before = connection.execute(select(centre).where(centre.c.id == centre_id)).mappings().one_or_none()
    if before is None:
        connection.execute(insert(centre).values(id=centre_id, **{"since": now, **values}))
    else:
        if values.get("state", before["state"]) != before["state"]:
            values = {"since": now, **values}
        connection.execute(update(centre).where(centre.c.id == centre_id).values(**values))
    return CentreRow(**connection.execute(select(centre).where(centre.c.id == centre_id)).mappings().one())


# ---------------------------------------------------------------------- blocks
def add_block(connection: Connection, centre_id: str, workload: str, reason: str) -> BlockRow:
    """Leave a centre alone for a workload (empty: for all); each time in a row for twice as long."""
    now = time.time()
    mine = (block.c.centre == centre_id) & (block.c.workload == workload)
    count = int(connection.execute(select(block.c.count).where(mine)).scalar() or 0) + 1
    values = {
        "reason": reason,
        "count": count,
        "created": now,
        "until": now + min(LONGEST_BLOCK_S, BLOCK_S * 2.0 ** min(count - 1, 20)),
    }
    statement = insert(block).values(centre=centre_id, workload=workload, **values)
    connection.execute(statement.on_conflict_do_update(["centre", "workload"], set_=values))
    return BlockRow(**connection.execute(select(block).where(mine)).mappings().one())


def blocks(connection: Connection, *, now: float | None = None) -> list[BlockRow]:
    """Return the blocks that hold now."""
    query = select(block).where(block.c.until > (time.time() if now is None else now)).order_by(block.c.id)
    return [BlockRow(**row) for row in connection.execute(query).mappings()]


def clear_blocks(
    connection: Connection,
    centre_id: str | None = None,
    workload: str | None = None,
    *,
    before: float | None = None,
) -> int:
    """Forget blocks (of a centre, of a workload there): a batch went well, or somebody has mended it.

    With ``before`` only those that were made earlier: a batch that went well says nothing about a later failure.
    """
    statement = delete(block)
    if centre_id is not None:
        statement = statement.where(block.c.centre == centre_id)
    if workload is not None:
        statement = statement.where(block.c.workload.in_(("", workload)))
    if before is not None:
        statement = statement.where(block.c.created < before)
    return int(connection.execute(statement).rowcount)


# ---------------------------------------------------------------------- submissions
def note_submission(
    connection: Connection,
    *,
    batch_id: int,
    campaign_id: int,
    attempt: int,
    centre_id: str,
    partition: str,
    project: str,
    why: str,
) -> None:
    """Write down that a batch is given to a centre; the same attempt again replaces its row."""
    values = {
        "campaign_id": campaign_id,
        "centre": centre_id,
        "partition": partition,
        "project": project,
        "why": why,
        "submitted": time.time(),
        "ended": None,
        "outcome": "",
        "reason": "",
    }
    statement = insert(submission).values(batch_id=batch_id, attempt=attempt, **values)
    connection.execute(statement.on_conflict_do_update(["batch_id", "attempt"], set_=values))


def end_submission(
    connection: Connection, batch_id: int, outcome: str, reason: str = "", process_uuid: str | None = None
) -> None:
    """Write down how a batch's newest attempt ended."""
    newest = select(func.max(submission.c.attempt)).where(submission.c.batch_id == batch_id).scalar_subquery()
    connection.execute(
        update(submission)
        .where(submission.c.batch_id == batch_id, submission.c.attempt == newest)
        .values(
            outcome=outcome,
            reason=reason,
            ended=time.time(),
            process_uuid=func.coalesce(process_uuid, submission.c.process_uuid),
        )
    )


def is_rerouted(connection: Connection, batch_id: int) -> bool:
    """Tell whether a batch is being taken back from its centre (outcome ``rerouting`` of its newest attempt)."""
    query = (
        select(submission.c.outcome)
        .where(submission.c.batch_id == batch_id)
        .order_by(submission.c.attempt.desc())
        .limit(1)
    )
    return connection.execute(query).scalar() == "rerouting"


def begun_at(connection: Connection, batch_ids: Iterable[int]) -> dict[int, str]:
    """Return the centres of batches that had begun when they were taken back: they go on there and nowhere else."""
    newest = (
        select(submission.c.batch_id, func.max(submission.c.attempt).label("attempt"))
        .where(submission.c.batch_id.in_(list(batch_ids)))
        .group_by(submission.c.batch_id)
        .subquery()
    )
    query = select(submission.c.batch_id, submission.c.centre).join(
        newest,
        (newest.c.batch_id == submission.c.batch_id) & (newest.c.attempt == submission.c.attempt),
    )
    return {int(row[0]): row[1] for row in connection.execute(query.where(submission.c.outcome == "begun"))}


def recent_submissions(connection: Connection, since: float) -> dict[str, list[float]]:
    """Return the times of submissions after ``since`` by centre."""
    query = select(submission.c.centre, submission.c.submitted).where(submission.c.submitted > since)
    found: dict[str, list[float]] = {}
    for name, when in connection.execute(query):
        found.setdefault(name, []).append(float(when))
    return found


def submissions_of(connection: Connection, batch_ids: Iterable[int]) -> list[dict[str, Any]]:
    """Return the attempts of batches, the oldest first."""
    query = (
        select(submission)
        .where(submission.c.batch_id.in_(list(batch_ids)))
        .order_by(submission.c.batch_id, submission.c.attempt)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


def in_flight(connection: Connection) -> dict[str, InFlight]:
    """Return our batches in flight by centre."""
    query = (
        select(
            batch.c.centre,
            batch.c.partition,
            batch.c.project,
            func.sum(batch.c.jobs),
            func.sum(func.coalesce(batch.c.expected_s, batch.c.estimate_s)),
            func.sum(sql_case((batch.c.single, batch.c.jobs), else_=0)),
        )
        .where(batch.c.state.in_(BATCH_OPEN))
        .group_by(batch.c.centre, batch.c.partition, batch.c.project)
    )
    rows: dict[str, list[tuple[str, str, int, float, int]]] = {}
    for name, partition, project, count, core_s, singles in connection.execute(query):
        rows.setdefault(name, []).append((partition, project, int(count), float(core_s or 0.0), int(singles)))
    found = {}
    for name, items in rows.items():
        by_partition: dict[str, int] = {}
        by_project: dict[str, float] = {}
        for partition, project, count, core_s, _ in items:
            by_partition[partition] = by_partition.get(partition, 0) + count
            by_project[project] = by_project.get(project, 0.0) + core_s
        found[name] = InFlight(
            sum(item[2] for item in items),
            sum(item[3] for item in items),
            by_partition,
            by_project,
            sum(item[4] for item in items),
        )
    return found

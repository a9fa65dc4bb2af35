"""Rows of the batch table: which materials are computed together, where, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select, update

from matcompute.campaign.state.campaigns import CampaignRow, StageRow
from matcompute.campaign.state.centres import end_submission
from matcompute.campaign.state.flow import last_compute_before, propagate
from matcompute.campaign.state.models import BATCH_OPEN, batch, campaign, task
from matcompute.dataset.status import Status

__all__ = [
    "BatchRow",
    "batches_of",
    "by_id",
    "charge",
    "create_batches",
    "members",
    "open_batches",
    "record_batch",
    "release_batch",
    "reroute_batch",
    "set_batch",
    "spent",
]


@dataclass(frozen=True)
class BatchRow:
    """One row of the batch table."""

    id: int
    campaign_id: int
    stage_id: int
    number: int
    key: str
    centre: str
    state: str
    process_uuid: str | None
    input_uuid: str | None
    result_uuid: str | None
    exit_status: int | None
    message: str
    n_total: int
    n_done: int
    n_ok: int
    n_failed: int
    estimate_s: float
    core_s: float
    created: float
    submitted: float | None
    finished: float | None
    partition: str = ""
    project: str = ""
    workload: str = ""
    attempts: int = 0
    expected_s: float | None = None
    single: bool = False
    jobs: int = 1
    remedy: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None

    @property
    def label(self) -> str:
        """Label of its process in AiiDA: the key, and the attempt from the second one on."""
        return self.key if self.attempts == 0 else f"{self.key}#{self.attempts + 1}"


@dataclass(frozen=True)
class Members:
    """The materials of a batch in the order of its shard.

    Attributes
    ----------
    rows
        ``i8[n]``, rows of the campaign's structures.
    parents
        ``i8[n]``, id of the batch whose result holds the structure; -1 for the campaign's own structures.
    parent_rows
        ``i8[n]``, row in that shard.
    """

    rows: np.ndarray
    parents: np.ndarray
    parent_rows: np.ndarray


def create_batches(
    connection: Connection,
    owner: CampaignRow,
    here: StageRow,
    centre: str,
    groups: Sequence[np.ndarray],
    estimates: Sequence[float],
    *,
    workload: str = "",
    single: bool = False,
    jobs: int = 1,
) -> list[BatchRow]:
    """Put ready materials into planned batches.

    Parameters
    ----------
    connection
        In a write transaction.
    owner, here, centre
        Campaign, compute stage, where to (empty: decided when it is submitted).
    groups
        Rows of the materials, one array a batch, in the order of its shard.
    estimates
        Estimated core-seconds of each.
    workload
        Key under which its cost is measured.
    single, jobs
        Whether each holds a structure with a process of its own, and how many jobs that may have in flight.
    """
    number = int(
        connection.execute(
            select(func.coalesce(func.max(batch.c.number), 0)).where(batch.c.stage_id == here.id)
        ).scalar_one()
    )
    made = []
    for rows, estimate in zip(groups, estimates, strict=True):
        number += 1
        result = connection.execute(
            batch.insert().values(
                campaign_id=owner.id,
                stage_id=here.id,
                number=number,
                key=f"{owner.uuid}/{here.name}/{number}",
                centre=centre,
                state="planned",
                n_total=len(rows),
                estimate_s=float(estimate),
                workload=workload,
                single=single,
                jobs=jobs,
                created=time.time(),
            )
        )
        batch_id = int(result.inserted_primary_key[0])  # type: ignore[index]
        made.append(batch_id)
        connection.exec_driver_sql(
            # The plus keeps SQLite from using the index on state, which would walk all ready materials for each.
            "UPDATE task SET state = 'batched', batch_id = ?, batch_row = ? "
            "WHERE campaign_id = ? AND stage_id = ? AND row = ? AND +state = 'ready'",
            [(batch_id, k, owner.id, here.id, row) for k, row in enumerate(np.asarray(rows).tolist())],
        )
    return [by_id(connection, batch_id) for batch_id in made]


def batches_of(
    connection: Connection,
    campaign_id: int,
    states: Sequence[str] | None = None,
    stage_id: int | None = None,
    limit: int | None = None,
) -> list[BatchRow]:
    """Return batches of a campaign in the order in which they were made."""
    query = select(batch).where(batch.c.campaign_id == campaign_id).order_by(batch.c.id)
    if states is not None:
        query = query.where(batch.c.state.in_(states))
    if stage_id is not None:
        query = query.where(batch.c.stage_id == stage_id)
    if limit is not None:
        query = query.limit(limit)
    return [BatchRow(**row) for row in connection.execute(query).mappings()]


def open_batches(connection: Connection, centre: str | None = None) -> list[BatchRow]:
    """Return all batches of the workspace that may have a process in AiiDA."""
    query = select(batch).where(batch.c.state.in_(BATCH_OPEN)).order_by(batch.c.id)
    if centre is not None:
        query = query.where(batch.c.centre == centre)
    return [BatchRow(**row) for row in connection.execute(query).mappings()]


def members(connection: Connection, stages: Sequence[StageRow], position: int, batch_id: int) -> Members:
    """Return the materials of a batch and the shards that hold their structures."""
    before = last_compute_before(stages, position)
    mine = (task.c.campaign_id == stages[0].campaign_id) & (task.c.batch_id == batch_id)
    if before is None:
        query = select(task.c.row).where(mine).order_by(task.c.batch_row)
        rows = np.array(connection.execute(query).scalars().all(), dtype=np.int64)
        return Members(rows, np.full(len(rows), -1, dtype=np.int64), rows)
    prior = task.alias("prior")
    query = (
        select(task.c.row, prior.c.batch_id, prior.c.batch_row)
        .join(
            prior,
            (prior.c.campaign_id == task.c.campaign_id)
            & (prior.c.stage_id == before.id)
            & (prior.c.row == task.c.row)
            & (prior.c.state == "done"),
        )
        .where(mine)
        .order_by(task.c.batch_row)
    )
    found = connection.execute(query).fetchall()
    table = np.array([tuple(row) for row in found], dtype=np.int64).reshape(-1, 3)
    return Members(table[:, 0], table[:, 1], table[:, 2])


def set_batch(connection: Connection, batch_id: int, **values: Any) -> None:
    """Change columns of a batch."""
    connection.execute(update(batch).where(batch.c.id == batch_id).values(**values))


def record_batch(
    connection: Connection,
    stages: Sequence[StageRow],
    position: int,
    row: BatchRow,
    *,
    result_uuid: str,
    status: np.ndarray,
    messages: Sequence[str | None],
    core_s: float,
    exit_status: int,
    message: str = "",
    again: np.ndarray | None = None,
) -> None:
    """Store what a batch gave, and make what went well ready for the next compute stage, in one transaction.

    Does nothing if the batch is already recorded.

    Parameters
    ----------
    connection
        In a write transaction.
    stages, position
        The batch's stage is ``stages[position]``.
    row
        The batch.
    result_uuid
        AiiDA UUID of its result shard.
    status
        ``u1[n]`` in the order of the shard (:class:`~matcompute.dataset.Status`).
    messages
        ``n`` texts or None.
    core_s
        Core-seconds used.
    exit_status, message
        Of the AiiDA process.
    again
        ``bool[n]``: materials that are ready again, as if this batch had not held them.
    """
    status = np.asarray(status).astype(int)
    n_ok = int((status == int(Status.OK)).sum())
    changed = connection.execute(
        update(batch)
        .where(batch.c.id == row.id, batch.c.state.not_in(("finished", "cancelled")))
        .values(
            state="finished",
            result_uuid=result_uuid,
            exit_status=exit_status,
            message=message,
            n_done=len(status),
            n_ok=n_ok,
            n_failed=len(status) - n_ok,
            core_s=core_s,
            finished=time.time(),
        )
    ).rowcount
    if not changed:
        return
    # Nearly all are fine: one statement for them, and single rows only for the others.
    mine = (task.c.campaign_id == row.campaign_id) & (task.c.batch_id == row.id) & (task.c.state == "batched")
    connection.execute(update(task).where(mine).values(status=int(Status.OK), state="done"))
    odd = np.flatnonzero(status != int(Status.OK)).tolist()
    if odd:
        connection.exec_driver_sql(
            "UPDATE task SET status = ?, message = ? WHERE batch_id = ? AND batch_row = ? AND +state = 'done'",
            [(int(status[k]), messages[k] or None, row.id, k) for k in odd],
        )
    if again is not None and again.any():
        connection.exec_driver_sql(
            "UPDATE task SET state = 'ready', status = 0, message = NULL, batch_id = NULL, batch_row = NULL "
            "WHERE batch_id = ? AND batch_row = ? AND +state = 'done'",
            [(row.id, k) for k in np.flatnonzero(again).tolist()],
        )
    charge(connection, row.campaign_id, core_s)
    propagate(connection, stages, position, batch_id=row.id)


def release_batch(
    connection: Connection,
    row: BatchRow,
    *,
    state: str,
    message: str,
    exit_status: int | None = None,
    core_s: float = 0.0,
) -> None:
    """Close a batch without results: its materials are ready again, its core-seconds count."""
    changed = connection.execute(
        update(batch)
        .where(batch.c.id == row.id, batch.c.state.in_(("planned", *BATCH_OPEN)))
        .values(state=state, message=message, exit_status=exit_status, core_s=core_s, finished=time.time())
    ).rowcount
    if not changed:
        return
    connection.execute(
        update(task)
        .where(task.c.batch_id == row.id, task.c.state == "batched")
        .values(state="ready", batch_id=None, batch_row=None)
    )
    charge(connection, row.campaign_id, core_s)


def reroute_batch(connection: Connection, row: BatchRow, core_s: float = 0.0, *, begun: bool = False) -> None:
    """Plan a batch that was taken back from its centre again: its next process has another label.

    With ``begun`` it stays with its centre, where its checkpoint is; see :func:`~.centres.begun_at`.
    """
    changed = connection.execute(
        update(batch)
        .where(batch.c.id == row.id, batch.c.state.in_(BATCH_OPEN))
        .values(
            state="planned",
            attempts=batch.c.attempts + 1,
            process_uuid=None,
            expected_s=None,
            core_s=batch.c.core_s + core_s,
            submitted=None,
            n_done=0,
            n_failed=0,
        )
    ).rowcount
    if changed:
        outcome = "begun" if begun else "rerouted"
        end_submission(connection, row.id, outcome, process_uuid=row.process_uuid)
        charge(connection, row.campaign_id, core_s)


def spent(connection: Connection, campaign_id: int) -> tuple[float, float]:
    """Return the core-seconds that a campaign has used, and those expected of its batches in flight."""
    used = connection.execute(select(campaign.c.core_s).where(campaign.c.id == campaign_id)).scalar_one()
    expected = connection.execute(
        select(func.coalesce(func.sum(func.coalesce(batch.c.expected_s, batch.c.estimate_s)), 0.0)).where(
            batch.c.campaign_id == campaign_id, batch.c.state.in_(BATCH_OPEN)
        )
    ).scalar_one()
    return float(used), float(expected)


def charge(connection: Connection, campaign_id: int, core_s: float) -> None:
    """Add to what a campaign has used."""
    connection.execute(
        update(campaign).where(campaign.c.id == campaign_id).values(core_s=campaign.c.core_s + core_s)
    )


def by_id(connection: Connection, batch_id: int) -> BatchRow:
    """Return a batch."""
    return BatchRow(**connection.execute(select(batch).where(batch.c.id == batch_id)).mappings().one())

"""Rows of the batch table that hold one structure with a process of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from matcompute.campaign.state.batches import BatchRow, charge
from matcompute.campaign.state.campaigns import StageRow
from matcompute.campaign.state.centres import end_submission
from matcompute.campaign.state.flow import propagate
from matcompute.campaign.state.models import BATCH_COMPUTED, BATCH_OPEN, batch, task
from matcompute.dataset.status import Status

__all__ = ["computed", "plan_anew", "record_structures", "set_computed", "unprepared"]


def unprepared(connection: Connection, stage_id: int, first: int, limit: int) -> list[BatchRow]:
    """Return planned single structures of a stage, from a row on, that have no AiiDA structure yet."""
    query = (
        select(batch)
        .where(
            batch.c.stage_id == stage_id,
            batch.c.state == "planned",
            batch.c.single,
            batch.c.id >= first,
            batch.c.input_uuid.is_(None),
        )
        .order_by(batch.c.id)
        .limit(limit)
    )
    return [BatchRow(**row) for row in connection.execute(query).mappings()]


def computed(connection: Connection) -> list[BatchRow]:
    """Return the structures of all campaigns whose process has ended and whose results are not written yet."""
    query = select(batch).where(batch.c.state == BATCH_COMPUTED).order_by(batch.c.id)
    return [BatchRow(**row) for row in connection.execute(query).mappings()]


def set_computed(
    connection: Connection,
    row: BatchRow,
    *,
    status: int,
    message: str,
    core_s: float,
    exit_status: int | None,
) -> None:
    """Note how the process of a structure has ended; its place at the centre is free from now on."""
    changed = connection.execute(
        update(batch)
        .where(batch.c.id == row.id, batch.c.state.in_(BATCH_OPEN))
        .values(
            state=BATCH_COMPUTED,
            outcome={"status": int(status), "message": message},
            core_s=batch.c.core_s + core_s,
            exit_status=exit_status,
            message=message,
            finished=time.time(),
        )
    ).rowcount
    if changed:
        end_submission(
            connection,
            row.id,
            "finished" if status == int(Status.OK) else "failed",
            message,
            row.process_uuid,
        )
        charge(connection, row.campaign_id, core_s)


def plan_anew(
    connection: Connection, row: BatchRow, *, remedy: dict[str, Any], message: str, core_s: float
) -> None:
    """Plan another attempt at a structure; its next process has another label."""
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
            remedy=remedy,
        )
    ).rowcount
    if changed:
        end_submission(connection, row.id, "failed", message, row.process_uuid)
        charge(connection, row.campaign_id, core_s)


def record_structures(
    connection: Connection,
    stages: Sequence[StageRow],
    position: int,
    rows: Sequence[BatchRow],
    result_uuid: str,
) -> None:
    """Store where the results of some structures are, and make what went well ready for the next compute stage.

    Parameters
    ----------
    connection
        In a write transaction.
    stages, position
        Their stage is ``stages[position]``.
    rows
        The structures, in the order of the result shard.
    result_uuid
        AiiDA UUID of the shard.
    """
    for place, row in enumerate(rows):
        outcome = row.outcome or {"status": int(Status.LOST), "message": ""}
        ok = int(outcome["status"]) == int(Status.OK)
        changed = connection.execute(
            update(batch)
            .where(batch.c.id == row.id, batch.c.state == BATCH_COMPUTED)
            .values(state="finished", result_uuid=result_uuid, n_done=1, n_ok=int(ok), n_failed=int(not ok))
        ).rowcount
        if not changed:
            continue
        connection.execute(
            update(task)
            .where(
                task.c.campaign_id == row.campaign_id, task.c.batch_id == row.id, task.c.state == "batched"
            )
            .values(
                state="done",
                status=int(outcome["status"]),
                message=outcome["message"] or None,
                batch_row=place,
            )
        )
        if ok:
            propagate(connection, stages, position, batch_id=row.id)

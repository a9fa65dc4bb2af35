"""How materials flow through the stages: every step is one set-based statement, whatever the number of materials."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, exists, func, literal, select, update

from matcompute.campaign.state.campaigns import StageRow
from matcompute.campaign.state.models import material, stage, task
from matcompute.dataset.status import Status

__all__ = [
    "add_materials",
    "complete",
    "last_compute_before",
    "last_hull",
    "open_tasks",
    "propagate",
    "ready_count",
    "ready_rows",
    "record_gate",
    "retry_failed",
    "seed",
]

_OK = int(Status.OK)


def add_materials(
    connection: Connection,
    campaign_id: int,
    ids: Sequence[str],
    hashes: Sequence[str],
    n_sites: np.ndarray,
    is_reference: np.ndarray,
) -> None:
    """Insert the materials of a campaign; row k of the structures file is material k. Does nothing a second time."""
    known = connection.execute(
        select(func.count()).select_from(material).where(material.c.campaign_id == campaign_id)
    ).scalar_one()
    if known == len(ids):
        return
    # The driver's executemany: a million rows in seconds, without a parameter dictionary for each.
    rows = zip(
        [campaign_id] * len(ids),
        range(len(ids)),
        ids,
        hashes,
        np.asarray(n_sites).tolist(),
        np.asarray(is_reference, dtype=bool).tolist(),
        strict=True,
    )
    _executemany(
        connection,
        "INSERT OR IGNORE INTO material (campaign_id, row, entry_id, structure_hash, n_sites, is_reference) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        rows,
    )


def seed(connection: Connection, campaign_id: int, first: StageRow) -> None:
    """Make all materials ready for the first stage (a gate looks at them by itself). Idempotent."""
    if first.is_gate:
        return
    source = select(
        material.c.campaign_id,
        literal(first.id),
        material.c.row,
        literal(1),
        literal("ready"),
        literal(0),
    ).where(material.c.campaign_id == campaign_id, ~_has_task(first, material.c.row))
    _insert_tasks(connection, source)


def propagate(
    connection: Connection, stages: Sequence[StageRow], position: int, batch_id: int | None = None
) -> int:
    """Make the materials that a stage finished well ready for the next compute stage; return how many.

    Elemental references that the campaign added go up to its last hull gate and no further.

    Parameters
    ----------
    connection
        In a write transaction.
    stages
        All stages of the campaign.
    position
        The finished stage.
    batch_id
        Only the materials of this batch.
    """
    if position + 1 >= len(stages) or stages[position + 1].is_gate:
        return 0
    here, there = stages[position], stages[position + 1]
    source = select(
        task.c.campaign_id, literal(there.id), task.c.row, literal(1), literal("ready"), literal(0)
    ).where(
        task.c.stage_id == here.id,
        task.c.campaign_id == here.campaign_id,
        task.c.state == "done",
        task.c.status == _OK,
        ~_has_task(there, task.c.row),
    )
    if batch_id is not None:
        source = source.where(task.c.batch_id == batch_id)
    if there.position > last_hull(stages):
        source = source.join(
            material,
            (material.c.campaign_id == task.c.campaign_id) & (material.c.row == task.c.row),
        ).where(~material.c.is_reference)
    return _insert_tasks(connection, source)


def record_gate(
    connection: Connection,
    stages: Sequence[StageRow],
    position: int,
    rows: np.ndarray,
    passed: np.ndarray,
    status: np.ndarray,
) -> None:
    """Store what a gate decided as finished tasks, so that the next stage finds its materials like after any stage.

    Before the last hull gate the campaign's own elemental references pass every gate.

    Parameters
    ----------
    connection
        In a write transaction.
    stages, position
        The gate is ``stages[position]``.
    rows
        ``int[n]``: rows of the materials that were looked at.
    passed
        ``bool[n]``.
    status
        ``u1[n]``: :class:`~matcompute.dataset.Status` of those that did not pass.
    """
    gate = stages[position]
    attempt = gate.revision + 1
    connection.execute(
        update(task)
        .where(task.c.stage_id == gate.id, task.c.attempt < attempt, task.c.state != "superseded")
        .values(state="superseded")
    )
    final = np.where(passed, _OK, status).astype(int)
    _executemany(
        connection,
        "INSERT OR IGNORE INTO task (campaign_id, stage_id, row, attempt, state, status) "
        "VALUES (?, ?, ?, ?, 'done', ?)",
        zip(
            [gate.campaign_id] * len(rows),
            [gate.id] * len(rows),
            np.asarray(rows).tolist(),
            [attempt] * len(rows),
            final.tolist(),
            strict=True,
        ),
    )
    if gate.position >= last_hull(stages):
        return
    # References that an earlier stage finished, or all of them if the campaign starts with a gate.
    references = select(
        material.c.campaign_id,
        literal(gate.id),
        material.c.row,
        literal(attempt),
        literal("done"),
        literal(_OK),
    ).where(
        material.c.campaign_id == gate.campaign_id,
        material.c.is_reference,
        ~exists().where(
            task.c.stage_id == gate.id,
            task.c.row == material.c.row,
            task.c.attempt == attempt,
            task.c.campaign_id == gate.campaign_id,
        ),
    )
    if position > 0:
        before = task.alias("before")
        references = references.where(
            exists().where(
                before.c.campaign_id == gate.campaign_id,
                before.c.stage_id == stages[position - 1].id,
                before.c.row == material.c.row,
                before.c.state == "done",
                before.c.status == _OK,
            )
        )
    _insert_tasks(connection, references)


def ready_count(connection: Connection, stage_id: int) -> int:
    """Return how many materials wait to be put into a batch of a stage."""
    return int(
        connection.execute(
            select(func.count()).select_from(task).where(task.c.stage_id == stage_id, task.c.state == "ready")
        ).scalar_one()
    )


def ready_rows(connection: Connection, stage_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and numbers of sites (``i8[n]`` each) of the materials that are ready for a compute stage."""
    query = (
        select(task.c.row, material.c.n_sites)
        .join(material, (material.c.campaign_id == task.c.campaign_id) & (material.c.row == task.c.row))
        .where(task.c.stage_id == stage_id, task.c.state == "ready")
        .order_by(task.c.row)
    )
    found = connection.execute(query).fetchall()
    table = np.array([tuple(row) for row in found], dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def open_tasks(connection: Connection, stage_id: int) -> int:
    """Return how many materials of a stage are not done."""
    return int(
        connection.execute(
            select(func.count())
            .select_from(task)
            .where(task.c.stage_id == stage_id, task.c.state.in_(("ready", "batched")))
        ).scalar_one()
    )


def complete(connection: Connection, stages: Sequence[StageRow], position: int) -> bool:
    """Tell whether nothing can come any more from a stage and those before it."""
    for here in stages[: position + 1]:
        if here.is_gate:
            if here.state != "finished":
                return False
        elif open_tasks(connection, here.id):
            return False
    return True


def last_hull(stages: Sequence[StageRow]) -> int:
    """Return the position of the last hull gate, -1 if there is none."""
    return max((here.position for here in stages if here.kind == "hull"), default=-1)


def last_compute_before(stages: Sequence[StageRow], position: int) -> StageRow | None:
    """Return the last compute stage before a position, or None."""
    return next((here for here in reversed(stages[:position]) if not here.is_gate), None)


def retry_failed(
    connection: Connection, stages: Sequence[StageRow], chosen: Iterable[str] | None = None
) -> int:
    """Give the failed materials of compute stages a new attempt; return how many.

    Gates behind the first stage that has one are evaluated anew; what was computed stays.
    """
    wanted = None if chosen is None else set(chosen)
    first: int | None = None
    total = 0
    for here in stages:
        if here.is_gate or (wanted is not None and here.name not in wanted):
            continue
        failed = (
            (task.c.stage_id == here.id)
            & (task.c.campaign_id == here.campaign_id)
            & (task.c.state == "done")
            & (task.c.status != _OK)
        )
        # The new attempts first: their selection needs the old state. An attempt that exists is not made twice.
        source = select(
            task.c.campaign_id, task.c.stage_id, task.c.row, task.c.attempt + 1, literal("ready"), literal(0)
        ).where(failed)
        n = _insert_tasks(connection, source)
        if not n:
            continue
        connection.execute(update(task).where(failed).values(state="superseded"))
        connection.execute(update(stage).where(stage.c.id == here.id).values(state="waiting", finished=None))
        total += n
        first = here.position if first is None else min(first, here.position)
    if first is not None:
        connection.execute(
            update(stage)
            .where(
                stage.c.campaign_id == stages[0].campaign_id,
                stage.c.position > first,
                stage.c.is_gate,
                stage.c.state == "finished",
            )
            .values(state="waiting", revision=stage.c.revision + 1, finished=None)
        )
    return total


def _has_task(here: StageRow, row: Any) -> Any:
    other = task.alias("other")
    return exists().where(
        other.c.campaign_id == here.campaign_id, other.c.stage_id == here.id, other.c.row == row
    )


def _insert_tasks(connection: Connection, source: Select) -> int:
    columns = ["campaign_id", "stage_id", "row", "attempt", "state", "status"]
    return int(connection.execute(task.insert().from_select(columns, source)).rowcount)


def _executemany(connection: Connection, statement: str, rows: Iterable[tuple]) -> None:
    connection.exec_driver_sql(statement, list(rows))

"""Summaries of a campaign for people: how far each stage is, and what failed."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select

from matcompute.campaign.state.campaigns import CampaignRow, StageRow, by_id, stages_of
from matcompute.campaign.state.models import BATCH_UNRECORDED, batch, dispatcher, material, stage, task
from matcompute.dataset.status import Status

__all__ = ["CampaignStatus", "FailureGroup", "StageStatus", "campaign_status", "failure_groups"]


@dataclass(frozen=True)
class StageStatus:
    """How far a stage is.

    Attributes
    ----------
    n_total
        Materials that have come to this stage so far.
    n_done
        Of these, finished (those finished inside running batches included).
    n_ok, n_failed
        Of those recorded: good, and not good. For a gate: passed, and not passed.
    n_running
        Materials in batches that are in flight.
    rate
        Materials per second over the time in which the stage has been busy; 0 if unknown.
    """

    name: str
    kind: str
    is_gate: bool
    state: str
    n_total: int = 0
    n_done: int = 0
    n_ok: int = 0
    n_failed: int = 0
    n_running: int = 0
    batches_open: int = 0
    batches_done: int = 0
    rate: float = 0.0
    core_s: float = 0.0


@dataclass(frozen=True)
class CampaignStatus:
    """How far a campaign is."""

    name: str
    uuid: str
    title: str
    state: str
    reason: str
    hint: str
    wanted: str
    n_materials: int
    core_s: float
    budget_core_s: float | None
    created: float
    started: float | None
    finished: float | None
    dataset: str | None
    stages: list[StageStatus] = field(default_factory=list)
    #: Dispatcher's pid and seconds since its last sign of life.
    dispatcher_pid: int | None = None
    dispatcher_age_s: float | None = None
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary (seconds; ``core_hours`` beside ``core_s``)."""
        data = asdict(self)
        data["core_hours"] = self.core_s / 3600
        return data

    @property
    def eta_s(self) -> float | None:
        """Seconds until the compute stages have done what has come to them, if a rate is known."""
        left = 0.0
        for part in self.stages:
            todo = part.n_total - part.n_done
            if part.is_gate or todo <= 0:
                continue
            if part.rate <= 0:
                return None
            left += todo / part.rate
        return left


@dataclass(frozen=True)
class FailureGroup:
    """Materials of a stage that failed for the same cause."""

    stage: str
    status: Status
    count: int
    example_id: str
    example_message: str


def campaign_status(connection: Connection, campaign_id: int) -> CampaignStatus:
    """Return how far a campaign is, from a few grouped counts on indexes."""
    row = by_id(connection, campaign_id)
    stages = stages_of(connection, campaign_id)
    alive = connection.execute(select(dispatcher).where(dispatcher.c.id == 1)).mappings().one_or_none()
    return CampaignStatus(
        name=row.name,
        uuid=row.uuid,
        title=row.title,
        state=row.state,
        reason=row.reason,
        hint=row.hint,
        wanted=row.wanted,
        n_materials=row.n_materials,
        core_s=row.core_s,
        budget_core_s=row.budget_core_s,
        created=row.created,
        started=row.started,
        finished=row.finished,
        dataset=row.dataset,
        stages=_stages(connection, row, stages),
        dispatcher_pid=None if alive is None or alive["state"] == "exited" else alive["pid"],
        dispatcher_age_s=None
        if alive is None or not alive["heartbeat"]
        else time.time() - alive["heartbeat"],
        message="" if alive is None else alive["message"],
    )


def _stages(connection: Connection, row: CampaignRow, stages: list[StageRow]) -> list[StageStatus]:
    ids = [here.id for here in stages]
    tasks: dict[int, dict[tuple[str, int], int]] = {k: {} for k in ids}
    query = (
        select(task.c.stage_id, task.c.state, task.c.status, func.count())
        .where(task.c.stage_id.in_(ids))
        .group_by(task.c.stage_id, task.c.state, task.c.status)
    )
    for stage_id, state, status, count in connection.execute(query):
        tasks[stage_id][(state, status)] = count
    query = (
        select(
            batch.c.stage_id,
            batch.c.state.in_(BATCH_UNRECORDED),
            func.count(),
            func.sum(batch.c.n_total),
            func.sum(batch.c.n_done),
            func.sum(batch.c.core_s),
            func.min(batch.c.submitted),
            func.max(batch.c.finished),
        )
        .where(batch.c.campaign_id == row.id, batch.c.state != "planned")
        .group_by(batch.c.stage_id, batch.c.state.in_(BATCH_UNRECORDED))
    )
    open_: dict[int, list[Any]] = {}
    closed: dict[int, list[Any]] = {}
    for stage_id, is_open, *values in connection.execute(query):
        (open_ if is_open else closed)[stage_id] = values
    return [_stage(here, tasks[here.id], open_.get(here.id), closed.get(here.id)) for here in stages]


def _stage(
    here: StageRow, tasks: dict[tuple[str, int], int], open_: list | None, closed: list | None
) -> StageStatus:
    current = {key: count for key, count in tasks.items() if key[0] != "superseded"}
    recorded = sum(count for (state, _), count in current.items() if state == "done")
    ok = current.get(("done", int(Status.OK)), 0)
    running, live = (int(open_[1]), int(open_[2])) if open_ else (0, 0)
    done = recorded + live
    begun = min((v[4] for v in (open_, closed) if v and v[4]), default=None)
    ended = time.time() if open_ else (closed[5] if closed else None)
    busy = ended - begun if begun and ended else 0.0
    computed = int(closed[2] if closed else 0) + live
    return StageStatus(
        name=here.name,
        kind=here.kind,
        is_gate=here.is_gate,
        state=here.state,
        n_total=sum(current.values()),
        n_done=done,
        n_ok=here.n_passed or 0 if here.is_gate else ok,
        n_failed=max((here.n_considered or 0) - (here.n_passed or 0), 0) if here.is_gate else recorded - ok,
        n_running=running,
        batches_open=int(open_[0]) if open_ else 0,
        batches_done=int(closed[0]) if closed else 0,
        rate=computed / busy if busy > 0 else 0.0,
        core_s=float((open_[3] if open_ else 0) or 0) + float((closed[3] if closed else 0) or 0),
    )


def failure_groups(connection: Connection, campaign_id: int) -> list[FailureGroup]:
    """Return the failed materials of the compute stages by stage and cause, the most frequent first."""
    query = (
        select(stage.c.name, task.c.status, func.count(), func.min(task.c.row), stage.c.id)
        .join(stage, stage.c.id == task.c.stage_id)
        .where(
            stage.c.campaign_id == campaign_id,
            ~stage.c.is_gate,
            task.c.state == "done",
            task.c.status != int(Status.OK),
        )
        .group_by(stage.c.id, task.c.status)
        .order_by(func.count().desc(), stage.c.position)
    )
    groups = []
    for name, status, count, row, stage_id in connection.execute(query).fetchall():
        entry, message = connection.execute(
            select(material.c.entry_id, task.c.message)
            .join(task, (task.c.campaign_id == material.c.campaign_id) & (task.c.row == material.c.row))
            .where(
                material.c.campaign_id == campaign_id,
                material.c.row == row,
                task.c.stage_id == stage_id,
                task.c.state == "done",
            )
        ).one()
        groups.append(FailureGroup(name, Status(status), count, entry, message or ""))
    return groups

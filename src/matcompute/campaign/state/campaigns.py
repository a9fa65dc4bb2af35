"""Rows of the campaign and stage tables: registering, finding, changing a campaign's state."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from matcompute.campaign.state.models import campaign, stage
from matcompute.errors import InputError, did_you_mean

__all__ = [
    "CampaignRow",
    "StageRow",
    "all_campaigns",
    "by_id",
    "by_name",
    "find",
    "register",
    "set_campaign",
    "set_stage",
    "stages_of",
]


@dataclass(frozen=True)
class CampaignRow:
    """One row of the campaign table."""

    id: int
    uuid: str
    name: str
    title: str
    file: str
    text: str
    digest: str
    budget_core_s: float | None
    state: str
    wanted: str
    reason: str
    hint: str
    n_materials: int
    core_s: float
    structures_uuid: str | None
    ingest_report: dict[str, Any] | None
    dataset_uuid: str | None
    dataset: str | None
    revision: int
    created: float
    started: float | None
    finished: float | None


@dataclass(frozen=True)
class StageRow:
    """One row of the stage table."""

    id: int
    campaign_id: int
    position: int
    name: str
    kind: str
    is_gate: bool
    state: str
    revision: int
    gate_uuid: str | None
    n_passed: int | None
    n_considered: int | None
    started: float | None
    finished: float | None


def register(
    connection: Connection,
    *,
    name: str,
    title: str,
    file: str,
    text: str,
    digest: str,
    budget_core_s: float | None,
    stages: Sequence[tuple[str, str, bool]],
) -> CampaignRow:
    """Insert a campaign with its stages (name, kind, is it a gate); it waits for the dispatcher."""
    result = connection.execute(
        campaign.insert().values(
            uuid=str(uuid.uuid4()),
            name=name,
            title=title,
            file=file,
            text=text,
            digest=digest,
            budget_core_s=budget_core_s,
            state="registered",
            wanted="run",
            created=time.time(),
        )
    )
    campaign_id = int(result.inserted_primary_key[0])  # type: ignore[index]
    connection.execute(
        stage.insert(),
        [
            {"campaign_id": campaign_id, "position": k, "name": n, "kind": kind, "is_gate": gate}
            for k, (n, kind, gate) in enumerate(stages)
        ],
    )
    return by_id(connection, campaign_id)


def all_campaigns(connection: Connection, states: Sequence[str] | None = None) -> list[CampaignRow]:
    """Return the campaigns of the workspace in the order of registration."""
    query = select(campaign).order_by(campaign.c.id)
    if states is not None:
        query = query.where(campaign.c.state.in_(states))
    return [CampaignRow(**row) for row in connection.execute(query).mappings()]


def by_id(connection: Connection, campaign_id: int) -> CampaignRow:
    """Return one campaign."""
    row = connection.execute(select(campaign).where(campaign.c.id == campaign_id)).mappings().one()
    return CampaignRow(**row)


def by_name(connection: Connection, name: str) -> CampaignRow | None:
    """Return the campaign of that name, or None."""
    row = connection.execute(select(campaign).where(campaign.c.name == name)).mappings().one_or_none()
    return None if row is None else CampaignRow(**row)


def find(connection: Connection, name: str) -> CampaignRow:
    """Return the campaign of that name or UUID.

    Raises
    ------
    InputError
        If there is none; the nearest name is given.
    """
    query = select(campaign).where((campaign.c.name == name) | (campaign.c.uuid == name))
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        known = [r.name for r in all_campaigns(connection)]
        hint = None if known else "this workspace has no campaign yet: matcompute campaign run FILE"
        raise InputError(f"no campaign '{name}' in this workspace{did_you_mean(name, known)}", hint=hint)
    return CampaignRow(**row)


def set_campaign(connection: Connection, campaign_id: int, **values: Any) -> None:
    """Change columns of a campaign."""
    connection.execute(update(campaign).where(campaign.c.id == campaign_id).values(**values))


def stages_of(connection: Connection, campaign_id: int) -> list[StageRow]:
    """Return the stages of a campaign in order."""
    query = select(stage).where(stage.c.campaign_id == campaign_id).order_by(stage.c.position)
    return [StageRow(**row) for row in connection.execute(query).mappings()]


def set_stage(connection: Connection, stage_id: int, **values: Any) -> None:
    """Change columns of a stage."""
    connection.execute(update(stage).where(stage.c.id == stage_id).values(**values))

"""Which structures failed and why: grouped by cause, an example of each, and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from matcompute.campaign.state.campaigns import CampaignRow
from matcompute.campaign.state.counts import failure_groups
from matcompute.campaign.state.models import batch, stage

__all__ = ["Failure", "failures"]


@dataclass(frozen=True)
class Failure:
    """One cause.

    Attributes
    ----------
    what
        ``structures`` (failed in a stage), ``batches`` (whole jobs), ``input`` (kept out when the sources were read).
    stage
        Name of the stage, or ``structures`` for the input.
    cause
        In words.
    code
        Name of the status, or ``exit status`` of the AiiDA process.
    count, example, message
        How many; the id, key or source line of one of them; what it said.
    remedy
        What to do.
    """

    what: str
    stage: str
    cause: str
    code: str
    count: int
    example: str
    message: str
    remedy: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary."""
        return asdict(self)


def failures(connection: Connection, row: CampaignRow) -> list[Failure]:
    """Return everything that failed in a campaign, grouped by cause."""
    found = [
        Failure(
            what="structures",
            stage=group.stage,
            cause=group.status.describe,
            code=group.status.label,
            count=group.count,
            example=group.example_id,
            message=group.example_message,
            remedy=group.status.remedy,
        )
        for group in failure_groups(connection, row.id)
    ]
    found += _batches(connection, row)
    found += _rejects(row)
    return found


def _batches(connection: Connection, row: CampaignRow) -> list[Failure]:
    query = (
        select(stage.c.name, batch.c.exit_status, batch.c.message, func.count(), func.min(batch.c.key))
        .join(stage, stage.c.id == batch.c.stage_id)
        .where(batch.c.campaign_id == row.id, batch.c.state == "failed")
        .group_by(stage.c.id, batch.c.exit_status)
        .order_by(stage.c.position, func.count().desc())
    )
    return [
        Failure(
            what="batches",
            stage=name,
            cause=message.splitlines()[0] if message else "the batch ended without results",
            code="" if status is None else f"exit status {status}",
            count=count,
            example=key,
            message=message,
            remedy=f"nothing is lost: matcompute campaign resume {row.name} computes what is missing",
        )
        for name, status, message, count, key in connection.execute(query)
    ]


def _rejects(row: CampaignRow) -> list[Failure]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for reject in (row.ingest_report or {}).get("rejects", []):
        groups.setdefault(reject.get("cause", "unreadable"), []).append(reject)
    return [
        Failure(
            what="input",
            stage="structures",
            cause=cause.replace("_", " "),
            code=cause,
            count=sum(int(reject.get("count", 1)) for reject in some),
            example=f"{some[0].get('source', '?')}:{some[0].get('line', '?')}",
            message=str(some[0].get("reason", "")),
            remedy="mend or remove the structure in its source; it was kept out of the campaign",
        )
        for cause, some in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]

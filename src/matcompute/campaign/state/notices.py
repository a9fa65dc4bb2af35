"""Notices: what people are to be told, written with the event, delivered afterwards, each once."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from matcompute.campaign.state.models import notice

__all__ = ["EVENTS", "NoticeRow", "add_notice", "due_notices", "forget_notice", "notices", "set_notice"]

#: What is told.
EVENTS: dict[str, str] = {
    "done": "a campaign is finished",
    "stalled": "a campaign waits for a person",
    "budget": "a campaign or a project has used 80 % or all of its core-hours",
    "centre-down": "a centre does not answer or starts no jobs",
    "centre-up": "a centre is back",
}


@dataclass(frozen=True)
class NoticeRow:
    """One row of the notice table."""

    id: int
    key: str
    event: str
    campaign: str
    centre: str
    text: str
    created: float
    delivered: float | None
    tries: int
    next_try: float
    error: str


def add_notice(
    connection: Connection, key: str, event: str, text: str, *, campaign: str = "", centre: str = ""
) -> bool:
    """Write a notice down unless the same event was; return whether it is new."""
    values = {"key": key[:200], "event": event, "campaign": campaign, "centre": centre, "text": text}
    statement = insert(notice).values(created=time.time(), **values)
    return bool(connection.execute(statement.on_conflict_do_nothing(["key"])).rowcount)


def forget_notice(connection: Connection, key: str) -> None:
    """Let an event be told again when it happens again (a budget was raised)."""
    connection.execute(delete(notice).where(notice.c.key == key[:200]))


#: Older notices are not delivered any more, in s: nobody wants a month of them when a webhook is first set.
STALE_S = 2 * 86400.0


def due_notices(connection: Connection, *, now: float, most_tries: int, limit: int = 20) -> list[NoticeRow]:
    """Return the notices that are to be delivered now."""
    query = (
        select(notice)
        .where(
            notice.c.delivered.is_(None),
            notice.c.next_try <= now,
            notice.c.tries < most_tries,
            notice.c.created > now - STALE_S,
        )
        .order_by(notice.c.id)
        .limit(limit)
    )
    return [NoticeRow(**row) for row in connection.execute(query).mappings()]


def notices(connection: Connection, *, limit: int = 100) -> list[NoticeRow]:
    """Return the newest notices, the newest first."""
    query = select(notice).order_by(notice.c.id.desc()).limit(limit)
    return [NoticeRow(**row) for row in connection.execute(query).mappings()]


def set_notice(connection: Connection, notice_id: int, **values: object) -> None:
    """Change columns of a notice."""
    connection.execute(update(notice).where(notice.c.id == notice_id).values(**values))

"""The feed as one reader may see it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, not_, or_, select

from matcompute.dataset import GRADES, TIERS
from matcompute.server.access import Access, Principal
from matcompute.server.tables import changes, datasets

__all__ = ["head_of", "page_of"]

_NOTHING = {"version": None, "manifest_sha256": None, "grade": "", "tier": "", "reason": ""}


def _shown(who: Principal) -> ColumnElement[bool]:
    """Return the condition that a change is in a reader's feed.

    Whatever it showed once stays in it, if only as a tombstone, so that its end never moves back.
    """
    before = and_(
        changes.c.tier_before.is_not(None),
        Access.cleared(who, changes.c.tier_before, changes.c.grade_before, changes.c.dataset_id),
    )
    after = Access.cleared(who, changes.c.tier, changes.c.grade, changes.c.dataset_id)
    now = Access.cleared(who)
    leaves = and_(before, not_(after))
    withdrawn = and_(changes.c.op == "withdraw", before, changes.c.newest.is_(None))
    comes = and_(after, not_(before), changes.c.newest.is_not(None))
    return or_(leaves, withdrawn, and_(now, or_(and_(before, after), comes)))


def _select(who: Principal) -> Select[Any]:
    return (
        select(
            changes,
            datasets.c.grade.label("grade_now"),
            datasets.c.tier.label("tier_now"),
            Access.entitled(who, changes.c.dataset_id).label("entitled"),
        )
        .join(datasets, datasets.c.id == changes.c.dataset_id)
        .where(_shown(who))
    )


def _event(row: Row[Any], who: Principal) -> dict[str, Any]:
    def cleared(tier: str | None, grade: str | None) -> bool:
        public = (tier, grade) == (TIERS[0], GRADES[0])
        return tier in who.tiers and grade in who.grades and (public or row.entitled)

    before, after = cleared(row.tier_before, row.grade_before), cleared(row.tier, row.grade)
    event = {
        "seq": row.seq,
        "op": row.op,
        "dataset_id": row.dataset_id,
        "version": row.version,
        "manifest_sha256": row.manifest_sha256,
        "grade": row.grade,
        "tier": row.tier,
        "at": row.at,
        "reason": row.reason,
    }
    if not after or not cleared(row.tier_now, row.grade_now):
        # Out of the reader's sight then or now: nothing but that it must let go of what it has.
        return event | _NOTHING | {"op": "withdraw"}
    if not before and row.tier_before is not None:
        # Why it was out of sight is nothing to the reader.
        came = {"op": "publish", "version": row.newest, "manifest_sha256": row.newest_sha256, "reason": ""}
        return event | came
    return event


def page_of(
    connection: Connection, who: Principal, after: int, limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """Return the changes that follow a position, oldest first, and whether there are more.

    Parameters
    ----------
    connection
        To the index.
    who
        The reader.
    after
        Sequence number of the last change that it has.
    limit
        Most changes to return.
    """
    query = _select(who).where(changes.c.seq > after).order_by(changes.c.seq).limit(limit + 1)
    rows = connection.execute(query).all()
    return [_event(row, who) for row in rows[:limit]], len(rows) > limit


def head_of(connection: Connection, who: Principal) -> int:
    """Return the sequence number of the last change in a reader's feed; 0 for an empty one."""
    query = (
        select(changes.c.seq)
        .join(datasets, datasets.c.id == changes.c.dataset_id)
        .where(_shown(who))
        .order_by(changes.c.seq.desc())
        .limit(1)
    )
    return int(connection.execute(query).scalar() or 0)

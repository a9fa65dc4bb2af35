"""What a member may use in a month, by tier, and what is used already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from matcompute.server.guard.audit import AuditLog, now, period_of

__all__ = ["Quota", "exceeded"]


class Quota(BaseModel):
    """What members of one tier may use of non-public data in a calendar month (UTC); public data is free.

    Parameters
    ----------
    gib_per_month
        Content.
    requests_per_month
        Answers about, or of, non-public data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gib_per_month: Annotated[float, Field(gt=0)] | None = None
    requests_per_month: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class Used:
    """What a member used of non-public data in a month."""

    requests: int
    size: int


def used(log: AuditLog, principal: str, period: str) -> Used:
    """Return what a member used; what was served before its record is durable does not exist, so this is all."""
    rows = [row for row in log.usage(principal, period) if row["tier"] != "public"]
    return Used(sum(row["requests"] for row in rows), sum(row["bytes"] for row in rows))


def exceeded(log: AuditLog, quotas: Mapping[str, Quota], principal: str, tier: str) -> str | None:
    """Return why a member gets no more non-public data this month; None if it does.

    The file that goes over the quota is still served whole.
    """
    quota = quotas.get(tier)
    if quota is None:
        return None
    period = period_of(now())
    found = used(log, principal, period)
    if quota.gib_per_month is not None and found.size >= quota.gib_per_month * 2**30:
        return f"the quota of {quota.gib_per_month:g} GiB in {period} is used up"
    if quota.requests_per_month is not None and found.requests >= quota.requests_per_month:
        return f"the quota of {quota.requests_per_month:,} requests in {period} is used up"
    return None

"""Times as texts: UTC, ISO 8601 with ``Z``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["exact", "utc_now", "utc_text"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_text(at: datetime | float) -> str:
    """Return a time to the second.

    Parameters
    ----------
    at
        A time (UTC if it names no zone), or seconds since 1970.
    """
    if not isinstance(at, datetime):
        at = datetime.fromtimestamp(at, UTC)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_now() -> str:
    """Return the time now, to the second."""
    return utc_text(datetime.now(UTC))


def exact(microseconds: int) -> str:
    """Return a time given in microseconds since 1970, to the microsecond where it has any (RFC 3339)."""
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")

"""What a route tells the guard about what it serves, for the audit and the metering."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection

__all__ = ["note"]


def note(request: HTTPConnection, **fields: Any) -> None:
    """Add fields to the record of a request: ``dataset_id``, ``version``, ``tier``, ``grade``, ``sha256``.

    ``bytes`` is for answers whose content another program sends (X-Accel). Without a guard nothing happens.
    """
    notes = request.scope.get("state", {}).get("audit")
    if notes is not None:
        notes.update(fields)

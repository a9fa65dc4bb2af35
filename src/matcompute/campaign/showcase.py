"""What others may see of a workspace's campaigns: how far they are, and who may know it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import yaml

from matcompute.campaign.state import State
from matcompute.campaign.state.campaigns import CampaignRow, all_campaigns
from matcompute.campaign.state.counts import campaign_status

__all__ = ["Showcase"]

_STAGE = ("name", "is_gate", "state", "n_total", "n_done", "n_ok", "n_failed")
_CAMPAIGN = ("name", "title", "state", "n_materials", "core_hours", "started", "finished")


class Showcase:
    """Progress of all campaigns, newest first; call it for a list of JSON-able dictionaries.

    Each has its ``grade`` and ``tier``: only those who may read its data may see it. Paths, processes and messages
    are left out.

    Parameters
    ----------
    path
        The workspace's state database.
    seconds
        How long an answer is given again before campaigns are counted anew (never more than a tenth of the time is
        spent on counting).
    """

    def __init__(self, path: Path, *, seconds: float = 2.0) -> None:
        self.path, self.seconds = path, seconds
        self._lock = threading.Lock()
        self._until = 0.0
        self._found: list[dict[str, Any]] = []

    def __call__(self) -> list[dict[str, Any]]:
        """Return the campaigns.

        Raises
        ------
        StateError
            If the state database cannot be read.
        """
        with self._lock:
            begun = time.monotonic()
            if begun >= self._until:
                self._found = self._read()
                now = time.monotonic()
                self._until = now + max(self.seconds, 10 * (now - begun))
            return self._found

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with State(self.path) as state, state.read() as connection:
            rows = sorted(all_campaigns(connection), key=lambda row: -row.created)
            found = []
            for row in rows:
                status = campaign_status(connection, row.id).to_json()
                stages = [{key: part[key] for key in _STAGE} for part in status["stages"]]
                found.append(
                    {**{key: status[key] for key in _CAMPAIGN}, **_classified(row), "stages": stages}
                )
            return found


def _classified(row: CampaignRow) -> dict[str, str]:
    """Return grade and tier of a campaign as its file gives them; nothing if they cannot be read."""
    try:
        data = yaml.safe_load(row.text)
        found = data.get("classification") or {}
        return {"grade": str(found.get("grade", "general")), "tier": str(found.get("tier", "public"))}
    except (yaml.YAMLError, AttributeError):
        return {}

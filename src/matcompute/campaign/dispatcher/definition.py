"""What a registered campaign computes: its file as it was at registration, whatever became of the file since."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from matcompute.campaign.model import Campaign
from matcompute.campaign.resolution import facts_of, resolve_campaign
from matcompute.campaign.state.campaigns import CampaignRow

__all__ = ["definition", "metadata_of"]


def definition(row: CampaignRow) -> Campaign:
    """Return the campaign of a row; relative paths start at the original file's folder.

    Once its structures are read, nothing in it is ``auto`` any more.
    """
    if row.ingest_report is None:
        return _read(row.text, row.file, row.name)
    return _resolved(row.text, row.file, row.name, *facts_of(row.ingest_report))


@lru_cache(maxsize=64)
def _resolved(text: str, file: str, name: str, species: tuple[str, ...], n_atoms_max: int) -> Campaign:
    return resolve_campaign(_read(text, file, name), species, n_atoms_max)


@lru_cache(maxsize=64)
def _read(text: str, file: str, name: str) -> Campaign:
    with tempfile.TemporaryDirectory(prefix="matcompute-campaign-") as folder:
        copy = Path(folder) / Path(file).name
        copy.write_text(text, encoding="utf-8")
        campaign = Campaign.load(copy)
    campaign = campaign if campaign.name == name else campaign.model_copy(update={"name": name})
    campaign._path = Path(file)
    return campaign


def metadata_of(row: CampaignRow) -> dict[str, Any]:
    """Return the fields of :class:`matcompute.dataset.Metadata` that a campaign fixes."""
    from datetime import UTC, datetime

    campaign = definition(row)
    created = datetime.fromtimestamp(row.created, UTC)
    return {
        "title": campaign.title,
        "description": campaign.description or "",
        "domain": str(campaign.domain),
        "grade": campaign.grade,
        "tier": str(campaign.classification.tier),
        "license": campaign.licence,
        # One campaign, one dataset: a retry makes a new version of it.
        "dataset_id": row.uuid,
        "dataset_version": str(row.revision + 1),
        "campaign": row.name,
        "campaign_uuid": row.uuid,
        "created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "contributors": [
            {key: value for key, value in person.model_dump().items() if value}
            for person in campaign.contributors
        ],
    }

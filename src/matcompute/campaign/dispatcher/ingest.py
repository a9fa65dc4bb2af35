"""From a campaign's sources to its structures file and its materials in the state tables."""

from __future__ import annotations

import io
import logging
import time
from pathlib import Path

import numpy as np

from matcompute.campaign.dispatcher.definition import definition, metadata_of
from matcompute.campaign.dispatcher.nodes import call_once
from matcompute.campaign.state import State
from matcompute.campaign.state.campaigns import CampaignRow, set_campaign, stages_of
from matcompute.campaign.state.flow import add_materials, seed
from matcompute.dataset import Quality
from matcompute.errors import InputError

__all__ = ["ingest"]

LOGGER = logging.getLogger(__name__)
#: Structures that were kept out are all in the AiiDA report node; the tables hold this many for ``failures``.
MAX_REJECTS = 1000


def ingest(state: State, row: CampaignRow) -> None:
    """Read, screen and store the structures of a campaign; idempotent."""
    from aiida.orm import Dict, SinglefileData

    from matcompute_workflows.functions import ingest_structures
    from matcompute_workflows.sources import source_nodes

    campaign = definition(row)

    def inputs() -> dict[str, object]:
        file = SinglefileData(io.BytesIO(row.text.encode()), filename=Path(row.file).name)
        settings = {
            "structures": [spec.model_dump(mode="json") for spec in campaign.structures],
            "references": "auto" if campaign.wants_references else None,
            "metadata": metadata_of(row),
        }
        sources = source_nodes(campaign.structures, campaign.base_dir)
        return {"parameters": Dict(settings), "campaign_file": file, **sources}

    outputs = call_once(f"{row.uuid}/ingest", ingest_structures, inputs, extras={"campaign": row.uuid})
    shard = outputs["structures"]
    report = outputs["report"].get_dict()
    with shard.dataset() as dataset:
        n = len(dataset)
        ids = [str(name) for name in dataset.ids]
        hashes = [_text(value) for value in dataset.entry_column("structure_hash")]
        sites = np.asarray(dataset.entry_column("row_size"))
        quality = np.asarray(dataset.entry_column("quality"))
    LOGGER.info("campaign '%s': %d structures, %d kept out", row.name, n, len(report.get("rejects", [])))
    if not n:
        raise InputError(
            f"no structure is left of the {report.get('n_read', 0)} in the sources",
            hint=f"why: matcompute campaign check {row.file}",
        )
    kept = {**report, "rejects": report.get("rejects", [])[:MAX_REJECTS]}
    with state.write() as connection:
        add_materials(
            connection, row.id, ids, hashes, sites, (quality & int(Quality.ELEMENTAL_REFERENCE)) != 0
        )
        seed(connection, row.id, stages_of(connection, row.id)[0])
        set_campaign(
            connection,
            row.id,
            structures_uuid=shard.uuid,
            n_materials=n,
            ingest_report=kept,
            started=row.started or time.time(),
        )


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

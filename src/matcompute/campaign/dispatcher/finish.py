"""The end of a campaign: everything merged into one dataset file."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.campaign.dispatcher.definition import metadata_of
from matcompute.campaign.dispatcher.gates import shards_before
from matcompute.campaign.dispatcher.nodes import call_once, load
from matcompute.campaign.events import finished_event
from matcompute.campaign.state import State
from matcompute.campaign.state.campaigns import CampaignRow, set_campaign, set_stage, stages_of
from matcompute.campaign.state.flow import complete
from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from matcompute.workspace import Workspace

__all__ = ["finish", "finished_stages"]

LOGGER = logging.getLogger(__name__)


def finished_stages(state: State, row: CampaignRow) -> bool:
    """Mark the compute stages that are complete; return whether all stages are."""
    with state.read() as connection:
        stages = stages_of(connection, row.id)
        done = [complete(connection, stages, here.position) for here in stages]
    changed = [
        here
        for here, good in zip(stages, done, strict=True)
        if good and here.state != "finished" and not here.is_gate
    ]
    if changed:
        with state.write() as connection:
            for here in changed:
                set_stage(connection, here.id, state="finished", finished=time.time())
    return all(done)


def finish(workspace: Workspace, state: State, row: CampaignRow) -> Path:
    """Merge the campaign into ``datasets/<name>.h5``; idempotent. An earlier version is replaced in one step."""
    from aiida.orm import Dict

    from matcompute_workflows.functions import merge_campaign

    def inputs() -> dict[str, Any]:
        with state.read() as connection:
            stages = stages_of(connection, row.id)
        settings = {"metadata": metadata_of(row), "stages": [s.name for s in stages]}
        shards = shards_before(state, row, len(stages))
        return {"parameters": Dict(settings), "structures": load(str(row.structures_uuid)), **shards}

    label = f"{row.uuid}/merge/{row.revision + 1}"
    shard = call_once(label, merge_campaign, inputs, extras={"campaign": row.uuid})["dataset"]
    path = workspace.datasets_dir / f"{row.name}.h5"
    _write(shard, path)
    with state.write() as connection:
        set_campaign(
            connection,
            row.id,
            state="finished",
            reason="",
            hint="",
            dataset=str(path),
            dataset_uuid=shard.uuid,
            finished=time.time(),
        )
        finished_event(connection, row, str(path))
    LOGGER.info("campaign '%s' is finished: %s", row.name, path)
    return path


def _write(shard: Any, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True)
        shard.save_as(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MatcomputeError(
            f"cannot write {path}: {error.strerror or error}",
            hint="free disk space or mend the permissions, then: matcompute campaign resume " + path.stem,
        ) from error

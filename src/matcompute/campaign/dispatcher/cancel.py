"""Cancelling: the processes of a campaign and their jobs are killed, its materials are kept as they are."""

from __future__ import annotations

import logging

from matcompute.campaign.dispatcher.nodes import find_process, load
from matcompute.campaign.state import State
from matcompute.campaign.state.batches import batches_of, release_batch
from matcompute.campaign.state.campaigns import CampaignRow, by_id, set_campaign
from matcompute.campaign.state.models import BATCH_COMPUTED, BATCH_UNRECORDED

__all__ = ["cancel"]

LOGGER = logging.getLogger(__name__)


def cancel(state: State, row: CampaignRow) -> bool:
    """Take a step towards the end of a cancelled campaign; return whether it is cancelled."""
    with state.write() as connection:
        if by_id(connection, row.id).wanted != "cancel":
            return False
        for batch in batches_of(connection, row.id, ["planned"]):
            release_batch(connection, batch, state="cancelled", message="cancelled by the user")
    with state.read() as connection:
        batches = batches_of(connection, row.id, BATCH_UNRECORDED)
    alive = []
    for batch in batches:
        if batch.state == BATCH_COMPUTED:
            continue
        process = load(batch.process_uuid) if batch.process_uuid else find_process(batch.label)
        if process is None:
            with state.write() as connection:
                release_batch(connection, batch, state="cancelled", message="cancelled by the user")
        elif not process.is_terminated:
            alive.append(process)
    if alive:
        _kill(alive)
        return False
    if batches:
        return False  # ended: collected in this round, then there are none
    with state.write() as connection:
        if by_id(connection, row.id).wanted != "cancel":
            return False  # taken up again meanwhile
        set_campaign(
            connection,
            row.id,
            state="cancelled",
            reason="cancelled by the user",
            hint=f"matcompute campaign resume {row.name}",
        )
    LOGGER.info("campaign '%s' is cancelled", row.name)
    return True


def _kill(processes: list) -> None:
    from aiida.engine.processes.control import kill_processes

    kill_processes(processes, msg_text="the campaign was cancelled", timeout=10.0)

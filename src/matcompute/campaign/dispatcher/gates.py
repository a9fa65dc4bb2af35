"""Gates: evaluated once for all materials, when nothing can come any more from the stages before."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from matcompute.campaign.dispatcher.definition import definition
from matcompute.campaign.dispatcher.nodes import call_once, load
from matcompute.campaign.state import State
from matcompute.campaign.state.batches import batches_of
from matcompute.campaign.state.campaigns import CampaignRow, StageRow, set_stage, stages_of
from matcompute.campaign.state.flow import complete, propagate, record_gate
from matcompute.dataset import Status

__all__ = ["evaluate_gates", "shards_before"]

LOGGER = logging.getLogger(__name__)


def evaluate_gates(state: State, row: CampaignRow) -> int:
    """Evaluate the gates that are due; return how many."""
    count = 0
    while True:
        with state.read() as connection:
            stages = stages_of(connection, row.id)
            due = _due(connection, stages)
        if due is None:
            return count
        _evaluate(state, row, stages, due)
        count += 1


def _due(connection: Any, stages: Sequence[StageRow]) -> StageRow | None:
    for here in stages:
        if here.is_gate and here.state != "finished":
            ready = here.position == 0 or complete(connection, stages, here.position - 1)
            return here if ready else None
    return None


def _evaluate(state: State, row: CampaignRow, stages: Sequence[StageRow], gate: StageRow) -> None:
    from aiida.orm import Dict, SinglefileData

    from matcompute_workflows.functions import apply_gate

    campaign = definition(row)
    stage = campaign.stage(gate.name)
    with state.write() as connection:
        set_stage(connection, gate.id, state="running", started=time.time())

    def inputs() -> dict[str, Any]:
        settings = {
            "kind": stage.kind,
            "stage": stage.name,
            "parameters": stage.parameters,
            "stages": [s.name for s in stages[: gate.position]],
        }
        given = {"parameters": Dict(settings), "structures": load(str(row.structures_uuid))}
        file = campaign.reference_files.get(gate.name)
        if file is not None:
            given["references"] = SinglefileData(str(file.resolve()))
        return {**given, **shards_before(state, row, gate.position)}

    label = f"{row.uuid}/{gate.name}/{gate.revision + 1}"
    outputs = call_once(label, apply_gate, inputs, extras={"campaign": row.uuid, "stage": gate.name})
    shard = outputs["gate"]
    rows, passed, status = _decisions(load(str(row.structures_uuid)), shard, gate.name)
    with state.write() as connection:
        record_gate(connection, stages, gate.position, rows, passed, status)
        set_stage(
            connection,
            gate.id,
            state="finished",
            gate_uuid=shard.uuid,
            n_considered=len(rows),
            n_passed=int(passed.sum()),
            finished=time.time(),
        )
        propagate(connection, stages_of(connection, row.id), gate.position)
    LOGGER.info("campaign '%s', gate %s: %d of %d passed", row.name, gate.name, int(passed.sum()), len(rows))


def _decisions(structures: Any, shard: Any, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows in the structures file, who passed, and the status of those who did not."""
    with structures.dataset() as dataset:
        everything = np.asarray(dataset.raw_ids)
    with shard.dataset() as dataset:
        ids = np.asarray(dataset.raw_ids)
        passed = np.asarray(dataset.selections[name].mask, dtype=bool)
        status = np.full(len(ids), int(Status.NOT_SELECTED), dtype=np.uint8)
        if "e_above_hull" in dataset.properties:
            missing = np.asarray(dataset.status("e_above_hull")) == int(Status.MISSING_REFERENCE)
            status[missing] = int(Status.MISSING_REFERENCE)
    order = np.argsort(everything, kind="stable")
    rows = order[np.searchsorted(everything[order], ids)] if len(ids) else np.zeros(0, dtype=np.int64)
    return rows, passed, status


def shards_before(state: State, row: CampaignRow, position: int) -> dict[str, Any]:
    """Return the shards of all stages before a position: results of batches, in the order in which they were made,
    and outputs of gates. Of two attempts at a structure, the later one has the later name."""
    with state.read() as connection:
        stages = stages_of(connection, row.id)
        batches = batches_of(connection, row.id, ["finished"])
    before = {s.id: s for s in stages[:position]}
    found: dict[str, Any] = {}
    for batch in batches:
        if batch.stage_id in before and batch.result_uuid:
            found[f"batch_{batch.id}"] = load(batch.result_uuid)
    for here in before.values():
        if here.is_gate and here.gate_uuid:
            found[f"gate_{here.position}"] = load(here.gate_uuid)
    return found

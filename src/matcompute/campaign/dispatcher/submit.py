"""From ready materials to processes: batches are planned, an intent is written, then AiiDA gets them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.campaign.adapters import calculator_adapter
from matcompute.campaign.batches import batch_count, choose_batches
from matcompute.campaign.costs import structure_costs
from matcompute.campaign.dispatcher.definition import definition
from matcompute.campaign.dispatcher.nodes import call_once, find_process, load, tag
from matcompute.campaign.state import State
from matcompute.campaign.state.batches import (
    BatchRow,
    batches_of,
    create_batches,
    members,
    open_batches,
    set_batch,
    spent,
)
from matcompute.campaign.state.campaigns import CampaignRow, StageRow, set_stage, stages_of
from matcompute.campaign.state.flow import complete, ready_count, ready_rows

if TYPE_CHECKING:
    from matcompute.campaign.model import Stage
    from matcompute.centres import RegisteredCentre

__all__ = ["OverBudget", "plan_batches", "submit_batch", "submit_next"]

LOGGER = logging.getLogger(__name__)


class OverBudget(Exception):
    """The campaign may not submit more."""


def plan_batches(state: State, row: CampaignRow, centre: RegisteredCentre) -> int:
    """Put ready materials into planned batches; return how many were made.

    While an earlier stage still delivers, materials are collected until there is work for a whole batch, unless the
    centre would idle.
    """
    made = 0
    with state.read() as connection:
        stages = stages_of(connection, row.id)
        waiting = [here for here in stages if not here.is_gate and ready_count(connection, here.id)]
        idle = not open_batches(connection) and not batches_of(connection, row.id, ["planned"], limit=1)
    for here in waiting:
        stage = definition(row).stage(here.name)
        with state.write() as connection:
            rows, n_sites = ready_rows(connection, here.id)
            costs = structure_costs(stage, n_sites)
            options = {"cores": centre.centre.cores, "cores_per_batch": stage.resources.cores}
            more = here.position > 0 and not complete(connection, stages, here.position - 1)
            if more and not idle and not _worth_a_batch(costs, stage, options):
                continue
            groups = choose_batches(costs, batch_size=stage.batch_size, **options)
            create_batches(
                connection,
                row,
                here,
                centre.centre.id,
                [rows[group] for group in groups],
                [float(costs[group].sum()) for group in groups],
            )
            if here.state == "waiting":
                set_stage(connection, here.id, state="running", started=time.time())
        made += len(groups)
        idle = False
    return made


def _worth_a_batch(costs: np.ndarray, stage: Stage, options: dict[str, int]) -> bool:
    return batch_count(float(costs.sum()), len(costs), batch_size=stage.batch_size, **options) > 1


def submit_next(
    state: State,
    rows: Sequence[CampaignRow],
    centre: RegisteredCentre,
    ready: Callable[[], None],
) -> tuple[int, list[CampaignRow]]:
    """Fill the centre's window, one batch of each campaign in turn.

    Parameters
    ----------
    state
        The tables.
    rows
        Campaigns that may submit.
    centre
        Where to.
    ready
        Called before the first submission; returns when the daemon answers.

    Returns
    -------
    n
        Batches submitted.
    over
        Campaigns whose budget is used up.
    """
    count, over = 0, []
    queue = list(rows)
    while queue:
        with state.read() as connection:
            room = centre.centre.window - len(open_batches(connection, centre.centre.id))
        if room <= 0:
            break
        row = queue.pop(0)
        with state.read() as connection:
            (batch,) = batches_of(connection, row.id, ["planned"], limit=1) or [None]  # type: ignore[list-item]
            used, expected = spent(connection, row.id)
        if batch is None:
            continue
        if row.budget_core_s is not None and used + expected >= row.budget_core_s:
            if used >= row.budget_core_s:
                over.append(row)
            continue
        ready()
        submit_batch(state, row, batch, centre)
        count += 1
        queue.append(row)
    return count, over


def submit_batch(state: State, row: CampaignRow, batch: BatchRow, centre: RegisteredCentre) -> None:
    """Give a planned batch to AiiDA, or find that it was given already.

    The intent is written first. After a crash at any point this is called again: the shard is found by its label, and
    so is the process.
    """
    with state.write() as connection:
        set_batch(connection, batch.id, state="intent")
        stages = stages_of(connection, row.id)
    here = next(s for s in stages if s.id == batch.stage_id)
    process = find_process(batch.key)
    if process is None:
        process = _submit(state, row, stages, here, batch, centre)
    tag(process, {"campaign": row.uuid, "stage": here.name, "batch": batch.number, "key": batch.key})
    with state.write() as connection:
        set_batch(
            connection,
            batch.id,
            state="submitted",
            process_uuid=process.uuid,
            input_uuid=process.inputs.batch.shard.uuid,
            submitted=time.time(),
        )
    LOGGER.info("batch %s: %d structures, process %d", batch.key, batch.n_total, process.pk)


def _submit(
    state: State,
    row: CampaignRow,
    stages: Sequence[StageRow],
    here: StageRow,
    batch: BatchRow,
    centre: RegisteredCentre,
) -> Any:
    from aiida.engine import submit

    from matcompute_workflows import build_batch

    shard = _shard(state, row, stages, here, batch)
    stage = definition(row).stage(here.name)
    builder = build_batch(
        centre,
        shard,
        task_of(stage),
        label=batch.key,
        resources=_resources(stage),
        description=f"campaign {row.name}, stage {here.name}, batch {batch.number}",
    )
    return submit(builder)


def _shard(
    state: State, row: CampaignRow, stages: Sequence[StageRow], here: StageRow, batch: BatchRow
) -> Any:
    """Return the input shard of a batch: rows of the structures, or of what the stage before gave."""
    from aiida.orm import ArrayData

    from matcompute_workflows.functions import take_rows

    def inputs() -> dict[str, Any]:
        with state.read() as connection:
            found = members(connection, stages, here.position, batch.id)
            results = {b.id: b.result_uuid for b in batches_of(connection, row.id, ["finished"])}
        order = sorted({int(parent) for parent in found.parents})
        place = {parent: k for k, parent in enumerate(order)}
        uuids = [row.structures_uuid if parent == -1 else results[parent] for parent in order]
        pairs = np.stack([[place[int(p)] for p in found.parents], found.parent_rows], axis=1)
        rows = ArrayData()
        rows.set_array("rows", pairs.astype(np.int64))
        return {"rows": rows, **{f"parent_{k}": load(str(uuid)) for k, uuid in enumerate(uuids)}}

    outputs = call_once(
        f"{batch.key}/input", take_rows, inputs, extras={"campaign": row.uuid, "key": batch.key}
    )
    return outputs["result"]


def task_of(stage: Stage) -> dict[str, Any]:
    """Return the ``task`` input of a batch: what decides the numbers, the weights' digest included."""
    assert stage.calculator is not None
    adapter = calculator_adapter(stage.calculator.name)
    digest = getattr(adapter, "model_sha256", None)
    return {
        "task": stage.kind,
        "parameters": stage.parameters,
        "calculator": {
            "name": stage.calculator.name,
            "parameters": stage.calculator.parameters,
            "model_sha256": digest(stage.calculator.parameters) if callable(digest) else digest,
        },
        "stage": stage.name,
    }


def _resources(stage: Stage) -> dict[str, Any]:
    wanted = stage.resources
    return {
        "ranks": wanted.ranks,
        "processes": wanted.processes,
        "threads": wanted.threads,
        "gpus": wanted.gpus,
        "memory_gb": wanted.memory,
        "walltime_s": wanted.walltime,
    }

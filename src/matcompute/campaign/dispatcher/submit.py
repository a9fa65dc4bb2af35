"""From ready materials to processes: batches are planned, an intent is written, then AiiDA gets them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.campaign.adapters import calculator_adapter, is_per_structure, stage_parameters
from matcompute.campaign.batches import PER_SLOT, TARGET_S, batch_count, choose_batches
from matcompute.campaign.costs import batch_limit, structure_costs
from matcompute.campaign.dispatcher.definition import definition
from matcompute.campaign.dispatcher.nodes import call_once, find_process, load, tag
from matcompute.campaign.dispatcher.placing import Capacity, Place, Turn, capacity, take_turn
from matcompute.campaign.dispatcher.structures import prepared, start
from matcompute.campaign.dispatcher.withdrawals import parent_folder
from matcompute.campaign.placement import workload
from matcompute.campaign.state import State, StateError
from matcompute.campaign.state.batches import (
    BatchRow,
    batches_of,
    create_batches,
    members,
    open_batches,
    set_batch,
)
from matcompute.campaign.state.campaigns import CampaignRow, StageRow, set_stage, stages_of
from matcompute.campaign.state.centres import note_submission
from matcompute.campaign.state.flow import complete, ready_count, ready_rows
from matcompute.campaign.state.models import BATCH_UNRECORDED
from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from matcompute.campaign.dispatcher.pool import Pool
    from matcompute.campaign.model import Stage
    from matcompute.centres import RegisteredCentre

__all__ = ["plan_batches", "submit_batch", "submit_next"]

LOGGER = logging.getLogger(__name__)


#: Work of the first batches of a stage whose cost was never measured, in s of wall time.
PROBE_S = 60.0


def plan_batches(state: State, row: CampaignRow, pool: Pool) -> int:
    """Put ready materials into planned batches; return how many were made.

    While an earlier stage still delivers, materials are collected until there is work for a whole batch, unless the
    centres would idle. Where nothing was ever measured, a few small batches go first: what they cost decides the size
    of the others.
    """
    made = 0
    with state.read() as connection:
        stages = stages_of(connection, row.id)
        waiting = [here for here in stages if not here.is_gate and ready_count(connection, here.id)]
        if not waiting:
            return 0
        idle = not open_batches(connection) and not batches_of(connection, row.id, ["planned"], limit=1)
        busy = {b.stage_id for b in batches_of(connection, row.id, ["planned", *BATCH_UNRECORDED])}
        situation = pool.situation(connection)
    for here in waiting:
        stage = definition(row).stage(here.name)
        room = capacity(row, stage, situation)
        if here.id in busy and here.id in pool.probing and room.factor is None:
            continue  # the first batches tell how large the others should be
        with state.write() as connection:
            rows, n_sites = ready_rows(connection, here.id)
            estimates = structure_costs(stage, n_sites)
            costs = estimates * (room.factor or 1.0)
            options = {"cores": room.cores, "cores_per_batch": room.per_batch}
            options["max_size"] = batch_limit(stage, n_sites)
            single = is_per_structure(stage)
            more = here.position > 0 and not complete(connection, stages, here.position - 1)
            if not single and more and not idle and not _worth_a_batch(costs, stage, options):
                continue
            groups = _groups(costs, stage, room, options, here.id, pool)
            create_batches(
                connection,
                row,
                here,
                "",
                [rows[group] for group in groups],
                [float(estimates[group].sum()) for group in groups],
                workload=workload(stage),
                single=single,
                jobs=stage_jobs(stage) if single else 1,
            )
            if here.state == "waiting":
                set_stage(connection, here.id, state="running", started=time.time())
        made += len(groups)
        idle = False
    return made


def _groups(
    costs: np.ndarray, stage: Stage, room: Capacity, options: dict[str, int], stage_id: int, pool: Pool
) -> list[np.ndarray]:
    """Return which materials are computed together."""
    if is_per_structure(stage):
        # The costliest first: it would be the last to end.
        return [np.array([k]) for k in np.argsort(-costs, kind="stable").tolist()]
    chosen = _probe(costs, stage, room, options["max_size"]) if room.factor is None else None
    if chosen is None:
        pool.probing.discard(stage_id)
        return choose_batches(costs, batch_size=stage.batch_size, **options)
    pool.probing.add(stage_id)
    return chosen


def stage_jobs(stage: Stage) -> int:
    """Return the jobs that a structure of a per-structure stage may have in flight at once."""
    assert stage.calculator is not None
    _, parameters = stage_parameters(stage)
    return int(calculator_adapter(stage.calculator.name).jobs(stage.kind, parameters))


def _worth_a_batch(costs: np.ndarray, stage: Stage, options: dict[str, int]) -> bool:
    return batch_count(float(costs.sum()), len(costs), batch_size=stage.batch_size, **options) > 1


def _probe(costs: np.ndarray, stage: Stage, room: Capacity, max_size: int) -> list[np.ndarray] | None:
    """Return a first wave of small batches, one a slot; None where their cost would change nothing.

    At one centre that is work of which each slot gets its few batches whatever they cost: cores would only wait between
    the first wave and the next.
    """
    slots = max(1, min(room.slots, room.cores // room.per_batch))
    wave = PROBE_S * room.per_batch * slots
    least = 4 * wave if room.centres > 1 else PER_SLOT * TARGET_S * room.per_batch * slots
    if stage.batch_size is not None or float(costs.sum()) < least:
        return None
    # An even sample of the materials: sizes of all kinds.
    count = max(slots, int(np.searchsorted(np.cumsum(costs), wave)))
    sample = np.unique(np.linspace(0, len(costs) - 1, min(count, len(costs))).astype(int))
    groups = choose_batches(costs[sample], count=min(slots, len(sample)), max_size=max_size)
    return [sample[group] for group in groups]


def submit_next(
    state: State,
    rows: Sequence[CampaignRow],
    pool: Pool,
    ready: Callable[[], None],
    failed: Callable[[CampaignRow, Exception], None],
    *,
    at_most: int = 16,
) -> tuple[int, Turn]:
    """Submit planned batches where routing and limits let them go, one of each campaign in turn.

    Parameters
    ----------
    state
        The tables.
    rows
        Campaigns that may submit.
    pool
        The centres.
    ready
        Called before a submission; returns when the daemon answers.
    failed
        Told of a campaign that cannot submit; its batch is planned again.
    at_most
        Batches submitted before the dispatcher looks around again.

    Returns
    -------
    n
        Batches submitted.
    turn
        With the campaigns whose budget is used up, or that can go nowhere.
    """
    turn = take_turn(state, rows, pool)
    count, out = 0, set()
    for place in turn.places[:at_most]:
        if place.row.id in out:
            continue
        try:
            ready()
            submit_batch(state, place, pool.registered(place.centre))
        except StateError:
            raise  # nothing can be recorded: the dispatcher itself must end
        except Exception as error:
            _plan_again(state, place.batch)
            out.add(place.row.id)
            failed(place.row, error)
            continue
        count += 1
    return count, turn


def _plan_again(state: State, batch: BatchRow) -> None:
    """Take an intent back; should the process be there all the same, the next submission finds it."""
    with state.write() as connection:
        set_batch(connection, batch.id, state="planned")


def submit_batch(state: State, place: Place, centre: RegisteredCentre) -> None:
    """Give a planned batch to AiiDA, or find that it was given already.

    The intent is written first. After a crash at any point this is called again: the shard is found by its label, and
    so is the process.
    """
    row, batch = place.row, place.batch
    if batch.single:
        with state.read() as connection:
            stages = stages_of(connection, row.id)
        here = next(s for s in stages if s.id == batch.stage_id)
        batch = prepared(state, batch, row, stages, here, place.stage)
        place = replace(place, batch=batch)
    with state.write() as connection:
        set_batch(
            connection,
            batch.id,
            state="intent",
            centre=place.centre,
            partition=place.partition,
            project=place.project,
            expected_s=place.core_s,
        )
        note_submission(
            connection,
            batch_id=batch.id,
            campaign_id=row.id,
            attempt=batch.attempts,
            centre_id=place.centre,
            partition=place.partition,
            project=place.project,
            why=place.why,
        )
        stages = stages_of(connection, row.id)
    here = next(s for s in stages if s.id == batch.stage_id)
    if batch.single:
        start(state, place, here, centre)
        return
    process = find_process(batch.label)
    if process is None:
        process = _submit(state, place, stages, here, centre)
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
    LOGGER.info(
        "batch %s: %d structures, process %d, centre %s (%s)",
        batch.label,
        batch.n_total,
        process.pk,
        place.centre,
        place.partition,
    )


def _submit(
    state: State, place: Place, stages: Sequence[StageRow], here: StageRow, centre: RegisteredCentre
) -> Any:
    from aiida.engine import submit

    from matcompute_workflows import build_batch

    row, batch = place.row, place.batch
    shard = _shard(state, row, stages, here, batch)
    parent = parent_folder(batch)
    builder = build_batch(
        centre,
        shard,
        task_of(place.stage),
        parent=parent if parent is not None and parent.computer.pk == centre.computer.pk else None,
        label=batch.label,
        resources=_resources(place, centre),
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
    content = {"task": stage.kind, "parameters": stage.parameters, "stage": stage.name}
    if stage.calculator is None:
        return content
    adapter = calculator_adapter(stage.calculator.name)
    digest = getattr(adapter, "model_sha256", None)
    try:
        weights = digest(stage.calculator.parameters) if callable(digest) else digest
    except OSError as error:
        raise MatcomputeError(
            f"the model of '{stage.calculator.name}' cannot be read: {error.strerror}: {error.filename}",
            hint="put the file in place",
        ) from error
    calculator = {
        "name": stage.calculator.name,
        "parameters": stage.calculator.parameters,
        "model_sha256": weights,
    }
    return {**content, "calculator": calculator}


def _resources(place: Place, centre: RegisteredCentre) -> dict[str, Any]:
    wanted = place.stage.resources
    found = {
        "ranks": wanted.ranks,
        "processes": place.processes,
        "threads": wanted.threads,
        "gpus": wanted.gpus,
        "memory_gb": wanted.memory,
        "walltime_s": place.walltime_s,
    }
    if not centre.centre.is_local:
        found |= {"partition": place.partition, "account": place.project or None}
    return found

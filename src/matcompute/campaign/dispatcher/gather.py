"""From processes of single structures that have ended to result shards that hold many of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

from matcompute.campaign.adapters import calculator_adapter
from matcompute.campaign.dispatcher.definition import definition
from matcompute.campaign.dispatcher.jobs import job_rows
from matcompute.campaign.dispatcher.nodes import call_once, load
from matcompute.campaign.dispatcher.structures import rows_and_parents, task_input
from matcompute.campaign.events import budget_events
from matcompute.campaign.resolution import facts_of
from matcompute.campaign.state import State, StateError
from matcompute.campaign.state.batches import BatchRow, batches_of
from matcompute.campaign.state.campaigns import CampaignRow, by_id, stages_of
from matcompute.campaign.state.centres import clear_blocks, submissions_of
from matcompute.campaign.state.structures import computed, plan_anew, record_structures, set_computed
from matcompute.campaign.state.usage import note_job
from matcompute.dataset import Status

if TYPE_CHECKING:
    from matcompute.campaign.model import Stage

__all__ = ["MOST_ATTEMPTS", "Verdict", "conclude", "gather"]

LOGGER = logging.getLogger(__name__)
#: Processes that a structure may have.
MOST_ATTEMPTS = 4
#: Structures whose results are written together, and how long the first of them waits for the others, in s.
GROUP, PATIENCE_S = 64, 30.0
#: So many structures of a stage that crash, and none that ends well: the cause is not in the structures.
HOPELESS = 5


class Verdict:
    """What became of a process that has ended."""

    def __init__(self, again: bool, hopeless: str = "") -> None:
        self.again, self.hopeless = again, hopeless


def conclude(state: State, batch: BatchRow, process: Any) -> Verdict:
    """Note how the process of a structure has ended, or plan another attempt with the remedy for what went wrong."""
    from matcompute_workflows.dft.adapter import Remedy

    with state.read() as connection:
        row = by_id(connection, batch.campaign_id)
        here = next(s for s in stages_of(connection, row.id) if s.id == batch.stage_id)
    stage = definition(row).stage(here.name)
    assert stage.calculator is not None
    adapter = calculator_adapter(stage.calculator.name)
    outcome = adapter.outcome(process, Remedy(**(batch.remedy or {})))
    jobs = job_rows(process)
    core_s = sum(float(job["core_s"]) for job in jobs)
    again = outcome.again is not None and batch.attempts + 1 < MOST_ATTEMPTS
    with state.write() as connection:
        for job in jobs:
            note_job(connection, batch, **job)
        if again:
            plan_anew(
                connection,
                batch,
                remedy=outcome.again.as_dict(),
                message=outcome.message,
                core_s=core_s,
            )
        else:
            set_computed(
                connection,
                batch,
                status=outcome.status,
                message=outcome.message,
                core_s=core_s,
                exit_status=process.exit_status,
            )
            if outcome.status == int(Status.OK):
                clear_blocks(connection, batch.centre, batch.workload, before=batch.submitted)
        hopeless = _hopeless(connection, batch) if outcome.status == int(Status.CRASHED) else False
        budget_events(connection, by_id(connection, row.id))
    if again:
        LOGGER.warning("structure %s: %s; another attempt", batch.label, outcome.message)
    else:
        LOGGER.info("structure %s: %s", batch.label, Status(outcome.status).label)
    return Verdict(again, outcome.message if hopeless else "")


def _hopeless(connection: Any, batch: BatchRow) -> bool:
    """Tell whether nothing has ever gone well in a stage, and the last structures have all crashed."""
    ended = batches_of(connection, batch.campaign_id, ["finished", "computed"], stage_id=batch.stage_id)
    found = [int((item.outcome or {}).get("status", 0)) for item in ended]
    return int(Status.OK) not in found and found.count(int(Status.CRASHED)) == HOPELESS


def gather(state: State, failed: Callable[[BatchRow, Exception], None], skip: Container[int] = ()) -> int:
    """Write the results of structures that have ended, many at once; return how many.

    They are written when there are enough of them, when the first has waited long enough, and at once where nothing
    else of their campaign is waiting to be submitted: then the next stage could use the time.
    """
    with state.read() as connection:
        ended = [batch for batch in computed(connection) if batch.id not in skip]
        if not ended:
            return 0
        groups: dict[tuple[int, int], list[BatchRow]] = {}
        for batch in ended:
            groups.setdefault((batch.campaign_id, batch.stage_id), []).append(batch)
        planned = {
            campaign_id: bool(batches_of(connection, campaign_id, ["planned"], limit=1))
            for campaign_id, _ in groups
        }
    count = 0
    now = time.time()
    for (campaign_id, _), batches in groups.items():
        oldest = min(batch.finished or now for batch in batches)
        if planned[campaign_id] and len(batches) < GROUP and now - oldest < PATIENCE_S:
            continue
        chosen = batches[:GROUP]
        try:
            _write(state, campaign_id, chosen)
            count += len(chosen)
        except StateError:
            raise  # nothing can be recorded: the dispatcher itself must end
        except Exception as error:
            failed(chosen[0], error)
    return count


def _write(state: State, campaign_id: int, batches: Sequence[BatchRow]) -> None:
    from aiida.orm import Dict

    from matcompute_workflows.dft.functions import gather_structures

    with state.read() as connection:
        row = by_id(connection, campaign_id)
        stages = stages_of(connection, row.id)
    here = next(s for s in stages if s.id == batches[0].stage_id)
    stage = definition(row).stage(here.name)
    assert stage.calculator is not None
    adapter = calculator_adapter(stage.calculator.name)

    def inputs() -> dict[str, Any]:
        rows, parents = rows_and_parents(state, row, stages, here, batches)
        nodes: dict[str, Any] = {}
        for k, batch in enumerate(batches):
            if batch.process_uuid is not None:
                for name, node in adapter.outputs(load(batch.process_uuid)).items():
                    nodes[f"p{k}_{name}"] = node
        told = [
            {**(batch.outcome or {}), "attempt": batch.attempts + 1, "core_s": batch.core_s}
            for batch in batches
        ]
        return {
            "task": Dict(task_input(stage, _species(row))),
            "rows": rows,
            "outcomes": Dict({"outcomes": told}),
            **parents,
            **nodes,
        }

    numbers = [batch.number for batch in batches]
    label = f"{row.uuid}/{here.name}/results/{numbers[0]}-{numbers[-1]}x{len(numbers)}"
    extras = {"campaign": row.uuid, "stage": here.name}
    shard = call_once(label, gather_structures, inputs, extras=extras)["result"]
    with state.write() as connection:
        record_structures(connection, stages, here.position, batches, shard.uuid)
    LOGGER.info("campaign '%s', stage %s: results of %d structures", row.name, here.name, len(batches))
    _clean(state, stage, batches)


def _species(row: CampaignRow) -> tuple[str, ...]:
    return facts_of(row.ingest_report or {})[0]


def _clean(state: State, stage: Stage, batches: Sequence[BatchRow]) -> None:
    """Remove the folders of structures that ended well, earlier attempts' too, where the stage wants that."""
    from matcompute_workflows.dft.jobs import clean_folders

    assert stage.calculator is not None
    if stage.calculator.parameters.get("remote", "clean") != "clean":
        return
    well = [batch.id for batch in batches if (batch.outcome or {}).get("status") == int(Status.OK)]
    with state.read() as connection:
        processes = [row["process_uuid"] for row in submissions_of(connection, well)]
    try:
        clean_folders([uuid for uuid in processes if uuid])
    except Exception as error:
        # The results are safe: what is left behind is scratch, which the centre purges.
        LOGGER.warning("folders at the centre are not removed: %s", error)

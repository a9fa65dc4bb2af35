"""From processes that have ended to recorded materials; and how far those are that have not."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.campaign.dispatcher.gather import conclude
from matcompute.campaign.dispatcher.jobs import job_rows
from matcompute.campaign.dispatcher.nodes import find_process, load, process_states
from matcompute.campaign.events import budget_events, stopped_event
from matcompute.campaign.state import State, StateError
from matcompute.campaign.state.batches import (
    BatchRow,
    open_batches,
    record_batch,
    release_batch,
    reroute_batch,
    set_batch,
)
from matcompute.campaign.state.campaigns import by_id, set_campaign, stages_of
from matcompute.campaign.state.centres import add_block, clear_blocks, end_submission, is_rerouted
from matcompute.campaign.state.models import CAMPAIGN_ACTIVE
from matcompute.campaign.state.usage import note_job
from matcompute.dataset import Dataset, Status
from matcompute.dataset.descriptors import descriptor_status
from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["collect", "entry_status", "note_progress"]

LOGGER = logging.getLogger(__name__)
#: Exit status of the work chain → what to do. These hit every further batch: the campaign waits for a person.
REMEDIES: dict[int, str] = {
    410: "the shard or the task file was refused; if it repeats, report it with the job's node.err",
    411: "put the model file in place (the same SHA-256), then resume",
    412: "install the missing package for the node program, then resume",
    413: "free disk space or make the scratch folder writable, then resume",
    414: "read the job's node.err (verdi calcjob outputcat), then resume",
    415: "check the disk; resume computes the batch again from its checkpointed results where they are sound",
    420: "ask for more memory or fewer processes in the stage's resources (run under another name), then resume",
    422: "ask the centre's staff why it ends your jobs, then resume",
    421: "give the stage a longer walltime (run under another name), then resume",
}


@dataclass(frozen=True)
class _End:
    """How a process ended."""

    exit_status: int
    message: str
    core_s: float
    result: Any
    jobs: tuple[dict[str, Any], ...] = ()
    killed: bool = False


#: Causes that may be a centre's alone: another one may do better. Scope: of the whole centre, or of this workload.
ELSEWHERE: dict[int, str] = {
    411: "workload",
    412: "workload",
    413: "centre",
    414: "workload",
    415: "workload",
    420: "workload",
    421: "workload",
    422: "centre",
}


def collect(
    state: State,
    failed: Callable[[BatchRow, Exception], None],
    skip: Container[int] = (),
    elsewhere: Callable[[BatchRow], bool] = lambda _: False,
    settled: Callable[[BatchRow, Any], bool | None] = lambda _batch, _process: False,
) -> int:
    """Record every batch whose process has ended; return how many there were.

    Parameters
    ----------
    state
        The tables.
    failed
        Told of a batch that cannot be recorded.
    skip
        Ids of batches to leave alone.
    elsewhere
        Whether another centre than the batch's takes its work now.
    settled
        Whether jobs of a killed process had begun; None while some may still run, then the batch is left open.
    """
    with state.read() as connection:
        batches = [b for b in open_batches(connection) if b.process_uuid and b.id not in skip]
    states = process_states(b.process_uuid for b in batches if b.process_uuid)
    count = 0
    for batch in batches:
        found = states.get(str(batch.process_uuid))
        if found is not None and not found[1]:
            continue
        try:
            if found is None:
                _vanished(state, batch)
                count += 1
            else:
                count += _record(state, batch, elsewhere, settled)
        except StateError:
            raise  # nothing can be recorded: the dispatcher itself must end
        except Exception as error:
            failed(batch, error)
    return count


def _record(
    state: State,
    batch: BatchRow,
    elsewhere: Callable[[BatchRow], bool],
    settled: Callable[[BatchRow, Any], bool | None],
) -> bool:
    """Record a batch whose process has ended; return whether it could be."""
    process = load(str(batch.process_uuid))
    if batch.single and not process.is_killed:
        verdict = conclude(state, batch, process)
        if verdict.hopeless:
            end = _End(414, f"the first structures have all crashed: {verdict.hopeless}", 0.0, None)
            with state.write() as connection:
                _stop(connection, batch, end, elsewhere(batch))
        return True
    begun = settled(batch, process) if process.is_killed else False
    if begun is None:
        return False
    end = _end(process)
    with state.write() as connection:
        cancelled = by_id(connection, batch.campaign_id).wanted == "cancel"
        moved = end.killed and not cancelled and is_rerouted(connection, batch.id)
        for job in end.jobs:
            note_job(connection, batch, **job)
        if moved:
            # The same batch goes to another centre; what had begun after all goes on where it has begun.
            reroute_batch(connection, batch, end.core_s, begun=begun)
    if moved:
        what = "goes on there from what it had begun" if begun else "goes to another one"
        LOGGER.info("batch %s was taken back from centre %s and %s", batch.label, batch.centre, what)
        return True
    if end.result is None:
        _give_back(state, batch, end, cancelled, elsewhere)
        return True
    try:
        status, messages = entry_status(end.result)
    except (MatcomputeError, OSError, KeyError, ValueError) as error:
        text = f"the result shard of batch {batch.key} cannot be read: {error}"
        _give_back(state, batch, replace(end, exit_status=415, message=text, result=None), False, elsewhere)
        return True
    again = np.zeros(len(status), dtype=bool)
    if end.exit_status in REMEDIES:
        # Nobody knows whether these structures are bad: they are computed again on resume.
        again = np.isin(status, (int(Status.LOST), int(Status.NOT_ATTEMPTED)))
    other = end.exit_status in ELSEWHERE and elsewhere(batch)
    with state.write() as connection:
        stages = stages_of(connection, batch.campaign_id)
        position = next(s.position for s in stages if s.id == batch.stage_id)
        record_batch(
            connection,
            stages,
            position,
            batch,
            result_uuid=end.result.uuid,
            status=status,
            messages=messages,
            core_s=end.core_s,
            exit_status=end.exit_status,
            message=end.message,
            again=again,
        )
        end_submission(
            connection,
            batch.id,
            "failed" if end.exit_status in REMEDIES else "finished",
            end.message,
            batch.process_uuid,
        )
        if end.exit_status in REMEDIES:
            _stop(connection, batch, end, other)
        else:
            clear_blocks(connection, batch.centre, batch.workload, before=batch.submitted)
        budget_events(connection, by_id(connection, batch.campaign_id))
    LOGGER.info("batch %s: exit status %d, %d structures", batch.key, end.exit_status, len(status))
    return True


def _give_back(
    state: State, batch: BatchRow, end: _End, cancelled: bool, elsewhere: Callable[[BatchRow], bool]
) -> None:
    """Close a batch that gave nothing: its materials are ready again, for another centre or for a person."""
    LOGGER.warning("batch %s ended without results: %s", batch.label, end.message)
    other = not cancelled and end.exit_status in ELSEWHERE and elsewhere(batch)
    with state.write() as connection:
        outcome = "cancelled" if cancelled else "failed"
        release_batch(
            connection,
            batch,
            state=outcome,
            message=end.message,
            exit_status=end.exit_status,
            core_s=end.core_s,
        )
        end_submission(connection, batch.id, outcome, end.message, batch.process_uuid)
        if not cancelled:
            _stop(connection, batch, end, other)


def _stop(connection: Connection, batch: BatchRow, end: _End, other: bool) -> None:
    """Leave the centre alone for a while if another one can go on; else the campaign waits for a person."""
    row = by_id(connection, batch.campaign_id)
    what = REMEDIES.get(
        end.exit_status, "look at it with: matcompute verdi process report " + str(batch.process_uuid)
    )
    if other:
        scope = "" if ELSEWHERE[end.exit_status] == "centre" else batch.workload
        block = add_block(connection, batch.centre, scope, f"{end.message} ({what})")
        LOGGER.error(
            "centre '%s' is left alone%s for %.0f s: %s",
            batch.centre,
            f" for {scope}" if scope else "",
            block.until - block.created,
            end.message,
        )
        return
    if row.state not in CAMPAIGN_ACTIVE:
        return
    LOGGER.error("campaign '%s' stops: %s", row.name, end.message)
    set_campaign(
        connection,
        row.id,
        state="stopped",
        reason=end.message,
        hint=f"{what}: matcompute campaign resume {row.name}",
    )
    stopped_event(connection, row, end.message, f"{what}: matcompute campaign resume {row.name}")


def _vanished(state: State, batch: BatchRow) -> None:
    """The node is not in the profile any more (deleted by hand): the batch is planned anew."""
    with state.write() as connection:
        release_batch(
            connection, batch, state="failed", message="its process was deleted from the AiiDA profile"
        )
        end_submission(connection, batch.id, "failed", "its process was deleted from the AiiDA profile")


def _end(node: Any) -> _End:
    if node.is_excepted:
        lines = [line for line in str(node.exception or "").splitlines() if line.strip()]
        status, message = 414, f"the AiiDA process failed: {lines[-1] if lines else 'no message'}"
    elif node.is_killed:
        status, message = -1, "the AiiDA process was killed"
    else:
        status, message = int(node.exit_status or 0), str(node.exit_message or "")
    jobs = job_rows(node)
    core_s = sum(float(job["core_s"]) for job in jobs)
    return _End(
        status, message, core_s, getattr(node.outputs, "results", None), tuple(jobs), bool(node.is_killed)
    )


def entry_status(shard: Any) -> tuple[np.ndarray, list[str | None]]:
    """Return what became of each entry of a result shard, and why: the worst status of its columns."""
    with shard.dataset() as dataset:
        return _entry_status(dataset)


def _entry_status(dataset: Dataset) -> tuple[np.ndarray, list[str | None]]:
    n = len(dataset)
    worst = np.full(n, int(Status.NOT_ATTEMPTED), dtype=np.uint8)
    # The processor time is known of failed structures as well.
    columns = [np.asarray(dataset.status(name)) for name in dataset.properties if name != "cpu_time"]
    columns += [descriptor_status(dataset, name) for name in dataset.descriptors]
    for column in columns:
        bad = (column != int(Status.OK)) & (column != int(Status.NOT_ATTEMPTED))
        worst = np.where(bad & (worst <= int(Status.OK)), column, worst)
        good = (column == int(Status.OK)) & (worst == int(Status.NOT_ATTEMPTED))
        worst = np.where(good, column, worst)
    # The worker's account is complete: what was not attempted although the job ended is lost.
    worst = np.where(worst == int(Status.NOT_ATTEMPTED), int(Status.LOST), worst)
    messages = [str(text) or None for text in dataset.entry_column("message")]
    return worst, messages


def note_progress(state: State, folders: dict[int, Path]) -> None:
    """Note how many structures the running jobs have finished, as far as their folders are on this machine.

    Parameters
    ----------
    state
        The tables.
    folders
        Batch id → folder of its newest job; filled here, kept by the caller.
    """
    with state.read() as connection:
        batches = [b for b in open_batches(connection) if b.process_uuid and not b.single]
    missing = [b for b in batches if not _fresh(folders.get(b.id))]
    if missing:
        folders.update(_job_folders(missing))
    changes = []
    for batch in batches:
        summary = _summary(folders.get(batch.id))
        counts = summary.get("counts", {})
        done = sum(int(v) for key, v in counts.items() if key != Status.NOT_ATTEMPTED.label)
        if done > batch.n_done:
            failed = done - int(counts.get(Status.OK.label, 0))
            changes.append((batch.id, done, failed))
    if changes:
        with state.write() as connection:
            for batch_id, done, failed in changes:
                set_batch(connection, batch_id, n_done=done, n_failed=failed)


def _fresh(folder: Path | None) -> bool:
    """Whether the newest job that we know may still be running."""
    if folder is None:
        return False
    return not (folder / "exit_status").exists()


def _summary(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    try:
        data = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _job_folders(batches: list[BatchRow]) -> dict[int, Path]:
    from aiida.orm import CalcJobNode, QueryBuilder, WorkChainNode

    by_uuid = {b.process_uuid: b.id for b in batches}
    query = QueryBuilder()
    query.append(WorkChainNode, filters={"uuid": {"in": list(by_uuid)}}, project="uuid", tag="chain")
    query.append(CalcJobNode, with_incoming="chain", project=["id", "attributes.remote_workdir"], tag="job")
    query.order_by({"job": {"id": "asc"}})
    return {by_uuid[uuid]: Path(folder) for uuid, _, folder in query.all() if folder}


def find_lost_submissions(state: State) -> list[BatchRow]:
    """Return batches whose intent was written but whose submission was not; those found in AiiDA are stamped."""
    with state.read() as connection:
        intents = [b for b in open_batches(connection) if b.state == "intent"]
    lost = []
    for batch in intents:
        process = find_process(batch.label)
        if process is None:
            lost.append(batch)
        else:
            with state.write() as connection:
                set_batch(connection, batch.id, state="submitted", process_uuid=process.uuid)
    return lost

"""When a centre goes down or drains: work that has not begun there goes elsewhere; when it is back, work goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matcompute.campaign.state import State
from matcompute.campaign.state.batches import BatchRow, open_batches
from matcompute.campaign.state.centres import CentreRow, end_submission, is_rerouted

if TYPE_CHECKING:
    from matcompute.workspace import Workspace

__all__ = [
    "MOST_REROUTED",
    "JobLook",
    "jobs_in_flight",
    "play_paused",
    "take_back",
    "to_take_back",
    "waiting_batches",
]

LOGGER = logging.getLogger(__name__)
#: Times that a batch is taken back; then it waits where it is.
MOST_REROUTED = 4


@dataclass(frozen=True)
class JobLook:
    """The newest job of a batch in AiiDA.

    Attributes
    ----------
    count
        Jobs that the batch has had.
    job_id
        The scheduler's number; None: the scheduler has not got it.
    scheduler_state, state
        AiiDA's words: queued, running, …; uploading, submitting, withscheduler, retrieving, …
    uuid
        Of its node.
    """

    count: int
    job_id: str | None
    scheduler_state: str | None
    state: str | None
    uuid: str | None = None

    @property
    def handed_over(self) -> bool:
        """Whether the scheduler may have it."""
        return self.job_id is not None or self.state not in (None, "uploading")

    @property
    def begun(self) -> bool:
        """Whether anything may have been computed."""
        if self.count > 1:
            return True
        if not self.handed_over:
            return False
        return self.job_id is None or self.scheduler_state not in ("queued", "queued held")


def jobs_in_flight(batches: Iterable[BatchRow]) -> dict[int, JobLook]:
    """Return what AiiDA knows of the newest job of each batch, in one query for each depth of work chains."""
    from aiida.orm import CalcJobNode, QueryBuilder, WorkChainNode

    batches = list(batches)
    by_uuid = {b.process_uuid: b.id for b in batches if b.process_uuid}
    found = {batch_id: JobLook(0, None, None, None) for batch_id in by_uuid.values()}
    if not by_uuid:
        return found
    rows = []
    for depth in range(2 if any(b.single for b in batches) else 1):
        query = QueryBuilder()
        query.append(WorkChainNode, filters={"uuid": {"in": list(by_uuid)}}, project="uuid", tag="chain")
        caller = "chain"
        if depth:
            # The work chain of a code may call another one, which calls the jobs.
            query.append(WorkChainNode, with_incoming="chain", tag="inner")
            caller = "inner"
        query.append(
            CalcJobNode,
            with_incoming=caller,
            project=["id", "attributes.job_id", "attributes.scheduler_state", "attributes.state", "uuid"],
            tag="job",
        )
        rows += query.all()
    for uuid, _, job_id, scheduler_state, state, job in sorted(rows, key=lambda item: item[1]):
        batch_id = by_uuid[uuid]
        found[batch_id] = JobLook(found[batch_id].count + 1, job_id, scheduler_state, state, job)
    return found


def to_take_back(
    batches: Iterable[BatchRow],
    jobs: dict[int, JobLook],
    rows: dict[str, CentreRow],
    elsewhere: Callable[[BatchRow], bool],
) -> list[tuple[BatchRow, str]]:
    """Return the batches that are to leave their centre, and why.

    A job that has begun stays, what it finished is there. From a centre that does not answer, only what its scheduler
    has not got can be taken: anything else might run there all the same, and be computed twice.
    """
    found = []
    for batch in batches:
        row = rows.get(batch.centre)
        if row is None or row.state == "up" or batch.attempts >= MOST_REROUTED or batch.id not in jobs:
            continue
        job = jobs[batch.id]
        if job.begun or (row.state == "down" and job.handed_over):
            continue
        if elsewhere(batch):
            found.append((batch, f"{row.state}: {row.reason}"))
    return found


def take_back(state: State, chosen: Iterable[tuple[BatchRow, str]]) -> int:
    """Kill the processes of batches that are to go elsewhere; they are planned again when they have ended."""
    from aiida.engine.processes.control import kill_processes

    from matcompute.campaign.dispatcher.nodes import load

    nodes: list[Any] = []
    for batch, why in chosen:
        node = load(str(batch.process_uuid))
        if node.is_terminated:
            continue
        with state.write() as connection:
            again = is_rerouted(connection, batch.id)
            end_submission(connection, batch.id, "rerouting", why, batch.process_uuid)
        if not again:
            LOGGER.warning("batch %s leaves centre %s (%s)", batch.label, batch.centre, why)
        nodes.append(node)
    if nodes:
        kill_processes(nodes, msg_text="goes to another centre", timeout=5.0)
    return len(nodes)


def play_paused(workspace: Workspace, centre_id: str) -> int:
    """Let jobs go on that AiiDA has paused because it could not talk to a centre; return how many."""
    from aiida.engine.processes.control import play_processes

    from matcompute.centres.computers import living_jobs
    from matcompute.workspace.repair import PAUSED_BY_FAILURE

    paused = {"attributes.paused": True, "attributes.process_status": {"like": f"{PAUSED_BY_FAILURE}%"}}
    nodes = living_jobs(workspace, centre_id, paused).all(flat=True)
    if nodes:
        LOGGER.info("centre '%s': %d paused jobs go on", centre_id, len(nodes))
        play_processes(nodes, timeout=5.0)
    return len(nodes)


def waiting_batches(state: State, names: Iterable[str]) -> list[BatchRow]:
    """Return the batches in flight at some centres that have a process."""
    wanted = set(names)
    with state.read() as connection:
        return [b for b in open_batches(connection) if b.centre in wanted and b.process_uuid]

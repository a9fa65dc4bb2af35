"""Bring back what a crash lost: the daemon itself, processes without a task, processes paused by a passing failure.

A process that AiiDA has stored but whose task is in no queue would wait forever: the submitter may have died between
the two steps, or sent the task to a broker that was just killed. ``verdi process repair`` does the same for RabbitMQ;
on the ZeroMQ broker its way of reading the queue moves the tasks that a worker has taken, so the files are read here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from matcompute.workspace.errors import DaemonError
from matcompute.workspace.runtime import DaemonFiles
from matcompute.workspace.status import RepairReport

if TYPE_CHECKING:
    from matcompute.workspace.workspace import Workspace

__all__ = ["PAUSED_BY_FAILURE", "repair", "task_pks"]

#: What AiiDA writes on a process that it pauses when a transport task has failed five times.
PAUSED_BY_FAILURE = "Pausing after failed transport task"


def repair(workspace: Workspace, *, timeout: float = 60.0) -> RepairReport:
    """Mend the daemon, then the processes.

    Safe at any time: a process that is being worked on is left alone, and a task that is made twice is dropped by
    the worker.

    Raises
    ------
    DaemonError
        If the daemon cannot be mended within ``timeout`` seconds.
    """
    report = RepairReport(daemon=workspace.ensure_daemon(timeout=timeout))
    active = _active_processes()
    if not active:
        workspace.revived_before = set()
        return report
    # Read after the processes: a task that appears in between only makes one process look alive that is.
    known = _known_tasks(workspace)
    lost = [] if known is None else sorted(set(active) - known)
    if lost:
        # A worker that could not record a step (a full disk) keeps a dead copy of the process and refuses the task.
        stubborn = workspace.revived_before & set(lost)
        if stubborn:
            report.daemon = workspace.restart_worker(timeout=timeout)
            report.notes.append(f"{len(stubborn)} processes did not come back: a new worker was started")
            lost = sorted(set(lost) & _active_processes().keys() - (_known_tasks(workspace) or set()))
        _continue(lost)
        report.revived = lost
        report.notes.append(f"{len(lost)} processes had lost their task: made again")
    workspace.revived_before = set(lost)
    report.resumed = _play(pk for pk, (paused, message) in active.items() if paused and _is_failure(message))
    return report


def _active_processes() -> dict[int, tuple[bool, str]]:
    """Return pk → (paused, status message) of the processes that have not ended."""
    from aiida.orm import ProcessNode, QueryBuilder

    query = QueryBuilder().append(
        ProcessNode,
        filters={
            "attributes.process_state": {"in": ["created", "waiting", "running"]},
            # calcfunctions run in the process that called them: no task, nothing to revive.
            "node_type": {"!like": "%function%"},
        },
        project=["id", "attributes.paused", "attributes.process_status"],
    )
    return {pk: (bool(paused), str(status or "")) for pk, paused, status in query.all()}


def _known_tasks(workspace: Workspace) -> set[int] | None:
    """Return the pks that have a task, or None where that cannot be told."""
    if workspace.settings.embedded:
        return task_pks(DaemonFiles.of(workspace))
    from aiida.brokers.zeromq import ZeromqBroker
    from aiida.engine.processes.control import get_process_tasks
    from aiida.manage import get_manager

    broker = get_manager().get_broker()
    if broker is None:
        return None
    if isinstance(broker, ZeromqBroker):
        return task_pks(DaemonFiles.of(workspace))
    return set(get_process_tasks(broker))


def task_pks(files: DaemonFiles) -> set[int]:
    """Return the process ids (pk) of all tasks in a ZeroMQ broker's queue, waiting or taken."""
    pks = set()
    for folder in files.queues:
        if not folder.is_dir():
            continue
        for file in folder.glob("*.json"):
            try:
                body: Any = json.loads(file.read_text(encoding="utf-8")).get("body")
                pks.add(int(body["args"]["pid"]))
            except FileNotFoundError:
                # It moved from waiting to taken, or was finished, while we looked.
                pks.update(_moved(files, file.name))
            except (ValueError, KeyError, TypeError):
                continue
    return pks


def _moved(files: DaemonFiles, name: str) -> set[int]:
    for folder in files.queues:
        try:
            return {int(json.loads((folder / name).read_text(encoding="utf-8"))["body"]["args"]["pid"])}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return set()


def _continue(pks: list[int]) -> None:
    from aiida.manage import get_manager

    controller = get_manager().get_process_controller()
    futures: list[Any] = [controller.continue_process(pk, nowait=False, no_reply=False) for pk in pks]
    for future in futures:
        if future is None:
            continue
        try:
            future.result(timeout=60)  # the broker has the task on disk
        except TimeoutError:
            raise DaemonError(
                "the broker took no task within 60 s", hint="matcompute workspace repair"
            ) from None


def _is_failure(message: str) -> bool:
    return PAUSED_BY_FAILURE in message


def _play(pks: Iterable[int]) -> list[int]:
    chosen = sorted(pks)
    if not chosen:
        return []
    from aiida.engine.processes.control import play_processes
    from aiida.orm import ProcessNode, QueryBuilder

    # AiiDA reports each request on the terminal; the caller tells the outcome.
    logging.getLogger("aiida.process_control").setLevel(logging.ERROR)
    query = QueryBuilder().append(ProcessNode, filters={"id": {"in": chosen}})
    play_processes(query.all(flat=True), timeout=10.0)
    return chosen

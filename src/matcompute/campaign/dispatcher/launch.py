"""Starting the dispatcher of a workspace, detached from the terminal, if none is alive."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from sqlalchemy import select

from matcompute.campaign.state import State
from matcompute.campaign.state.models import dispatcher
from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from matcompute.workspace import Workspace

__all__ = [
    "DispatcherError",
    "dispatcher_alive",
    "dispatcher_lock",
    "dispatcher_processes",
    "end_dispatcher",
    "ensure_dispatcher",
    "last_words",
]

#: Name of the log in the workspace's ``logs`` folder.
LOG_NAME = "dispatcher.log"
#: What a dispatcher's command line says between the interpreter and the workspace.
_ARGUMENTS = ["-m", "matcompute.campaign.dispatcher"]


class DispatcherError(MatcomputeError):
    """The dispatcher cannot be started."""


def dispatcher_lock(workspace: Workspace) -> FileLock:
    """Return the lock that the living dispatcher of a workspace holds; the kernel frees it when the process dies."""
    return FileLock(workspace.root / "dispatcher.lock")


def dispatcher_alive(workspace: Workspace) -> bool:
    """Tell whether a dispatcher is alive."""
    lock = dispatcher_lock(workspace)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def dispatcher_processes(workspace: Workspace) -> list[int]:
    """Return the process ids of dispatchers that have not ended, the lock's holder and those that come or go."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []  # a zombie has none
        if command[1:] == [*_ARGUMENTS, str(workspace.root)]:
            found.append(process.pid)
    return found


def ensure_dispatcher(
    workspace: Workspace, state: State, *, wait: bool = True, timeout: float = 60.0
) -> bool:
    """Have a dispatcher that sees all work that is in the state tables now; return whether one was started.

    Cheap when one is alive. A dispatcher that is about to exit says so in the tables first, in the same transaction
    in which it found nothing to do; then its end is awaited and a new one started. One that was started a moment ago
    and holds no lock yet is awaited too: on a slow machine that takes seconds, and it must not be taken for dead.

    Parameters
    ----------
    workspace, state
        Where.
    wait
        Otherwise return at once while one comes or goes; ask again later.
    timeout
        Seconds to wait.

    Raises
    ------
    DispatcherError
        If it cannot be started.
    """
    deadline = time.monotonic() + timeout
    while True:
        if dispatcher_alive(workspace):
            with state.read() as connection:
                what = connection.execute(select(dispatcher.c.state).where(dispatcher.c.id == 1)).scalar()
            if what != "exiting":
                return False
        elif not dispatcher_processes(workspace):
            break
        if not wait:
            return False
        if time.monotonic() > deadline:
            pids = dispatcher_processes(workspace)
            raise DispatcherError(
                f"the dispatcher of {workspace.root} neither works nor ends",
                hint=f"look at {_log(workspace)}; end it with: kill {' '.join(map(str, pids))}",
            )
        time.sleep(0.05)
    workspace.require_writable()
    _spawn(workspace)
    return True


def end_dispatcher(workspace: Workspace, *, timeout: float = 120.0) -> int | None:
    """End the living dispatcher after its present step; return its process id, None if there was none.

    Raises
    ------
    DispatcherError
        If it does not end.
    """
    pids = dispatcher_processes(workspace)
    if not pids and workspace.state_path.exists() and dispatcher_alive(workspace):
        # The workspace was moved since: its dispatcher has another command line.
        with State(workspace.state_path) as state:
            known = _pid(state)
        pids = [] if known is None else [known]
    if not pids:
        return None
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while dispatcher_alive(workspace) or dispatcher_processes(workspace):
        if time.monotonic() > deadline:
            raise DispatcherError(
                f"the dispatcher (process {pids[0]}) does not end", hint=f"look at {_log(workspace)}"
            )
        time.sleep(0.05)
    return pids[0]


def _spawn(workspace: Workspace) -> None:
    try:
        workspace.logs_dir.mkdir(exist_ok=True)
        with _log(workspace).open("ab") as log:
            subprocess.Popen(
                [sys.executable, *_ARGUMENTS, str(workspace.root)],
                env=workspace.environment(),
                cwd=workspace.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        raise DispatcherError(
            f"cannot start the dispatcher: {error.strerror or error} ({_log(workspace)})",
            hint="free space on the disk or mend the permissions, then: matcompute campaign resume NAME",
        ) from error


def last_words(workspace: Workspace) -> str:
    """Return the last error in the dispatcher's log, or an empty text."""
    try:
        lines = _log(workspace).read_text(encoding="utf-8", errors="replace").splitlines()[-200:]
    except OSError:
        return ""
    errors = [line for line in lines if " ERROR " in line or "Error: " in line]
    return errors[-1].split(" ERROR ")[-1] if errors else ""


def _log(workspace: Workspace) -> Path:
    return workspace.logs_dir / LOG_NAME


def _pid(state: State) -> int | None:
    with state.read() as connection:
        return connection.execute(select(dispatcher.c.pid).where(dispatcher.c.id == 1)).scalar()

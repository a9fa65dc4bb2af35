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
    "end_dispatcher",
    "ensure_dispatcher",
    "last_words",
]

#: Name of the log in the workspace's ``logs`` folder.
LOG_NAME = "dispatcher.log"


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


def ensure_dispatcher(workspace: Workspace, state: State, *, timeout: float = 20.0) -> bool:
    """Have a dispatcher that sees all work that is in the state tables now; return whether one was started.

    Cheap when one is alive. A dispatcher that is about to exit says so in the tables first, in the same transaction
    in which it found nothing to do; then its end is awaited and a new one started.

    Raises
    ------
    DispatcherError
        If it cannot be started.
    """
    deadline = time.monotonic() + timeout
    while dispatcher_alive(workspace):
        with state.read() as connection:
            what = connection.execute(select(dispatcher.c.state).where(dispatcher.c.id == 1)).scalar()
        if what != "exiting":
            return False
        if time.monotonic() > deadline:
            raise DispatcherError(
                f"the dispatcher of {workspace.root} does not end",
                hint=f"look at {_log(workspace)}; end it with: kill {_pid(state)}",
            )
        time.sleep(0.05)
    workspace.require_writable()
    _spawn(workspace)
    return True


def end_dispatcher(workspace: Workspace, *, timeout: float = 30.0) -> int | None:
    """End the living dispatcher after its present step; return its process id, None if there was none.

    Raises
    ------
    DispatcherError
        If it does not end.
    """
    if not workspace.state_path.exists() or not dispatcher_alive(workspace):
        return None
    with State(workspace.state_path) as state:
        pid = _pid(state)
    if pid is None:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while dispatcher_alive(workspace):
        if time.monotonic() > deadline:
            raise DispatcherError(
                f"the dispatcher (process {pid}) does not end", hint=f"look at {_log(workspace)}"
            )
        time.sleep(0.05)
    return pid


def _spawn(workspace: Workspace) -> None:
    try:
        workspace.logs_dir.mkdir(exist_ok=True)
        with _log(workspace).open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "matcompute.campaign.dispatcher", str(workspace.root)],
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

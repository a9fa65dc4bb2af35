"""Starting the dispatcher of a workspace, detached from the terminal, if none is alive."""

from __future__ import annotations

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

__all__ = ["DispatcherError", "dispatcher_alive", "dispatcher_lock", "ensure_dispatcher"]

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


def ensure_dispatcher(workspace: Workspace, state: State, *, timeout: float = 20.0) -> None:
    """Have a dispatcher that sees all work that is in the state tables now.

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
            return
        if time.monotonic() > deadline:
            raise DispatcherError(
                f"the dispatcher of {workspace.root} does not end",
                hint=f"look at {_log(workspace)}; end it with: kill {_pid(state)}",
            )
        time.sleep(0.05)
    _spawn(workspace)


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


def _log(workspace: Workspace) -> Path:
    return workspace.logs_dir / LOG_NAME


def _pid(state: State) -> int | None:
    with state.read() as connection:
        return connection.execute(select(dispatcher.c.pid).where(dispatcher.c.id == 1)).scalar()

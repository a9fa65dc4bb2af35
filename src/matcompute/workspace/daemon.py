"""The daemon of a workspace: look, start, stop, and mend what a crash left."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.workspace import processes
from matcompute.workspace.errors import DaemonError
from matcompute.workspace.runtime import DaemonFiles, code_fingerprint
from matcompute.workspace.status import DaemonStatus

if TYPE_CHECKING:
    from matcompute.workspace.workspace import Workspace

__all__ = ["ensure", "status", "stop"]

#: How much longer than usual a daemon may take to start on a busy machine.
_SLOWEST = 10
#: How often a daemon is started that is killed while it starts.
_STARTS = 5


def status(workspace: Workspace) -> DaemonStatus:
    """Look at the daemon without changing anything (a few milliseconds)."""
    if not workspace.settings.embedded:
        return _status_of_user_profile(workspace)
    files = DaemonFiles.of(workspace)
    found = DaemonStatus(state="stopped", profile=workspace.profile_name)
    pid = processes.read_pid(files.supervisor_pid)
    found.supervisor = pid if processes.alive(pid, "supervisor") else None
    broker = processes.read_pid(files.broker_pid)
    found.broker = broker if processes.alive(broker, "broker") else None
    ready = _read_ready(files)
    found.worker = ready["pid"] if processes.alive(ready.get("pid"), "worker") else None
    waiting, taken = files.queues
    found.queued, found.taken = _count(waiting), _count(taken)

    if found.supervisor is None:
        if pid is not None:
            found.problems.append(f"the supervisor (process {pid}) is gone but its pid file is there")
        if found.broker or found.worker:
            found.problems.append("a broker or worker runs without its supervisor")
        found.state = "broken" if found.problems else "stopped"
        return found
    if found.broker is None:
        found.problems.append("the broker does not run")
    if found.worker is None:
        found.problems.append("no worker is ready")
    elif ready.get("endpoint") != files.endpoint():
        found.problems.append("the worker is connected to a broker that is gone")
    elif ready.get("code") != code_fingerprint():
        found.problems.append("the worker runs older code than is installed now")
    found.state = "broken" if found.problems else "running"
    return found


def ensure(workspace: Workspace, *, timeout: float) -> DaemonStatus:
    """Have a daemon that works; see :meth:`matcompute.workspace.Workspace.ensure_daemon`."""
    if not workspace.settings.embedded:
        return _ensure_user_profile(workspace, timeout)
    found = status(workspace)
    if not found.running:
        workspace.require_writable()
        from filelock import FileLock, Timeout

        files = DaemonFiles.of(workspace)
        try:
            # Two campaigns that start at once must not start two daemons.
            with FileLock(files.lock, timeout=_SLOWEST * timeout):
                found = _mend(workspace, files, timeout)
        except Timeout as error:
            raise DaemonError(
                f"another process has been starting the daemon of {workspace.root} for {_SLOWEST * timeout:.0f} s",
                hint="look with: matcompute workspace status",
            ) from error
    refresh_communicator(workspace)
    return found


def restart_worker(workspace: Workspace, *, timeout: float) -> DaemonStatus:
    """Have a new worker; see :meth:`matcompute.workspace.Workspace.restart_worker`."""
    if workspace.settings.embedded:
        worker = status(workspace).worker
        if worker is not None:
            _end_worker(worker)
    return ensure(workspace, timeout=timeout)


def _mend(workspace: Workspace, files: DaemonFiles, timeout: float) -> DaemonStatus:
    found = status(workspace)
    if found.running:
        return found
    if found.supervisor is not None:
        action = "worker restarted"
        if found.worker is not None and found.problems:
            # Old code or an old broker: the supervisor starts a new worker when this one has gone.
            _end_worker(found.worker)
        # The supervisor may be on the way of mending it by itself.
        found = _await(workspace, files, min(timeout, 15.0))
        if found.running:
            found.action = action
            return found
        action = "restarted"
    else:
        action = "started" if found.state == "stopped" else "restarted"
    for _ in range(_STARTS):
        # More than once only if it was killed again while it was starting.
        strays = _strays(workspace, files)
        if strays:
            action = "restarted"
            processes.end(strays, grace_s=2.0)  # a kill loses nothing, waiting costs time
        files.clean()
        _start(workspace, files)
        found = _await(workspace, files, timeout)
        if found.running or found.supervisor is not None:
            break
    if not found.running:
        raise DaemonError(
            f"the AiiDA daemon of {workspace.root} does not get to work: "
            + "; ".join(found.problems or ["it did not start"]),
            hint=f"its logs: {files.worker_log}, {files.supervisor_log}, {workspace.logs_dir / 'daemon.log'}",
        )
    found.action = action
    return found


def _strays(workspace: Workspace, files: DaemonFiles) -> list[Any]:
    pids = [
        processes.read_pid(files.supervisor_pid),
        processes.read_pid(files.broker_pid),
        _read_ready(files).get("pid"),
    ]
    return processes.daemon_processes(workspace.aiida_path, pids)


def _end_worker(pid: int) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):  # it may have gone by itself
        processes.end([psutil.Process(pid)])


def _start(workspace: Workspace, files: DaemonFiles) -> None:
    workspace.logs_dir.mkdir(exist_ok=True)
    with (workspace.logs_dir / "daemon.log").open("ab") as log:
        subprocess.run(
            [sys.executable, "-m", "matcompute.workspace._supervisor", "start-circus", str(workspace.root)],
            env=workspace.environment(),
            cwd=workspace.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
        )


def _await(workspace: Workspace, files: DaemonFiles, seconds: float) -> DaemonStatus:
    """Return when the daemon runs, when its supervisor has died, or when the time is over.

    On a busy machine its parts need minutes to start, and must not be started anew for that: while they live, time
    counts a tenth. A part that has died costs a fifth of the time: one that dies again and again is told soon.
    """
    left, looked, living = seconds, time.monotonic(), set[int]()
    while True:
        found = status(workspace)
        # While it starts there is no supervisor and no pid file of one ("stopped").
        died = found.supervisor is None and found.state == "broken"
        if found.running or died or left < 0:
            return found
        time.sleep(0.1)
        if (passed := time.monotonic() - looked) > 1.0:
            looked += passed
            before, living = living, {process.pid for process in _strays(workspace, files)}
            left -= passed / _SLOWEST if living else passed
            left -= seconds / 5 if before - living else 0.0


def stop(workspace: Workspace, *, timeout: float) -> DaemonStatus:
    """Stop the daemon; see :meth:`matcompute.workspace.Workspace.stop_daemon`."""
    if not workspace.settings.embedded:
        return _stop_user_profile(workspace, timeout)
    files = DaemonFiles.of(workspace)
    ended = processes.end(_strays(workspace, files), grace_s=timeout / 2)
    files.clean()
    drop_communicator()
    found = status(workspace)
    found.action = "stopped" if ended else ""
    return found


def refresh_communicator(workspace: Workspace) -> None:
    """Forget a connection of this process to a broker that has been replaced (it cannot reconnect)."""
    from aiida.manage import get_manager

    broker = get_manager()._broker
    resources = getattr(broker, "_resources", None)
    communicator = getattr(resources, "communicator", None)
    if communicator is not None and communicator._router_endpoint != broker._router_endpoint:
        drop_communicator()


def drop_communicator() -> None:
    """Close this process's connection to the broker; the next submission makes a new one."""
    from aiida.manage import get_manager

    manager = get_manager()
    if manager._broker is not None:
        manager.reset_broker()
        manager.reset_runner()


def _read_ready(files: DaemonFiles) -> dict[str, Any]:
    try:
        data = json.loads(files.ready.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _count(folder: Path) -> int:
    try:
        return sum(1 for entry in os.scandir(folder) if entry.name.endswith(".json"))
    except OSError:
        return 0


# ---------------------------------------------------------------------- a profile of the user's own
def _client(workspace: Workspace) -> Any:
    workspace.load_profile()
    from aiida.engine.daemon.client import DaemonClient
    from aiida.manage import get_manager

    profile = get_manager().get_profile()
    assert profile is not None
    return DaemonClient(profile)


def _status_of_user_profile(workspace: Workspace) -> DaemonStatus:
    from aiida.engine.daemon.client import DaemonException

    client = _client(workspace)
    found = DaemonStatus(state="stopped", profile=workspace.profile_name)
    pid = client.get_daemon_pid()
    if not processes.alive(pid, "supervisor"):
        return found
    found.supervisor = pid
    try:
        workers = client.get_worker_info().get("info", {})
    except DaemonException as error:
        found.state = "broken"
        found.problems.append(str(error))
        return found
    names = [int(name) for name in workers if str(name).isdigit()]
    found.worker = names[0] if names else None
    found.state = "running" if names else "broken"
    if not names:
        found.problems.append("it has no worker")
    return found


def _ensure_user_profile(workspace: Workspace, timeout: float) -> DaemonStatus:
    """Start the daemon of the user's profile if it does not run; its settings and parts are the user's affair."""
    from aiida.common.exceptions import ConfigurationError
    from aiida.engine.daemon.client import DaemonException

    found = _status_of_user_profile(workspace)
    if found.running:
        refresh_communicator(workspace)
        return found
    client = _client(workspace)
    saved = dict(os.environ)
    os.environ.update({"PATH": workspace.environment()["PATH"]})
    try:
        client.start_daemon(wait=True, timeout=int(timeout))
    except (DaemonException, ConfigurationError) as error:
        raise DaemonError(
            f"the daemon of AiiDA profile '{workspace.profile_name}' does not start: {error}",
            hint="start it by hand: matcompute verdi daemon start",
        ) from error
    finally:
        os.environ.clear()
        os.environ.update(saved)
    deadline = time.monotonic() + timeout
    while not (found := _status_of_user_profile(workspace)).running and time.monotonic() < deadline:
        time.sleep(0.1)
    found.action = "started"
    refresh_communicator(workspace)
    return found


def _stop_user_profile(workspace: Workspace, timeout: float) -> DaemonStatus:
    from aiida.engine.daemon.client import DaemonException, DaemonNotRunningException

    try:
        _client(workspace).stop_daemon(wait=True, timeout=int(timeout))
    except DaemonNotRunningException:
        pass
    except DaemonException as error:
        raise DaemonError(f"the daemon does not stop: {error}") from error
    drop_communicator()
    return _status_of_user_profile(workspace)

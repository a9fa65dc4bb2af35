"""The processes of a workspace's daemon, found by what they run and in whose environment."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

__all__ = ["alive", "daemon_processes", "end", "read_pid"]

#: Pairs of neighbouring words in a command line that tell the parts of a daemon (ours, and AiiDA's own).
_PARTS = {
    ("daemon", "worker"): "worker",
    ("daemon", "broker"): "broker",
    ("daemon", "start-circus"): "supervisor",
}


def read_pid(path: Path) -> int | None:
    """Return the process id in a pid file (its last word), None if there is none."""
    try:
        return int(path.read_text(encoding="utf-8").split()[-1])
    except (OSError, ValueError, IndexError):
        return None


def part_of(command: list[str]) -> str | None:
    """Return which part of a daemon a command line is: "supervisor", "worker", "broker", or None."""
    for pair in itertools.pairwise(command):
        if pair in _PARTS:
            return _PARTS[pair]
    if "matcompute.workspace._supervisor" in command:
        return "supervisor"
    return None


def alive(pid: int | None, part: str) -> bool:
    """Whether a process id is a living process that is this part of a daemon (ids are used again)."""
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and part_of(process.cmdline()) == part
    except psutil.Error:
        return False


def daemon_processes(aiida_path: Path, pids: Iterable[int | None] = ()) -> list[psutil.Process]:
    """Return every living part of the daemon of an AiiDA configuration.

    A process belongs to it when ``AIIDA_PATH`` in its environment is this path, or its id stands in one of our pid
    files (``pids``; the workspace may have been moved). Jobs have the same environment but other command lines:
    they are never returned.
    """
    wanted = {_configuration(str(aiida_path))}
    listed = {pid for pid in pids if pid is not None}
    user = os.getuid()
    found = []
    for process in psutil.process_iter(["cmdline", "uids"]):
        try:
            command = process.info["cmdline"] or []
            uids = process.info["uids"]
            if uids is None or uids.real != user or part_of(command) is None:
                continue
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.pid in listed or _configuration(process.environ().get("AIIDA_PATH", "")) in wanted:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _configuration(path: str) -> str:
    if not path:
        return ""
    folder = Path(path)
    return str((folder if folder.name == ".aiida" else folder / ".aiida").resolve())


def end(processes: list[psutil.Process], *, grace_s: float = 5.0) -> list[int]:
    """End processes: SIGTERM (the supervisor first, else it starts the others again), then SIGKILL."""
    order = {"supervisor": 0, "worker": 1, "broker": 2}

    def rank(process: psutil.Process) -> int:
        try:
            return order.get(part_of(process.cmdline()) or "", 3)
        except psutil.Error:
            return 3

    processes = sorted(processes, key=rank)
    for process in processes:
        try:
            process.terminate()
        except psutil.Error:
            continue
    _gone, left = psutil.wait_procs(processes, timeout=grace_s)
    for process in left:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(left, timeout=grace_s)
    return [process.pid for process in processes]

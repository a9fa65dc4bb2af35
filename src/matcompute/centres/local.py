"""The local centre: the machine on which the workspace is."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from matcompute.centres.errors import CentreError
from matcompute.centres.model import Centre, CentreBlock, CodeBlock, PartitionBlock, SchedulerBlock

if TYPE_CHECKING:
    from matcompute.workspace import Workspace

__all__ = ["detect", "local_centre"]

FILENAME = "local.yaml"


def detect() -> Centre:
    """Return a centre with the cores that this process may use and the machine's memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    centre = Centre(
        centre=CentreBlock(id="local", title=f"workstation {platform.node()}"),
        # Enough batches that no core waits for the next one to be submitted; the core slots keep their
        # workers from using more cores than there are.
        scheduler=SchedulerBlock(max_submitted=cores + 2),
        partitions=(PartitionBlock(name="workstation", cores=cores, mem_gb=_memory_gb()),),
        codes=_codes(),
    )
    centre._detected = True
    return centre


#: Programs that are used where they are on PATH → the AiiDA plugin that runs them.
_PROGRAMS = {
    "pw.x": "quantumespresso.pw",
    "dos.x": "quantumespresso.dos",
}


def _codes() -> tuple[CodeBlock, ...]:
    """Return the first-principles codes of this machine, without MPI: whose MPI they are built for is not known."""
    found = []
    for program, plugin in _PROGRAMS.items():
        path = shutil.which(program)
        if path is not None:
            version = _version(path, Path(path).stat().st_mtime_ns)
            found.append(CodeBlock(name=program, plugin=plugin, executable=path, version=version))
    return tuple(found)


@lru_cache(maxsize=16)
def _version(path: str, _mtime: int) -> str | None:
    """Return the version that a program of Quantum ESPRESSO prints when it is given an empty input."""
    with tempfile.TemporaryDirectory(prefix="matcompute-") as folder:
        try:
            done = subprocess.run(
                [path], input="", capture_output=True, text=True, timeout=20, cwd=folder, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
    match = re.search(r"Program \S+ v\.(\d+(?:\.\d+)*)", done.stdout)
    return None if match is None else match.group(1)


def _memory_gb() -> float:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError):
        return 1.0
    return max(round(size, 1), 0.1)


def local_centre(workspace: Workspace) -> Centre:
    """Return the local centre of a workspace: ``centres/local.yaml`` if it is there, else what is detected.

    Raises
    ------
    CentreError
        If the file is wrong.
    """
    path = workspace.centres_dir / FILENAME
    if not path.is_file():
        return detect()
    centre = Centre.load(path)
    if centre.id != "local":
        raise CentreError(f"{path}: centre.id: expected 'local', found {centre.id!r}")
    return centre

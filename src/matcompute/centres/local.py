"""The local centre: the machine on which the workspace is."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from matcompute.centres.errors import CentreError
from matcompute.centres.model import Centre, CentreBlock, PartitionBlock, SchedulerBlock

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
    )
    centre._detected = True
    return centre


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

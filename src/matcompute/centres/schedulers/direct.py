"""Limits of a machine without a scheduler: its cores, its memory, its GPUs."""

from __future__ import annotations

from collections.abc import Mapping

from matcompute.centres.schedulers.live import LIVE_MARK, LiveLimits, LivePartition

__all__ = ["MACHINE", "QUESTION", "parse_limits"]

#: Name under which the machine stands: whatever the profile calls its only partition.
MACHINE = "*"

# nproc counts the threads that OpenMP is allowed, where that is set.
QUESTION = f"""\
echo '{LIVE_MARK}cores'; env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN
echo '{LIVE_MARK}pages'; getconf PAGE_SIZE; getconf _PHYS_PAGES
echo '{LIVE_MARK}gpus'; nvidia-smi -L 2>/dev/null
true"""


def parse_limits(parts: Mapping[str, list[str]]) -> LiveLimits:
    """Read the sections of the answer to :data:`QUESTION`."""
    size, pages = (int(line) for line in parts["pages"])
    part = LivePartition(
        name=MACHINE,
        nodes=1,
        nodes_up=1,
        cores=int(parts["cores"][0]),
        mem_gb=size * pages / 1e9,
        gpus=len(parts.get("gpus", [])),
    )
    return LiveLimits(scheduler="direct", partitions={MACHINE: part})

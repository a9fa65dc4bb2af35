"""How a batch is cut so that it fits into a device's memory: arithmetic only, no device needed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from matcompute_kernels.errors import KernelInputError

__all__ = ["Plan", "plan_chunks"]


@dataclass(frozen=True)
class Plan:
    """Chunks of a batch.

    Attributes
    ----------
    edges
        Chunk ``k`` holds the structures ``edges[k]:edges[k + 1]``.
    buffers
        Chunks that are on the device at a time (2: one is copied while the other is computed).
    peak
        Bytes used at most.
    budget
        Bytes that were free.
    """

    edges: tuple[int, ...]
    buffers: int
    peak: int
    budget: int

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """First and last (excluded) structure of each chunk."""
        return list(pairwise(self.edges))


def plan_chunks(sizes: np.ndarray, free: int, *, fixed: int = 0, buffers: int = 2, most: int = 0) -> Plan:
    """Cut a batch into chunks of neighbouring structures.

    ``buffers`` chunks in a row, and what is always there, never need more than the free bytes. A structure that is too
    large for its share of the buffers is taken with one chunk on the device at a time: then the whole plan has one
    buffer.

    Parameters
    ----------
    sizes
        Bytes that each structure needs on the device, with its results, i8[N].
    free
        Free bytes of the device.
    fixed
        Bytes that every chunk needs beside its structures (tables).
    buffers
        Chunks on the device at a time.
    most
        Structures of a chunk at most; 0: no limit.

    Returns
    -------
    Plan
        Greedy: each chunk is as long as it may be.

    Raises
    ------
    KernelInputError
        If the tables or one structure do not fit alone; ``index`` names it.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    if sizes.ndim != 1 or (sizes.size and sizes.min() < 0) or fixed < 0 or buffers < 1 or most < 0:
        raise KernelInputError(
            "sizes must be a list of bytes, fixed and most not negative, buffers at least 1"
        )
    room = free - fixed
    if room < 0:
        raise KernelInputError(f"the device has {free} bytes free and the tables alone need {fixed}")
    largest = int(sizes.max()) if sizes.size else 0
    if largest > room:
        raise KernelInputError(
            f"needs {largest} bytes on the device, {room} are free; give a smaller cutoff or use the CPU",
            int(np.argmax(sizes)),
        )
    if largest > room // buffers:
        buffers = 1
    share = room // buffers
    edges, load = [0], 0
    for k, size in enumerate(sizes.tolist()):
        if k > edges[-1] and (load + size > share or (most and k - edges[-1] >= most)):
            edges.append(k)
            load = 0
        load += size
    if sizes.size:
        edges.append(len(sizes))
    sums = (
        np.diff(np.concatenate([[0], np.cumsum(sizes)])[edges]) if len(edges) > 1 else np.zeros(0, np.int64)
    )
    windows = [int(sums[k : k + buffers].sum()) for k in range(max(1, len(sums) - buffers + 1))]
    return Plan(tuple(edges), buffers, fixed + max(windows, default=0), free)

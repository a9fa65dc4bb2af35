"""How a descriptor goes over a batch: in chunks of bounded memory, on one or more threads, with or without a list.

Chunks do not depend on the number of threads and those of one structure run in order, so neither does a result.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch
from matcompute_kernels.checks import check_integer
from matcompute_kernels.neighbors import NeighborList, check_neighbors, neighbor_list, site_chunks

__all__ = ["MAX_PAIRS", "run_tasks", "share", "structure_tasks"]

#: Pairs of a neighbour list that a descriptor holds at a time (48 bytes each).
MAX_PAIRS = 50_000


def run_tasks(
    batch: Batch,
    r_cut: float,
    max_pairs: int,
    start: Callable[[], Callable[[int, int, NeighborList], Any]],
    *,
    full: bool = True,
    neighbors: NeighborList | None = None,
    threads: int = 1,
) -> None:
    """Hand all sites of a batch with their neighbours to a kernel, chunk by chunk.

    Parameters
    ----------
    batch
        Packed structures, checked.
    r_cut
        Cutoff in Å.
    max_pairs
        Pairs of a chunk, about.
    start
        Called once a task: makes work space and returns what takes ``first, last, pairs`` of a chunk.
    full
        Whether the kernel wants a full list (or a half one).
    neighbors
        A full list of the whole batch that reaches at least as far; None: made here, chunk by chunk.
    threads
        Threads to use; the kernels must release the GIL.

    Raises
    ------
    KernelInputError
        If ``neighbors`` does not fit or ``threads`` is no positive integer.
    """
    check_integer(1, 1024, threads=threads)
    check_neighbors(neighbors, batch, r_cut)
    if neighbors is not None:
        neighbors = neighbors.within(r_cut)

    def work(chunks: list[tuple[int, int]]) -> None:
        kernel = start()
        for first, last in chunks:
            if neighbors is None:
                pairs = neighbor_list(batch, r_cut, full=full, sites=(first, last), check=False)
            else:
                pairs = _part(neighbors, first, last, full)
            kernel(first, last, pairs)

    share(work, structure_tasks(batch, r_cut, max_pairs), threads)


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads of :func:`share`. They stay, and so does their memory: new ones would ask the system for it again."""
    return ThreadPoolExecutor(1024, thread_name_prefix="kernels")


if hasattr(os, "register_at_fork"):  # a child process has none of them
    os.register_at_fork(after_in_child=_helpers.cache_clear)


def share(work: Callable[[Any], None], tasks: Sequence[Any], threads: int) -> None:
    """Do tasks, begun in their order, on one or more threads.

    An exception ends it: that of the first task that has one, however many threads there are. So does an interrupt;
    tasks may wait for earlier ones, therefore those that have begun are done to their end.
    """
    threads = min(threads, len(tasks))
    if threads < 2:
        for task in tasks:
            work(task)
        return
    queue = deque(enumerate(tasks))
    errors: list[tuple[int, BaseException]] = []

    def some() -> None:
        while queue and not errors:
            try:
                index, task = queue.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                work(task)
            except BaseException as error:
                errors.append((index, error))

    helpers = [_helpers().submit(some) for _ in range(threads)]
    try:
        wait(helpers)
    finally:
        queue.clear()
        wait(helpers)
    if errors:
        raise min(errors, key=lambda item: item[0])[1]


def structure_tasks(batch: Batch, r_cut: float, max_pairs: int) -> list[list[tuple[int, int]]]:
    """Chunks of sites; the chunks of one structure follow each other in one task, so their sums have one order."""
    chunks = list(site_chunks(batch, r_cut, max_pairs))
    if len(chunks) < 2:
        return [chunks] if chunks else []
    tasks: list[list[tuple[int, int]]] = []
    whole = batch.ptr[np.searchsorted(batch.ptr, [last for _, last in chunks])]
    begins = True
    for chunk, end in zip(chunks, whole.tolist()):
        if begins:
            tasks.append([])
        tasks[-1].append(chunk)
        begins = end == chunk[1]
    return tasks


def _part(neighbors: NeighborList, first: int, last: int, full: bool) -> NeighborList:
    """The pairs of the sites ``first:last``, as views (a copy of half of them if a half list is wanted)."""
    begin, end = neighbors.ptr[first], neighbors.ptr[last]
    ptr = neighbors.ptr[first : last + 1] - begin
    j, shift = neighbors.j[begin:end], neighbors.shift[begin:end]
    distance, vector = neighbors.distance[begin:end], neighbors.vector[begin:end]
    if not full:
        i = np.repeat(np.arange(first, last), np.diff(ptr))
        leading = np.where(
            shift[:, 0] != 0, shift[:, 0], np.where(shift[:, 1] != 0, shift[:, 1], shift[:, 2])
        )
        keep = (j > i) | ((j == i) & (leading > 0))
        ptr = np.concatenate([[0], np.cumsum(keep)])[ptr]
        j, shift, distance, vector = j[keep], shift[keep], distance[keep], vector[keep]
    return NeighborList(ptr, j, shift, distance, vector, neighbors.r_cut, full, first)

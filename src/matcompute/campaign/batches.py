"""How structures are cut into batches: enough work in each to pay for a job, enough batches to keep all cores busy."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

__all__ = ["MAX_BATCH_SIZE", "PER_SLOT", "TARGET_S", "batch_count", "choose_batches"]

#: Work of one batch in s of wall time: long beside a job's overhead, short beside a working day.
TARGET_S = 450.0
#: A job costs AiiDA about 0.5 s of CPU and the node program about as much to start: 20 s of work keep that below 5 %.
WORTHWHILE_S = 20.0
#: Below this a second batch is not worth a core of its own.
SMALLEST_S = 2.0
#: Batches a slot, so that the last ones to finish do not leave cores idle for long.
PER_SLOT = 3
#: Structures a batch at most: what a shard, and a restart, should hold.
MAX_BATCH_SIZE = 10_000


def batch_count(
    total_s: float,
    n: int,
    *,
    batch_size: int | None = None,
    cores: int = 1,
    cores_per_batch: int = 1,
    max_size: int = MAX_BATCH_SIZE,
) -> int:
    """Return into how many batches n structures are cut.

    Parameters
    ----------
    total_s
        Estimated work of all structures in core-seconds.
    n
        Number of structures.
    batch_size
        Structures a batch, if the user said so; else it follows from the work.
    cores
        Cores of the centre.
    cores_per_batch
        Cores that one batch occupies.
    max_size
        Structures a batch at most, where the user has not said how many.
    """
    if n == 0:
        return 0
    if batch_size is not None:
        return -(-n // batch_size)
    slots = max(1, cores // max(1, cores_per_batch))
    wall_s = total_s / max(1, cores_per_batch)
    count = int(np.ceil(wall_s / TARGET_S))
    count = max(count, min(slots * PER_SLOT, int(wall_s / WORTHWHILE_S)))
    count = max(count, min(slots, int(wall_s / SMALLEST_S)))
    # A worker without a structure of its own would idle.
    count = min(count, -(-n // max(1, cores_per_batch)))
    return max(1, count, -(-n // max_size))


def choose_batches(
    costs: Sequence[float] | np.ndarray,
    *,
    batch_size: int | None = None,
    cores: int = 1,
    cores_per_batch: int = 1,
    count: int | None = None,
    max_size: int = MAX_BATCH_SIZE,
) -> list[np.ndarray]:
    """Cut structures into batches of about equal work.

    The costliest structures are dealt first, each to the batch with the least work so far (longest processing time
    first: R. L. Graham, SIAM J. Appl. Math. 17, 416 (1969)), so the result depends on nothing but the arguments.

    Parameters
    ----------
    costs
        Estimated work of each structure in core-seconds, f8[n].
    batch_size
        Most structures a batch; None: as many as the work suggests, see :func:`batch_count`.
    cores, cores_per_batch
        Cores of the centre, and of one batch.
    count
        Number of batches, when it was chosen otherwise; more if they would be larger than ``max_size``.
    max_size
        See :func:`batch_count`.

    Returns
    -------
    list
        Positions in ``costs``, ascending in each batch; the batches by falling work. Each position is in one batch.
    """
    costs = np.asarray(costs, dtype=float)
    if costs.size and not (np.isfinite(costs).all() and (costs >= 0).all()):
        raise ValueError("costs must be finite and not negative")
    n = len(costs)
    if n == 0:
        return []
    if count is None:
        count = batch_count(
            float(costs.sum()),
            n,
            batch_size=batch_size,
            cores=cores,
            cores_per_batch=cores_per_batch,
            max_size=max_size,
        )
    limit = batch_size if batch_size is not None else max_size
    count = max(count, -(-n // limit))
    heap = [(0.0, 0, index) for index in range(count)]
    members: list[list[int]] = [[] for _ in range(count)]
    for position in np.argsort(-costs, kind="stable").tolist():
        work, size, index = heapq.heappop(heap)
        members[index].append(position)
        if size + 1 < limit:
            heapq.heappush(heap, (work + float(costs[position]), size + 1, index))
    batches = [np.array(sorted(rows), dtype=np.int64) for rows in members if rows]
    return sorted(batches, key=lambda rows: (-float(costs[rows].sum()), int(rows[0])))

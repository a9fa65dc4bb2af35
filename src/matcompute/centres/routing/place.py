"""What passes the filters is placed, one task after the other, where it scores best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit

from matcompute.centres.routing.states import CentreState, Demand, PartitionState, Reason

__all__ = ["SPREAD", "place"]

#: Part of the load that counts beside the end of a task.
SPREAD = 0.01
_FASTEST, _CHEAPEST, _BALANCED = range(3)
_NUMBER = {"fastest": _FASTEST, "cheapest": _CHEAPEST, "balanced": _BALANCED}
_FITS, _QUOTA = int(Reason.FITS), int(Reason.QUOTA)
#: Up to so many pairs of task and column the loop runs as it stands: compiling it would take longer.
_FEW = 20_000


def place(
    demand: Demand,
    columns: Sequence[tuple[int, int, CentreState, PartitionState]],
    reasons: np.ndarray,
    work: np.ndarray,
    cost: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """Place one task after the other; fills ``chosen``, and ``reasons`` where the quota ran out on the way."""
    typical = max(1.0, float(np.median(demand.cores)))
    capacity = [_capacity(centre, partition, typical) for _, _, centre, partition in columns]
    whole = [
        sum(_capacity(centre, part, typical) for part in centre.partitions) for _, _, centre, _ in columns
    ]
    wait = np.array([partition.wait_s for _, _, _, partition in columns])
    flight = np.array([centre.in_flight_core_s for _, _, centre, _ in columns])
    owner = np.array([c for c, _, _, _ in columns], dtype=np.int64)
    quota = np.zeros(int(owner.max()) + 1)
    quota[owner] = [centre.quota_left_core_s for _, _, centre, _ in columns]
    strategy = np.array([_NUMBER[group.strategy] for group in demand.groups])
    loop = _place.py_func if work.size <= _FEW else _place
    loop(
        strategy[demand.group],
        np.maximum(demand.cores, 1).astype(float),
        work,
        cost,
        wait,
        np.array(capacity),
        wait + flight / np.array(whole),
        owner,
        quota,
        reasons,
        chosen,
    )


@njit(cache=True, nogil=True)
def _place(
    strategy: np.ndarray,
    cores: np.ndarray,
    work: np.ndarray,
    cost: np.ndarray,
    wait: np.ndarray,
    capacity: np.ndarray,
    load: np.ndarray,
    owner: np.ndarray,
    quota: np.ndarray,
    reasons: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """The loop over tasks; ``load`` (f8[columns]) and ``quota`` (f8[centres]) are used up."""
    n, m = work.shape
    ends = np.empty(m)
    for i in range(n):
        count, total, price = 0, 0.0, np.inf
        for k in range(m):
            if reasons[i, k] != _FITS:
                continue
            if work[i, k] > quota[owner[k]]:
                reasons[i, k] = _QUOTA
                continue
            # A task ends no sooner than when it alone is done, and no sooner than all that is placed there is (the two
            # bounds on a makespan); a little of the load is added, so that equals are spread.
            alone = wait[k] + work[i, k] / cores[i]
            ends[k] = max(load[k] + work[i, k] / capacity[k], alone) + SPREAD * load[k]
            total += cost[i, k]
            price = min(price, cost[i, k])
            count += 1
        if count == 0:
            continue
        best, low, end = -1, np.inf, np.inf
        mean = total / count
        for k in range(m):
            if reasons[i, k] != _FITS:
                continue
            if strategy[i] == _CHEAPEST:
                score = cost[i, k]
            elif strategy[i] == _BALANCED and mean > 0.0:
                score = ends[k] * (1.0 + (cost[i, k] - price) / mean)
            else:
                score = ends[k]
            # Equal charges by time; whatever is equal then, by the order of the columns.
            if best < 0 or score < low or (strategy[i] == _CHEAPEST and score == low and ends[k] < end):
                best, low, end = k, score, ends[k]
        chosen[i] = best
        quota[owner[best]] -= work[i, best]
        load[best] += work[i, best] / capacity[best]


def _capacity(centre: CentreState, partition: PartitionState, typical: float) -> float:
    """Cores that jobs of a typical size keep busy at once: the partition's, as far as the window lets them."""
    return max(1.0, min(float(partition.nodes * partition.cores), centre.window * typical))

"""What passes the filters is placed, one task after the other, where it scores best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from matcompute.centres.routing.states import CentreState, Demand, PartitionState, Reason

__all__ = ["SPREAD", "place"]

#: Part of the load that counts beside the end of a task.
SPREAD = 0.01


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
    load = [
        partition.wait_s + centre.in_flight_core_s / whole[k]
        for k, (_, _, centre, partition) in enumerate(columns)
    ]
    quota = {c: centre.quota_left_core_s for c, _, centre, _ in columns}
    owner = [c for c, _, _, _ in columns]
    fits = reasons == Reason.FITS
    candidates = _Candidates(fits)
    strategies = [group.strategy for group in demand.groups]
    # A task ends no sooner than when it alone is done, and no sooner than all that is placed there is (the two bounds
    # on a makespan); a little of the load is added, so that equals are spread.
    wait = np.array([partition.wait_s for _, _, _, partition in columns])
    alone = wait + work / np.maximum(demand.cores, 1)[:, None]
    share = work / np.array(capacity)
    # Beyond this no quota can run out: the check for every task is then spared.
    most = work.max(axis=1)
    scarce = any(left < float(most.sum()) for left in quota.values())
    least = min(quota.values())
    for i, (which, group, works, alones, shares, costs, peak) in enumerate(
        _rows(candidates.of, demand.group, work, alone, share, cost, most)
    ):
        options = candidates.sets[which]
        if peak > least and any(works[k] > quota[owner[k]] for k in options):
            reasons[i, [k for k in options if works[k] > quota[owner[k]]]] = Reason.QUOTA
            options = tuple(k for k in options if works[k] <= quota[owner[k]])
        if not options:
            continue
        best = options[0]
        if len(options) > 1:
            charges = [costs[k] for k in options]
            low = min(charges)
            if strategies[group] == "cheapest" and charges.count(low) == 1:
                best = options[charges.index(low)]
            else:
                ends = [max(load[k] + shares[k], alones[k]) + SPREAD * load[k] for k in options]
                best = options[_CHOICES[strategies[group]](ends, charges)]
        chosen[i] = best
        if scarce:
            left = quota[owner[best]] - works[best]
            quota[owner[best]] = left
            if left < least:
                least = left
        load[best] += shares[best]


def _rows(*arrays: np.ndarray, size: int = 2048) -> Iterator[tuple]:
    """Rows as Python values, some at a time: 10⁵ lists at once cost more in garbage collection than in work."""
    for start in range(0, len(arrays[0]), size):
        yield from zip(*(array[start : start + size].tolist() for array in arrays), strict=True)


class _Candidates:
    """The distinct sets of columns that fit, and which of them each task has."""

    def __init__(self, fits: np.ndarray) -> None:
        packed = np.packbits(fits, axis=1)
        keys = np.zeros(len(fits), dtype=np.int64)
        for byte in packed.T:
            _, keys = np.unique(keys * 256 + byte, return_inverse=True)
        count = int(keys.max()) + 1
        first = np.zeros(count, dtype=np.int64)
        first[keys[::-1]] = np.arange(len(fits))[::-1]
        self.of = keys
        self.sets = [tuple(np.flatnonzero(fits[row]).tolist()) for row in first]


def _capacity(centre: CentreState, partition: PartitionState, typical: float) -> float:
    """Cores that jobs of a typical size keep busy at once: the partition's, as far as the window lets them."""
    return max(1.0, min(float(partition.nodes * partition.cores), centre.window * typical))


def _fastest(ends: list[float], _costs: list[float]) -> int:
    return ends.index(min(ends))


def _cheapest(ends: list[float], costs: list[float]) -> int:
    return min(zip(costs, ends, range(len(ends))))[2]


def _balanced(ends: list[float], costs: list[float]) -> int:
    price, mean = min(costs), sum(costs) / len(costs)
    if mean <= 0.0:
        return _fastest(ends, costs)
    scores = [end * (1.0 + (cost - price) / mean) for end, cost in zip(ends, costs)]
    return scores.index(min(scores))


#: Position of the best option, from when the task would end at each and what it would be charged.
_CHOICES: dict[str, Callable[[list[float], list[float]], int]] = {
    "fastest": _fastest,
    "cheapest": _cheapest,
    "balanced": _balanced,
}

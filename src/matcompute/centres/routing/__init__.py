"""Routing: which centre and partition each task (a batch, as a rule) goes to, and why not to the others.

A pure function on arrays. Filters come first, in a fixed order (:class:`Reason`); what passes them is placed one task
after the other where it scores best (list scheduling: R. L. Graham, SIAM J. Appl. Math. 17, 416 (1969)), each placement
adding to the load of its partition and to what its centre has spent. A decision depends on its arguments alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from matcompute.centres.routing.decision import Decision
from matcompute.centres.routing.place import SPREAD, place
from matcompute.centres.routing.states import (
    STRATEGIES,
    CentreState,
    Demand,
    Group,
    PartitionState,
    Reason,
    Strategy,
    blocked,
    factor,
)
from matcompute.dataset.metadata import GRADES

__all__ = [
    "SPREAD",
    "STRATEGIES",
    "CentreState",
    "Decision",
    "Demand",
    "Group",
    "PartitionState",
    "Reason",
    "Strategy",
    "route",
]


def _columns(centres: Sequence[CentreState]) -> Iterator[tuple[int, int, CentreState, PartitionState]]:
    for c, centre in enumerate(centres):
        for p, partition in enumerate(centre.partitions):
            yield c, p, centre, partition


def route(demand: Demand, centres: Sequence[CentreState]) -> Decision:
    """Choose a centre and a partition for every task.

    Parameters
    ----------
    demand
        The tasks, those to be placed first at the front.
    centres
        What there is.

    Returns
    -------
    Decision
        With the reasons; a task that nothing can take has column -1. The expected core-seconds placed at a centre
        never exceed what its quota leaves.
    """
    columns = list(_columns(centres))
    n, m = len(demand), len(columns)
    reasons = np.zeros((n, m), dtype=np.uint8)
    work = np.zeros((n, m))
    cost = np.zeros((n, m))
    for k, (_, _, centre, partition) in enumerate(columns):
        factors = np.array([factor(centre, group) for group in demand.groups])
        work[:, k] = demand.core_s * factors[demand.group]
        cost[:, k] = work[:, k] / 3600 * _price(demand, partition)
        reasons[:, k] = _filter(demand, centre, partition, work[:, k])
    chosen = np.full(n, -1, dtype=np.int32)
    if n and m:
        place(demand, columns, reasons, work, cost, chosen)
    expected = np.where(chosen >= 0, work[np.arange(n), chosen] if m else 0.0, 0.0)
    return Decision(
        demand, tuple(centres), tuple((c, p) for c, p, _, _ in columns), chosen, reasons, cost, expected
    )


def _price(demand: Demand, partition: PartitionState) -> np.ndarray:
    """Charge of one core-hour of work, f8[n]: whole nodes and GPUs are charged for as such."""
    if partition.charge == "node_h":
        nodes = -(-demand.cores // partition.cores)
        return partition.per_hour * nodes / np.maximum(demand.cores, 1)
    if partition.charge == "gpu_h":
        return partition.per_hour * demand.gpus / np.maximum(demand.cores, 1)
    return np.full(len(demand), partition.per_hour)


def _filter(demand: Demand, centre: CentreState, partition: PartitionState, work: np.ndarray) -> np.ndarray:
    """The first reason against a partition, u1[n]."""
    kind = np.zeros(len(demand.groups), dtype=np.uint8)
    rank = GRADES.index(centre.clearance)
    for g, group in enumerate(demand.groups):
        if centre.spare if group.allow is None else centre.id not in group.allow:
            kind[g] = Reason.NOT_ALLOWED
        elif centre.id in group.deny:
            kind[g] = Reason.DENIED
        elif blocked(centre, group):
            kind[g] = Reason.BLOCKED
        elif GRADES.index(group.grade) > rank:
            kind[g] = Reason.CLEARANCE
        elif (centre.codes is not None and not group.codes <= centre.codes) or (
            partition.codes is not None and not group.codes <= partition.codes
        ):
            kind[g] = Reason.CODE
    found = kind[demand.group]
    nodes = np.maximum(1, -(-demand.cores // partition.cores))
    up = centre.up and partition.up and partition.nodes > 0
    checks = (
        (Reason.CORES, nodes > np.where(demand.spreads, partition.max_nodes, 1)),
        (Reason.MEMORY, demand.memory_gb > partition.memory_gb * nodes),
        (Reason.GPUS, demand.gpus > partition.gpus * nodes),
        (Reason.WALLTIME, demand.walltime_s > partition.max_wall_s),
        (Reason.QUOTA, work > centre.quota_left_core_s),
        (Reason.DOWN, np.full(len(demand), not up)),
    )
    for reason, bad in checks:
        found = np.where((found == 0) & bad, np.uint8(reason), found)
    return found

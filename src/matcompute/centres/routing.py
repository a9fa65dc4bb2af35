"""Routing: which centre and partition each task (a batch, as a rule) goes to, and why not to the others.

A pure function on arrays. Filters come first, in a fixed order (:class:`Reason`); what passes them is placed one task
after the other where it scores best (list scheduling: R. L. Graham, SIAM J. Appl. Math. 17, 416 (1969)), each placement
adding to the load of its partition and to what its centre has spent. A decision depends on its arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np

from matcompute.dataset.metadata import GRADES

__all__ = [
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

#: Part of the load that counts beside the end of a task.
SPREAD = 0.01
Strategy = Literal["fastest", "cheapest", "balanced"]
#: What each strategy minimises.
STRATEGIES: dict[str, str] = {
    "fastest": "the time until a batch ends",
    "cheapest": "what a batch is charged; equal charges by time",
    "balanced": "the time, weighed up with what it is charged above the cheapest place",
}


class Reason(IntEnum):
    """Why a partition cannot take a task: the first filter that says no, in this order."""

    FITS = 0
    NOT_ALLOWED = 1
    DENIED = 2
    BLOCKED = 3
    CLEARANCE = 4
    CODE = 5
    CORES = 6
    MEMORY = 7
    GPUS = 8
    WALLTIME = 9
    QUOTA = 10
    DOWN = 11


@dataclass(frozen=True)
class PartitionState:
    """What a partition offers now.

    Attributes
    ----------
    name
        Of the partition.
    nodes, cores, memory_gb, gpus
        Nodes that are up; cores, memory in GB and GPUs of one of them.
    max_nodes
        Nodes that one job may have.
    max_wall_s
        Longest job in s.
    charge, per_hour
        What is charged for (``core_h``, ``node_h``, ``gpu_h``) and how much an hour of it costs.
    up
        Whether it starts jobs.
    wait_s
        Expected wait of a job submitted now, in s.
    codes
        Codes that run here; None: all of the centre's.
    """

    name: str
    nodes: int = 1
    cores: int = 1
    memory_gb: float = 1.0
    gpus: int = 0
    max_nodes: int = 1
    max_wall_s: float = np.inf
    charge: Literal["core_h", "node_h", "gpu_h"] = "core_h"
    per_hour: float = 0.0
    up: bool = True
    wait_s: float = 0.0
    codes: frozenset[str] | None = None


@dataclass(frozen=True)
class CentreState:
    """A centre as routing sees it now.

    Attributes
    ----------
    id, clearance
        Name; highest data grade that it may hold.
    partitions
        At least one.
    up, why
        Whether new work may go there, and why not.
    codes
        Names of the codes that are installed; None: everything.
    window
        Jobs of ours in flight at most.
    in_flight_core_s
        Expected work of our jobs there that has not ended, in core-seconds.
    quota_left_core_s
        What the project's quota leaves after what was used and what is in flight, in core-seconds.
    factors
        Workload → core-seconds used per core-second estimated, measured; 1 where nothing was measured.
    blocked
        Workload (empty: all) → why the centre is left alone for a while.
    spare
        Why it is used only by campaigns that name it; empty: it is used by all.
    """

    id: str
    partitions: tuple[PartitionState, ...]
    clearance: str = "general"
    up: bool = True
    why: str = ""
    codes: frozenset[str] | None = None
    window: int = 1_000_000
    in_flight_core_s: float = 0.0
    quota_left_core_s: float = np.inf
    factors: Mapping[str, float] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    spare: str = ""


@dataclass(frozen=True)
class Group:
    """What all tasks of a stage of a campaign have in common.

    Attributes
    ----------
    workload
        What is computed (``relax/chgnet``): the key of what was measured.
    grade
        Of the data.
    allow, deny
        Centre ids; ``allow`` None is all.
    codes
        Codes that must be there.
    strategy
        What is minimised.
    """

    workload: str = ""
    grade: str = "general"
    allow: frozenset[str] | None = None
    deny: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    strategy: Strategy = "balanced"


@dataclass(frozen=True)
class Demand:
    """What n tasks ask for.

    Attributes
    ----------
    groups, group
        The kinds of tasks, and ``i4[n]``: which one each task is of.
    core_s
        ``f8[n]``, estimated work in core-seconds on a machine whose factor is 1.
    cores, gpus
        ``i4[n]``.
    memory_gb, walltime_s
        ``f8[n]``; 0 is "whatever there is".
    spreads
        ``bool[n]``, whether a task may have several nodes.
    """

    groups: Sequence[Group]
    group: np.ndarray
    core_s: np.ndarray
    cores: np.ndarray
    gpus: np.ndarray
    memory_gb: np.ndarray
    walltime_s: np.ndarray
    spreads: np.ndarray

    def __len__(self) -> int:
        return len(self.core_s)

    @classmethod
    def of(
        cls,
        groups: Sequence[Group],
        group: Sequence[int] | np.ndarray,
        core_s: Sequence[float] | np.ndarray,
        *,
        cores: Sequence[int] | np.ndarray | int = 1,
        gpus: Sequence[int] | np.ndarray | int = 0,
        memory_gb: Sequence[float] | np.ndarray | float = 0.0,
        walltime_s: Sequence[float] | np.ndarray | float = 0.0,
        spreads: Sequence[bool] | np.ndarray | bool = True,
    ) -> Demand:
        """Return demands from sequences or single values.

        Raises
        ------
        ValueError
            If lengths differ, or work is negative or not finite.
        """
        work = np.asarray(core_s, dtype=float)
        if not (np.isfinite(work).all() and (work >= 0).all()):
            raise ValueError("core_s must be finite and not negative")
        n = len(work)

        def column(value: object, dtype: type) -> np.ndarray:
            return np.broadcast_to(np.asarray(value, dtype=dtype), (n,))

        return cls(
            tuple(groups),
            column(group, np.int32),
            work,
            column(cores, np.int32),
            column(gpus, np.int32),
            column(memory_gb, float),
            column(walltime_s, float),
            column(spreads, bool),
        )


@dataclass(frozen=True)
class Decision:
    """Where each task goes.

    Attributes
    ----------
    centres
        As given to :func:`route`.
    columns
        ``(centre, partition)`` index of each column of the tables below.
    column
        ``i4[n]``, chosen column; -1 where none fits.
    reasons
        ``u1[n, columns]`` of :class:`Reason`.
    cost
        ``f8[n, columns]``, charge of the task there in units of the profile's ``per_hour``.
    core_s
        ``f8[n]``, expected core-seconds where it goes (estimate × measured factor); 0 where it goes nowhere.
    """

    demand: Demand
    centres: tuple[CentreState, ...]
    columns: tuple[tuple[int, int], ...]
    column: np.ndarray
    reasons: np.ndarray
    cost: np.ndarray
    core_s: np.ndarray

    @property
    def centre(self) -> np.ndarray:
        """``i4[n]``, index of the chosen centre; -1 where none fits."""
        owner = np.array([c for c, _ in self.columns] + [-1], dtype=np.int32)
        return owner[self.column]

    def where(self, task: int) -> tuple[CentreState, PartitionState] | None:
        """Return the centre and the partition of a task; None if nothing fits."""
        if self.column[task] < 0:
            return None
        c, p = self.columns[int(self.column[task])]
        return self.centres[c], self.centres[c].partitions[p]

    def explain(self, task: int) -> list[tuple[str, str, str]]:
        """Return (centre, verdict, why) of a task: ``chosen``, ``fits``, or ``no``.

        Of several partitions the best one is told: the chosen one, one that fits, the one that got furthest.
        """
        rows = []
        for index, centre in enumerate(self.centres):
            mine = [k for k, (c, _) in enumerate(self.columns) if c == index]
            if self.column[task] in mine:
                k = int(self.column[task])
                partition = centre.partitions[self.columns[k][1]]
                rows.append((centre.id, "chosen", self._terms(task, k, partition)))
                continue
            best = max(mine, key=lambda k: (self.reasons[task, k] == Reason.FITS, self.reasons[task, k]))
            partition = centre.partitions[self.columns[best][1]]
            reason = Reason(int(self.reasons[task, best]))
            if reason is Reason.FITS:
                rows.append((centre.id, "fits", self._terms(task, best, partition)))
            else:
                rows.append((centre.id, "no", self._refusal(reason, task, centre, partition)))
        return rows

    def _terms(self, task: int, k: int, partition: PartitionState) -> str:
        cost = f"charge {self.cost[task, k]:.3g}" if partition.per_hour else "free of charge"
        centre = self.centres[self.columns[k][0]]
        factor = centre.factors.get(self.demand.groups[int(self.demand.group[task])].workload)
        speed = "not measured yet" if factor is None else f"{factor:.3g} × the estimated work"
        return f"partition {partition.name}: wait {partition.wait_s:.0f} s, {cost}, {speed}"

    def _refusal(self, reason: Reason, task: int, centre: CentreState, partition: PartitionState) -> str:
        d = self.demand
        group = d.groups[int(d.group[task])]
        missing = ", ".join(sorted(group.codes - (centre.codes or frozenset())))
        texts: dict[Reason, Callable[[], str]] = {
            Reason.NOT_ALLOWED: lambda: (
                centre.spare if group.allow is None else "the campaign does not allow it"
            ),
            Reason.DENIED: lambda: "the campaign denies it",
            Reason.BLOCKED: lambda: f"left alone after a failure: {_blocked(centre, group)}",
            Reason.CLEARANCE: lambda: f"cleared for '{centre.clearance}' data, these are '{group.grade}'",
            Reason.CODE: lambda: f"has no code {missing or 'of this kind in ' + partition.name}",
            Reason.CORES: lambda: (
                f"a batch asks for {d.cores[task]} cores, one of its jobs may have "
                f"{partition.cores * (partition.max_nodes if d.spreads[task] else 1)}"
            ),
            Reason.MEMORY: lambda: (
                f"a batch asks for {d.memory_gb[task]:g} GB, its nodes have {partition.memory_gb:g} GB"
            ),
            Reason.GPUS: lambda: f"a batch asks for {d.gpus[task]} GPUs, its nodes have {partition.gpus}",
            Reason.WALLTIME: lambda: (
                f"a batch asks for {d.walltime_s[task]:.0f} s, its jobs may last {partition.max_wall_s:.0f} s"
            ),
            Reason.QUOTA: lambda: (
                f"the batch needs {d.core_s[task] * _factor(centre, group) / 3600:.3g} core-hours, the quota "
                f"leaves {max(centre.quota_left_core_s, 0) / 3600:.3g} before the batches ahead of it"
            ),
            Reason.DOWN: lambda: centre.why or f"partition {partition.name} starts no jobs",
        }
        return texts[reason]()


def _factor(centre: CentreState, group: Group) -> float:
    return centre.factors.get(group.workload, 1.0)


def _blocked(centre: CentreState, group: Group) -> str:
    return centre.blocked.get("") or centre.blocked.get(group.workload, "")


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
        factor = np.array([_factor(centre, group) for group in demand.groups])
        work[:, k] = demand.core_s * factor[demand.group]
        cost[:, k] = work[:, k] / 3600 * _price(demand, partition)
        reasons[:, k] = _filter(demand, centre, partition, work[:, k])
    chosen = np.full(n, -1, dtype=np.int32)
    if n and m:
        _place(demand, columns, reasons, work, cost, chosen)
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
        elif _blocked(centre, group):
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


def _place(
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

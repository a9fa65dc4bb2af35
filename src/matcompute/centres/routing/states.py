"""What routing decides on: tasks and what they ask for, centres and what they offer now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np

__all__ = [
    "STRATEGIES",
    "CentreState",
    "Demand",
    "Group",
    "PartitionState",
    "Reason",
    "Strategy",
    "blocked",
    "factor",
]

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


def factor(centre: CentreState, group: Group) -> float:
    return centre.factors.get(group.workload, 1.0)


def blocked(centre: CentreState, group: Group) -> str:
    return centre.blocked.get("") or centre.blocked.get(group.workload, "")

"""`Decision`: where each task goes, and why not elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from matcompute.centres.routing.states import CentreState, Demand, PartitionState, Reason, blocked, factor

__all__ = ["Decision"]


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
            Reason.BLOCKED: lambda: f"left alone after a failure: {blocked(centre, group)}",
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
                f"the batch needs {d.core_s[task] * factor(centre, group) / 3600:.3g} core-hours, the quota "
                f"leaves {max(centre.quota_left_core_s, 0) / 3600:.3g} before the batches ahead of it"
            ),
            Reason.DOWN: lambda: centre.why or f"partition {partition.name} starts no jobs",
        }
        return texts[reason]()

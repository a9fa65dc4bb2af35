"""Routing's input: centres as they are now, from their profiles and the state tables, and what a stage asks for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from matcompute.campaign.state.centres import BlockRow, CentreRow, InFlight
from matcompute.centres.limits import Load, Room, partition_room, room
from matcompute.centres.routing import CentreState, Group, PartitionState
from matcompute.centres.schedulers.queue import PartitionLook, QueueLook
from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from matcompute.campaign.model import Campaign, Stage
    from matcompute.centres import Centre
    from matcompute.centres.model import CodeBlock
    from matcompute.workspace import Workspace

__all__ = [
    "NODE_PROGRAM",
    "Situation",
    "centre_state",
    "factor",
    "known_centres",
    "stage_codes",
    "stage_group",
    "workload",
]

NODE_PROGRAM = "matcompute-node"


def known_centres(workspace: Workspace) -> tuple[dict[str, Centre], dict[str, str]]:
    """Return the centres of a workspace by id, and what is wrong with those that cannot be used."""
    from matcompute.centres.registry import centre_ids, load_centre

    found: dict[str, Centre] = {}
    wrong: dict[str, str] = {}
    for name in centre_ids(workspace):
        try:
            found[name] = load_centre(workspace, name)
        except MatcomputeError as error:
            wrong[name] = error.message
    return found, wrong


def workload(stage: Stage) -> str:
    """Return the key under which costs of a stage are measured, such as ``relax/chgnet`` or ``describe/soap``."""
    what = stage.calculator.name if stage.calculator is not None else stage.parameters.get("descriptor")
    return f"{stage.kind}/{what}" if isinstance(what, str) else stage.kind


def stage_group(campaign: Campaign, stage: Stage) -> Group:
    """Return what all batches of a stage have in common."""
    placement = campaign.centres
    return Group(
        workload=workload(stage),
        grade=campaign.grade,
        allow=None if placement.allow is None else frozenset(placement.allow),
        deny=frozenset(placement.deny),
        codes=stage_codes(stage),
        strategy=placement.strategy,
    )


def stage_codes(stage: Stage) -> frozenset[str]:
    """Return what a centre must have for a stage: the node program, or codes by their AiiDA plugins."""
    from matcompute.campaign.adapters import calculator_adapter, is_per_structure, stage_parameters

    if stage.calculator is None or not is_per_structure(stage):
        return frozenset({NODE_PROGRAM})
    _, parameters = stage_parameters(stage)
    return frozenset(calculator_adapter(stage.calculator.name).plugins(stage.kind, parameters))


def _names(codes: Iterable[CodeBlock]) -> frozenset[str]:
    """Names of codes, and the AiiDA plugins that they run: a stage may ask for either."""
    return frozenset(name for code in codes for name in (code.name, code.plugin))


def factor(factors: Mapping[str, Mapping[str, float]], centre: str, work: str) -> float | None:
    """Return core-seconds used per core-second estimated: measured there, else anywhere, else None."""
    here = factors.get(centre, {}).get(work)
    return factors.get("", {}).get(work) if here is None else here


def centre_state(
    centre: Centre,
    *,
    row: CentreRow | None = None,
    flight: InFlight | None = None,
    blocks: Sequence[BlockRow] = (),
    factors: Mapping[str, Mapping[str, float]] | None = None,
    waits: Mapping[tuple[str, str], float] | None = None,
    used: Mapping[tuple[str, str], float] | None = None,
    account: str | None = None,
    alone: bool = True,
) -> CentreState:
    """Return a centre as routing sees it.

    Parameters
    ----------
    centre
        Its profile.
    row
        What it answered last; None: it was never asked (and is taken to be as its profile says).
    flight, blocks
        Our batches there, and why it is left alone.
    factors, waits, used
        Measured: :func:`~matcompute.campaign.state.usage.measured_factors`, ``queue_waits``, ``project_core_s``.
    account
        The project whose quota counts; the centre's default.
    alone
        Whether it is the only one: beside others, a machine without a profile is used only where it is named.
    """
    flight = flight or InFlight()
    looks = QueueLook.from_json(row.queue if row is not None else None)
    measured = {**(factors or {}).get("", {}), **(factors or {}).get(centre.id, {})}
    state, reason, since = ("up", "", 0.0) if row is None else (row.state, row.reason, row.since)
    why = "" if state == "up" else f"{state} since {time.strftime('%H:%M', time.localtime(since))}: {reason}"
    return CentreState(
        id=centre.id,
        clearance=centre.clearance,
        partitions=tuple(
            _partition(centre, part.name, looks.get(part.name), waits or {}) for part in centre.partitions
        ),
        up=state == "up",
        why=why,
        codes=_names(centre.codes) | ({NODE_PROGRAM} if centre.is_local else set()),
        window=centre.window,
        in_flight_core_s=flight.core_s,
        quota_left_core_s=_quota_left(centre, flight, used or {}, account),
        factors=measured,
        blocked={block.workload: block.reason for block in blocks if block.centre == centre.id},
        spare=""
        if alone or not centre.detected
        else f"this machine, without centres/{centre.id}.yaml: only if named",
    )


def _partition(
    centre: Centre, name: str, look: PartitionLook | None, waits: Mapping[tuple[str, str], float]
) -> PartitionState:
    part = centre.partition(name)
    # A workstation starts what it gets; elsewhere the live queue tells, else how long our jobs have waited.
    wait = waits.get((centre.id, name), 0.0) if look is None else look.wait_s()
    codes = _names(code for code in centre.codes if code.runs_in(name))
    return PartitionState(
        name=name,
        nodes=part.nodes if look is None else min(part.nodes, max(look.nodes, 1)),
        cores=part.cores,
        memory_gb=part.mem_gb,
        gpus=part.n_gpus,
        max_nodes=part.max_nodes or part.nodes,
        max_wall_s=np.inf if part.max_wall_s is None else part.max_wall_s,
        charge=part.charge.unit,
        per_hour=part.charge.per_hour if "charge" in part.model_fields_set else 0.0,
        up=look is None or look.starts,
        wait_s=wait,
        codes=codes | {NODE_PROGRAM} if centre.is_local else codes,
    )


def _quota_left(
    centre: Centre, flight: InFlight, used: Mapping[tuple[str, str], float], account: str | None
) -> float:
    project = centre.project(account)
    if project is None or project.quota_core_h is None:
        return np.inf
    if project.until is not None and time.strftime("%Y-%m-%d") > project.until.isoformat():
        return 0.0
    spent = used.get((centre.id, project.account), 0.0)
    return 3600.0 * project.quota_core_h - spent - (flight.by_project or {}).get(project.account, 0.0)


@dataclass
class Situation:
    """All that decides where batches go, read at one moment.

    Attributes
    ----------
    profiles
        Centre id → profile.
    rows, flights, factors, waits, used, recent
        From the state tables.
    max_jobs
        One limit over all centres.
    """

    profiles: Mapping[str, Centre]
    rows: Mapping[str, CentreRow] = field(default_factory=dict)
    flights: Mapping[str, InFlight] = field(default_factory=dict)
    blocks: Sequence[BlockRow] = ()
    factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    waits: Mapping[tuple[str, str], float] = field(default_factory=dict)
    used: Mapping[tuple[str, str], float] = field(default_factory=dict)
    recent: Mapping[str, Sequence[float]] = field(default_factory=dict)
    max_jobs: int | None = None

    @classmethod
    def read(
        cls, connection: Connection, profiles: Mapping[str, Centre], *, max_jobs: int | None = None
    ) -> Situation:
        """Read the tables."""
        from matcompute.campaign.state.centres import blocks, centre_rows, in_flight, recent_submissions
        from matcompute.campaign.state.usage import measured_factors, project_core_s, queue_waits

        slowest = min((c.scheduler.submit_per_min or 1.0 for c in profiles.values()), default=1.0)
        span = 60.0 / min(1.0, slowest)
        return cls(
            profiles,
            centre_rows(connection),
            in_flight(connection),
            blocks(connection),
            measured_factors(connection),
            queue_waits(connection),
            project_core_s(connection),
            recent_submissions(connection, time.time() - span),
            max_jobs,
        )

    @property
    def everywhere(self) -> int:
        """Our batches in flight at all centres."""
        return sum(flight.count for flight in self.flights.values())

    def states(self, accounts: Mapping[str, str] | None = None) -> list[CentreState]:
        """Return the centres as routing sees them; ``accounts``: centre id → project that is charged there."""
        return [
            centre_state(
                centre,
                row=self.rows.get(name),
                flight=self.flights.get(name),
                blocks=self.blocks,
                factors=self.factors,
                waits=self.waits,
                used=self.used,
                account=(accounts or {}).get(name),
                alone=len(self.profiles) < 2,
            )
            for name, centre in self.profiles.items()
        ]

    def room(self, name: str, *, single: bool = False) -> Room:
        """Return how many more batches a centre may get now; ``single``: jobs of per-structure stages."""
        flight = self.flights.get(name, InFlight())
        row = self.rows.get(name)
        queue = (row.queue if row is not None else None) or {}
        load = Load(
            in_flight=flight.count,
            recent=self.recent.get(name, ()),
            user_jobs=queue.get("user_jobs"),
            in_flight_then=int(queue.get("in_flight_then", 0)),
            singles=flight.singles,
        )
        return room(
            self.profiles[name],
            load,
            now=time.time(),
            everywhere=self.everywhere,
            max_jobs=self.max_jobs,
            single=single,
        )

    def partition_room(self, name: str, partition: str) -> int | None:
        """Return how many more batches a partition may get; None is no limit of its own."""
        flight = self.flights.get(name, InFlight())
        return partition_room(self.profiles[name], partition, (flight.by_partition or {}).get(partition, 0))

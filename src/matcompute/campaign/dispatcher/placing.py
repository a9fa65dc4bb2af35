"""Which planned batches are submitted now, and where: routing, then the room that limits leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from matcompute.campaign.adapters import is_per_structure
from matcompute.campaign.batches import TARGET_S
from matcompute.campaign.dispatcher.definition import definition
from matcompute.campaign.placement import stage_codes, stage_group
from matcompute.campaign.state import State
from matcompute.campaign.state.batches import BatchRow, batches_of, spent
from matcompute.campaign.state.campaigns import CampaignRow, StageRow, stages_of
from matcompute.campaign.state.centres import begun_at
from matcompute.centres.routing import Decision, Demand, Group, Reason, route

if TYPE_CHECKING:
    from matcompute.campaign.dispatcher.pool import Pool
    from matcompute.campaign.model import Stage
    from matcompute.campaign.placement import Situation
    from matcompute.centres import Centre

__all__ = ["Capacity", "Place", "Stuck", "Turn", "alternatives", "capacity", "take_turn"]

#: Planned batches of a campaign that are looked at in a turn.
LOOKAHEAD = 64
#: Wall time that a structure with a process of its own should take, in s.
SINGLE_S = 1800.0
#: Reasons that may pass by themselves, or when somebody has mended something.
PASSING = (Reason.QUOTA, Reason.DOWN, Reason.BLOCKED)


@dataclass(frozen=True)
class Place:
    """Where a batch goes, and with what.

    Attributes
    ----------
    row, batch, stage
        What.
    centre, partition, project
        Where, and who is charged.
    why
        In words.
    core_s
        Expected core-seconds there.
    processes, walltime_s, ranks
        Chosen from the expected work where the campaign does not say; ``walltime_s`` None: no limit is asked; ``ranks``
        0: no MPI.
    """

    row: CampaignRow
    batch: BatchRow
    stage: Stage
    centre: str
    partition: str
    project: str
    why: str
    core_s: float
    processes: int
    walltime_s: float | None
    ranks: int = 0


@dataclass(frozen=True)
class Stuck:
    """A campaign none of whose batches can go anywhere.

    Attributes
    ----------
    kind
        ``waits`` (for a centre that is down), ``quota``, ``blocked`` (after failures), ``nowhere``.
    text
        Why, centre by centre.
    """

    row: CampaignRow
    kind: Literal["waits", "quota", "blocked", "nowhere"]
    text: str


@dataclass
class Turn:
    """What can be done now."""

    places: list[Place] = field(default_factory=list)
    over: list[CampaignRow] = field(default_factory=list)
    stuck: list[Stuck] = field(default_factory=list)


@dataclass(frozen=True)
class Capacity:
    """What a stage has before it.

    Attributes
    ----------
    cores
        That its batches can keep busy at all centres that suit it.
    per_batch
        Cores of one batch.
    factor
        Core-seconds used per core-second estimated; None if nothing like it was ever measured.
    slots
        Batches that the centres' windows take at once.
    centres
        How many centres that is.
    """

    cores: int
    per_batch: int
    factor: float | None
    slots: int
    centres: int


def _demand(
    groups: Sequence[Group], stages: Sequence[Stage], group: Sequence[int], core_s: Sequence[float]
) -> Demand:
    wants = [stages[g].resources for g in group]
    return Demand.of(
        groups,
        np.asarray(group, dtype=int),
        np.asarray(core_s, dtype=float),
        cores=np.array([w.cores for w in wants], dtype=int),
        gpus=np.array([w.gpus for w in wants], dtype=int),
        memory_gb=np.array([w.memory or 0.0 for w in wants], dtype=float),
        walltime_s=np.array([w.walltime or 0.0 for w in wants], dtype=float),
        # Ranks may be on several nodes, processes of one job are not.
        spreads=np.array([w.ranks > 0 for w in wants], dtype=bool),
    )


def _probe(row: CampaignRow, stage: Stage, situation: Situation, deny: str = "") -> Decision:
    group = stage_group(definition(row), stage)
    if deny:
        group = replace(group, deny=group.deny | {deny})
    states = situation.states(definition(row).centres.projects)
    return route(_demand([group], [stage], [0], [0.0]), states)


def alternatives(row: CampaignRow, stage: Stage, situation: Situation, deny: str) -> bool:
    """Tell whether another centre than ``deny`` takes batches of a stage now."""
    return bool((_probe(row, stage, situation, deny).reasons == Reason.FITS).any())


def capacity(row: CampaignRow, stage: Stage, situation: Situation) -> Capacity:
    """Return what a stage has before it: centres that suit it, also those that are down for a while."""
    decision = _probe(row, stage, situation)
    here = decision.reasons[0]
    suits = (here == Reason.FITS) | np.isin(here, PASSING)
    names = {decision.centres[c].id for k, (c, _) in enumerate(decision.columns) if suits[k]}
    profiles = [situation.profiles[name] for name in names]
    single = is_per_structure(stage)
    slots = sum(
        profile.window_singles if single and profile.is_local else profile.window for profile in profiles
    )
    cores = 0
    for index, state in enumerate(decision.centres):
        mine = [p for k, (c, p) in enumerate(decision.columns) if c == index and suits[k]]
        cores += sum(state.partitions[p].nodes * state.partitions[p].cores for p in mine)
    group = stage_group(definition(row), stage)
    per_batch = stage.resources.cores
    if (
        not single
        and _free_to_choose(stage)
        and profiles
        and not any(profile.is_local for profile in profiles)
    ):
        # Few jobs may be in flight: each then takes as many cores as its share is.
        widest = min(max(part.cores for part in profile.partitions) for profile in profiles)
        per_batch = max(per_batch, min(widest, cores // max(slots, 1)))
    return Capacity(
        cores=max(1, min(cores, slots * per_batch)),
        per_batch=per_batch,
        factor=situation.factors.get("", {}).get(group.workload),
        slots=max(1, slots),
        centres=len(profiles),
    )


def _free_to_choose(stage: Stage) -> bool:
    return not stage.resources.ranks and "processes" not in stage.resources.model_fields_set


def take_turn(state: State, rows: Sequence[CampaignRow], pool: Pool) -> Turn:
    """Route the planned batches of campaigns, one of each in turn, and keep what limits let through now."""
    turn = Turn()
    with state.read() as connection:
        planned = [(row, batches_of(connection, row.id, ["planned"], limit=LOOKAHEAD)) for row in rows]
        planned = [(row, batches) for row, batches in planned if batches]
        if not planned:
            return turn
        situation = pool.situation(connection)
        begun = begun_at(connection, [b.id for _, batches in planned for b in batches if b.attempts])
        # One that has gone for good takes its checkpoints with it.
        begun = {batch_id: name for batch_id, name in begun.items() if name in situation.profiles}
        stages = {row.id: {s.id: s for s in stages_of(connection, row.id)} for row, _ in planned}
        money = {row.id: spent(connection, row.id) for row, _ in planned}
    rooms = _Rooms(situation, money)
    # Quotas are those of the projects that a campaign charges: campaigns that charge the same are routed together.
    portions: dict[tuple[tuple[str, str], ...], list[tuple[CampaignRow, list[BatchRow]]]] = {}
    for row, batches in planned:
        accounts = tuple(sorted(definition(row).centres.projects.items()))
        portions.setdefault(accounts, []).append((row, batches))
    for accounts, portion in portions.items():
        queue = _interleaved(portion)
        decision, kinds = _route(queue, stages, begun, situation, dict(accounts))
        _keep(turn, queue, decision, kinds, rooms)
        for row, _ in portion:
            _look_stuck(turn, row, queue, decision, situation)
    return turn


def _interleaved(
    planned: Sequence[tuple[CampaignRow, list[BatchRow]]],
) -> list[tuple[CampaignRow, BatchRow]]:
    longest = max(len(batches) for _, batches in planned)
    return [(row, batches[k]) for k in range(longest) for row, batches in planned if k < len(batches)]


def _route(
    queue: Sequence[tuple[CampaignRow, BatchRow]],
    stages: dict[int, dict[int, StageRow]],
    begun: dict[int, str],
    situation: Situation,
    accounts: dict[str, str],
) -> tuple[Decision, list[Stage]]:
    places: dict[tuple[int, int, str], int] = {}
    groups: list[Group] = []
    kinds: list[Stage] = []
    index = []
    for row, batch in queue:
        only = begun.get(batch.id, "")
        key = (row.id, batch.stage_id, only)
        if key not in places:
            campaign = definition(row)
            stage = campaign.stage(stages[row.id][batch.stage_id].name)
            places[key] = len(groups)
            group = stage_group(campaign, stage)
            groups.append(replace(group, allow=frozenset({only})) if only else group)
            kinds.append(stage)
        index.append(places[key])
    demand = _demand(groups, kinds, index, [batch.estimate_s for _, batch in queue])
    return route(demand, situation.states(accounts)), kinds


class _Rooms:
    """What limits still let through in this turn; taken from as batches are placed."""

    def __init__(self, situation: Situation, money: dict[int, tuple[float, float]]) -> None:
        self.situation, self.money = situation, money
        self.centres: dict[tuple[str, bool], int] = {}
        self.partitions: dict[tuple[str, str], int | None] = {}
        limit = situation.max_jobs
        self.left = None if limit is None else limit - situation.everywhere

    def take(self, centre: str, partition: str, jobs: int = 1, *, single: bool = False) -> bool:
        """Take the places of a batch, if there is one: of one that needs several, the last may be missing."""
        key = (centre, partition)
        if key not in self.partitions:
            self.partitions[key] = self.situation.partition_room(centre, partition)
        # Only on this machine have single structures a window of their own.
        window = (centre, single and self.situation.profiles[centre].is_local)
        if window not in self.centres:
            self.centres[window] = self.situation.room(centre, single=single).count
        room = self.partitions[key]
        if self.centres[window] <= 0 or room == 0 or (self.left is not None and self.left <= 0):
            return False
        self.centres[window] -= jobs
        self.partitions[key] = None if room is None else max(0, room - jobs)
        self.left = None if self.left is None else self.left - jobs
        return True


def _keep(
    turn: Turn,
    queue: Sequence[tuple[CampaignRow, BatchRow]],
    decision: Decision,
    kinds: Sequence[Stage],
    rooms: _Rooms,
) -> None:
    for task, (row, batch) in enumerate(queue):
        used, expected = rooms.money[row.id]
        if row.budget_core_s is not None and used + expected >= row.budget_core_s:
            if used >= row.budget_core_s and row not in turn.over:
                turn.over.append(row)
            continue
        where = decision.where(task)
        if where is None or not rooms.take(where[0].id, where[1].name, batch.jobs, single=batch.single):
            continue
        core_s = float(decision.core_s[task])
        rooms.money[row.id] = (used, expected + core_s)
        stage = kinds[int(decision.demand.group[task])]
        centre = rooms.situation.profiles[where[0].id]
        why = next((text for _, verdict, text in decision.explain(task) if verdict == "chosen"), "")
        turn.places.append(_place(row, batch, stage, centre, where[1].name, why, core_s))


def _place(
    row: CampaignRow, batch: BatchRow, stage: Stage, centre: Centre, partition: str, why: str, core_s: float
) -> Place:
    part = centre.partition(partition)
    project = centre.project(definition(row).centres.projects.get(centre.id))
    wants = stage.resources
    processes, walltime, ranks = wants.processes, wants.walltime, wants.ranks
    if batch.single:
        ranks = _ranks(stage, centre, partition, core_s)
    elif _free_to_choose(stage) and not centre.is_local:
        most = max(1, min(part.cores // wants.threads, batch.n_total))
        processes = int(np.clip(round(core_s / wants.threads / TARGET_S), 1, most))
    if walltime is None and centre.scheduler.type != "direct":
        # Four times what is expected, and time to start: what does not fit goes on in the next job.
        cores = (ranks or processes) * wants.threads
        walltime = max(600.0, 60.0 * np.ceil((4.0 * core_s / cores + 300.0) / 60.0))
        walltime = float(min(walltime, part.max_wall_s or np.inf))
    return Place(
        row=row,
        batch=batch,
        stage=stage,
        centre=centre.id,
        partition=partition,
        project="" if project is None else project.account,
        why=why,
        core_s=core_s,
        processes=processes,
        walltime_s=walltime,
        ranks=ranks,
    )


def _ranks(stage: Stage, centre: Centre, partition: str, core_s: float) -> int:
    """Return the MPI ranks of a single structure: given, else so many that it is done in about half an hour."""
    wants = stage.resources
    plugins = stage_codes(stage)
    mpi = any(code.mpi for code in centre.codes if code.plugin in plugins and code.runs_in(partition))
    if wants.ranks or not mpi or centre.is_local:
        return wants.ranks
    most = max(1, centre.partition(partition).cores // wants.threads)
    # Powers of two divide into pools of k-points.
    wanted = 2 ** int(np.ceil(np.log2(max(1.0, core_s / SINGLE_S))))
    return int(min(most, wanted))


def _look_stuck(
    turn: Turn,
    row: CampaignRow,
    queue: Sequence[tuple[CampaignRow, BatchRow]],
    decision: Decision,
    situation: Situation,
) -> None:
    mine = [task for task, (owner, _) in enumerate(queue) if owner.id == row.id]
    if (decision.column[mine] >= 0).any() or row in turn.over:
        return
    reasons = set(decision.reasons[mine].ravel().tolist())
    text = "; ".join(f"{name}: {why}" for name, _, why in decision.explain(mine[0]))
    if Reason.DOWN in reasons:
        turn.stuck.append(Stuck(row, "waits", text))
    elif Reason.QUOTA in reasons:
        # What is in flight may use less than expected, and give quota back.
        busy = any(
            flight.count
            for name, flight in situation.flights.items()
            if Reason.QUOTA in _of(decision, mine[0], name)
        )
        turn.stuck.append(Stuck(row, "waits" if busy else "quota", text))
    elif Reason.BLOCKED in reasons:
        turn.stuck.append(Stuck(row, "blocked", text))
    else:
        turn.stuck.append(Stuck(row, "nowhere", text or "no centre is registered"))


def _of(decision: Decision, task: int, name: str) -> list[int]:
    return [
        int(decision.reasons[task, k])
        for k, (c, _) in enumerate(decision.columns)
        if decision.centres[c].id == name
    ]

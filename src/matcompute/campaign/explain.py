"""Why batches go where they go: every centre's terms or refusal for each stage, and what happened so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, select

from matcompute.campaign.placement import Situation, known_centres, stage_group
from matcompute.campaign.state.campaigns import by_name
from matcompute.campaign.state.campaigns import find as find_campaign
from matcompute.campaign.state.models import batch, stage, submission
from matcompute.centres.routing import STRATEGIES, Demand, route

if TYPE_CHECKING:
    from rich.console import RenderableType

    from matcompute.campaign.model import Campaign, Stage
    from matcompute.campaign.state import State
    from matcompute.workspace import Workspace

__all__ = ["Choice", "Explanation", "StageExplanation", "explain_campaign", "explain_lines", "stage_choices"]


@dataclass(frozen=True)
class Choice:
    """What a centre says to the next batch of a stage: ``chosen``, ``fits`` or ``no``, and why."""

    centre: str
    verdict: str
    why: str


@dataclass(frozen=True)
class StageExplanation:
    """Where the batches of a stage go.

    Attributes
    ----------
    stage, workload
        Which; the key of its measured costs.
    core_s, cores
        Of one batch: estimated core-seconds, cores asked for.
    choices
        Every centre's answer, as things are now.
    placed
        Centre → batches by state, of those that were given to it.
    moved
        Attempts that did not end where they began: (batch, centre, outcome, reason).
    """

    stage: str
    workload: str
    core_s: float
    cores: int
    choices: list[Choice]
    placed: dict[str, dict[str, int]] = field(default_factory=dict)
    moved: list[tuple[int, str, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Explanation:
    """Where a campaign goes, stage by stage."""

    campaign: str
    grade: str
    strategy: str
    stages: list[StageExplanation]
    #: Centres whose profiles cannot be read, and why.
    unusable: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary."""
        return {"schema": "matcompute.explanation/v1", **asdict(self)}


def stage_choices(campaign: Campaign, chosen: Stage, core_s: float, situation: Situation) -> list[Choice]:
    """Return every centre's answer to one batch of a stage.

    Parameters
    ----------
    campaign, chosen
        The stage.
    core_s
        Estimated work of the batch in core-seconds.
    situation
        The centres as they are now.
    """
    wants = chosen.resources
    demand = Demand.of(
        [stage_group(campaign, chosen)],
        [0],
        [core_s],
        cores=wants.cores,
        gpus=wants.gpus,
        memory_gb=wants.memory or 0.0,
        walltime_s=wants.walltime or 0.0,
        spreads=wants.ranks > 0,
    )
    decision = route(demand, situation.states(campaign.centres.projects))
    return [Choice(*row) for row in decision.explain(0)]


def explain_campaign(workspace: Workspace, state: State, name: str) -> Explanation:
    """Explain a campaign of the workspace by name, or a campaign file.

    Raises
    ------
    InputError
        If there is no such campaign and no such file, or the file has problems.
    """
    from matcompute.campaign.dispatcher.definition import definition
    from matcompute.campaign.model import Campaign
    from matcompute.campaign.plan import plan

    profiles, unusable = known_centres(workspace)
    with state.read() as connection:
        situation = Situation.read(connection, profiles)
        row = by_name(connection, name)
        if row is None and Path(name).is_file():
            campaign = Campaign.load(name)
            estimates = {
                s.name: 3600 * s.core_hours / s.batches
                for s in plan(campaign, centres=profiles).stages
                if s.batches
            }
            history: dict[str, tuple[dict[str, dict[str, int]], list[tuple[int, str, str, str]]]] = {}
        else:
            row = row or find_campaign(connection, name)
            campaign = definition(row)
            estimates = _estimates(connection, row.id)
            history = {s.name: _history(connection, row.id, s.name) for s in campaign.stages}
    stages = []
    for part in campaign.stages:
        if part.is_gate:
            continue
        core_s = estimates.get(part.name, 0.0)
        placed, moved = history.get(part.name, ({}, []))
        stages.append(
            StageExplanation(
                stage=part.name,
                workload=stage_group(campaign, part).workload,
                core_s=core_s,
                cores=part.resources.cores,
                choices=stage_choices(campaign, part, core_s, situation),
                placed=placed,
                moved=moved,
            )
        )
    return Explanation(campaign.name, campaign.grade, campaign.centres.strategy, stages, unusable)


def _estimates(connection: Connection, campaign_id: int) -> dict[str, float]:
    """Mean estimate of a stage's batches."""
    query = (
        select(stage.c.name, func.avg(batch.c.estimate_s))
        .join(stage, stage.c.id == batch.c.stage_id)
        .where(batch.c.campaign_id == campaign_id)
        .group_by(stage.c.id)
    )
    return {name: float(mean or 0.0) for name, mean in connection.execute(query)}


def _history(
    connection: Connection, campaign_id: int, name: str
) -> tuple[dict[str, dict[str, int]], list[tuple[int, str, str, str]]]:
    here = (
        select(stage.c.id).where(stage.c.campaign_id == campaign_id, stage.c.name == name).scalar_subquery()
    )
    counts = (
        select(batch.c.centre, batch.c.state, func.count())
        .where(batch.c.stage_id == here, batch.c.state != "planned")
        .group_by(batch.c.centre, batch.c.state)
    )
    placed: dict[str, dict[str, int]] = {}
    for centre, what, count in connection.execute(counts):
        placed.setdefault(centre, {})[what] = int(count)
    attempts = (
        select(batch.c.number, submission.c.centre, submission.c.outcome, submission.c.reason)
        .join(batch, batch.c.id == submission.c.batch_id)
        .where(batch.c.stage_id == here, submission.c.outcome.in_(("failed", "rerouting", "rerouted")))
        .order_by(submission.c.id)
    )
    moved = [(int(n), centre, outcome, reason) for n, centre, outcome, reason in connection.execute(attempts)]
    return placed, moved


def explain_lines(found: Explanation) -> Iterator[RenderableType]:
    """Yield what people see."""
    from rich.table import Table
    from rich.text import Text

    yield Text(
        f"campaign '{found.campaign}': grade {found.grade}, strategy {found.strategy} "
        f"({STRATEGIES[found.strategy]})"
    )
    for part in found.stages:
        yield Text("")
        size = (
            f"a batch is about {part.core_s / 3600:.3g} core-hours on " if part.core_s else "a batch takes "
        )
        cores = f"{part.cores} core{'s' if part.cores > 1 else ''}"
        yield Text.assemble((f"stage {part.stage}", "bold"), f": {size}{cores}")
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        for _ in range(4):
            table.add_column(overflow="fold")
        styles = {"chosen": "bold green", "fits": "green", "no": "red"}
        words = {"chosen": "next batch", "fits": "fits", "no": "no"}
        for choice in part.choices:
            states = part.placed.get(choice.centre, {})
            so_far = ", ".join(f"{count} {what}" for what, count in sorted(states.items()))
            table.add_row(
                f"  {choice.centre}",
                Text(words[choice.verdict], style=styles[choice.verdict]),
                choice.why,
                Text(so_far, style="dim"),
            )
        yield table
        for number, centre, outcome, reason in part.moved[-5:]:
            yield Text(f"  batch {number} at {centre}: {outcome}: {reason}", style="dim")
    for name, message in found.unusable.items():
        yield Text(f"centre '{name}' cannot be used: {message}", style="red")

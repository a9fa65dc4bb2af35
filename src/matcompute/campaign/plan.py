"""``campaign plan``: what a campaign would do and cost. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.campaign.batches import batch_count
from matcompute.campaign.check import CentreLike, check_campaign, default_centres, usable_centres
from matcompute.campaign.costs import batch_limit, structure_costs
from matcompute.campaign.model import Campaign, Stage
from matcompute.campaign.potentials import stored_files
from matcompute.campaign.resolution import facts_of, resolve_campaign
from matcompute.gates import read_gate
from matcompute.yamlfile import Problem

if TYPE_CHECKING:
    from matcompute.campaign.explain import Choice
    from matcompute.structures import IngestReport

__all__ = ["Plan", "StagePlan", "plan"]

#: Wall time of one batch beside its work: submission, start of Python and of the model, retrieval.
BATCH_OVERHEAD_S = 4.0
#: Wall time of a gate.
GATE_S = 2.0


@dataclass(frozen=True)
class StagePlan:
    """One stage of a plan.

    Attributes
    ----------
    name, kind, is_gate, calculator
        As in the campaign; of a describe stage the descriptor in place of the calculator.
    structures
        Upper bound: gates let through as many as enter, or their n.
    tasks
        Structure calculations, elemental references among them (0 for gates).
    batches, batch_size
        AiiDA jobs, and structures in the largest of them.
    stored_bytes
        What the files of a first-principles stage take in the AiiDA repository, about; 0 for others.
    files
        What becomes of them, in words.
    core_hours, wall_hours
        Estimates; wall on the campaign's largest centre if nothing else runs there.
    """

    name: str
    kind: str
    is_gate: bool
    calculator: str | None
    structures: int
    tasks: int
    batches: int
    batch_size: int
    core_hours: float
    wall_hours: float
    stored_bytes: float = 0.0
    files: str = ""

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


@dataclass
class Plan:
    """What a campaign would do."""

    campaign: Campaign
    structures: IngestReport
    stages: list[StagePlan]
    centre: str
    cores: int
    warnings: list[Problem] = field(default_factory=list)
    #: Compute stage → what each centre says to its first batch; where there is more than one centre.
    placements: dict[str, list[Choice]] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        return sum(stage.tasks for stage in self.stages)

    @property
    def batches(self) -> int:
        return sum(stage.batches for stage in self.stages)

    @property
    def core_hours(self) -> float:
        return sum(stage.core_hours for stage in self.stages)

    @property
    def wall_hours(self) -> float:
        return sum(stage.wall_hours for stage in self.stages)

    @property
    def within_budget(self) -> bool | None:
        """Whether the estimate is within the budget; None without a budget."""
        budget = self.campaign.budget.core_hours
        return None if budget is None else self.core_hours <= budget

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: structures with every reject, stages, totals, budget, warnings."""
        return {
            "schema": "matcompute.plan/v1",
            "campaign": self.campaign.name,
            "file": str(self.campaign.path),
            "centre": {"id": self.centre, "cores": self.cores},
            "structures": self.structures.as_dict(),
            "stages": [stage.as_dict() for stage in self.stages],
            "totals": {
                "tasks": self.tasks,
                "batches": self.batches,
                "core_hours": self.core_hours,
                "wall_hours": self.wall_hours,
            },
            "budget": {
                "core_hours": self.campaign.budget.core_hours,
                "within": self.within_budget,
            },
            "placements": {
                stage: [vars(choice) for choice in choices] for stage, choices in self.placements.items()
            },
            "warnings": [{"line": w.line, "key": w.key, "message": w.message} for w in self.warnings],
        }


def plan(
    campaign: Campaign,
    *,
    centres: Mapping[str, CentreLike] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Plan:
    """Check a campaign, read its structures and estimate every stage.

    Parameters
    ----------
    campaign
        A loaded campaign.
    centres
        Known centres by id; this machine by default.
    on_progress
        Called with the number of structures read so far.

    Raises
    ------
    CampaignFileError
        As :func:`matcompute.campaign.check.check_campaign`.
    """
    centres = default_centres() if centres is None else centres
    checked = check_campaign(campaign, centres=centres, on_progress=on_progress)
    report = checked.structures
    assert report is not None
    centre = max(usable_centres(campaign, centres), key=lambda name: (centres[name].cores, name))
    cores = max(1, centres[centre].cores)
    references = _expand(report.n_sites_references)
    own = _expand(report.n_sites - report.n_sites_references)
    hulls = [index for index, stage in enumerate(campaign.stages) if stage.is_gate and stage.kind == "hull"]
    last_hull = hulls[-1] if hulls else -1
    left = len(own)
    stages = []
    resolved = resolve_campaign(campaign, *facts_of(report.as_dict()))
    for index, stage in enumerate(resolved.stages):
        if stage.is_gate:
            # All that enters may pass, unless the gate says how many at most.
            most = read_gate(stage.kind, stage.parameters).most()
            left = left if most is None else min(left, most)
            stages.append(_gate(stage, left))
            continue
        # After such a gate, the bound takes the costliest that may be left. References go as far as the last hull.
        sites = np.sort(own)[::-1][:left]
        if index < last_hull:
            sites = np.concatenate([sites, references])
        stages.append(_compute(stage, sites, left, cores))
    result = Plan(campaign, report, stages, centre, cores, list(checked.warnings))
    result.placements = _placements(campaign, stages, centres)
    if result.within_budget is False:
        budget = campaign.budget.core_hours
        text = f"the estimate of {result.core_hours:.3g} core-hours is above the budget of {budget:.3g}"
        result.warnings.append(campaign.problem(("budget", "core_hours"), text))
    return result


def _placements(
    campaign: Campaign, stages: list[StagePlan], centres: Mapping[str, CentreLike]
) -> dict[str, list[Choice]]:
    from matcompute.campaign.explain import stage_choices
    from matcompute.campaign.placement import Situation
    from matcompute.centres import Centre

    profiles = {name: centre for name, centre in centres.items() if isinstance(centre, Centre)}
    if len(profiles) < 2:
        return {}
    situation = Situation(profiles)
    return {
        part.name: stage_choices(
            campaign, campaign.stage(part.name), 3600 * part.core_hours / part.batches, situation
        )
        for part in stages
        if not part.is_gate and part.batches
    }


def _expand(histogram: Mapping[int, int]) -> np.ndarray:
    sizes = np.array(sorted(histogram), dtype=np.int64)
    return np.repeat(sizes, [histogram[int(size)] for size in sizes])


def _gate(stage: Stage, structures: int) -> StagePlan:
    return StagePlan(stage.name, stage.kind, True, None, structures, 0, 0, 0, 0.0, GATE_S / 3600)


def _compute(stage: Stage, sites: np.ndarray, structures: int, cores: int) -> StagePlan:
    costs = structure_costs(stage, sites)
    total, per_batch = float(costs.sum()), stage.resources.cores
    limit = batch_limit(stage, sites)
    batches = batch_count(
        total,
        len(sites),
        batch_size=stage.batch_size,
        cores=cores,
        cores_per_batch=per_batch,
        max_size=limit,
    )
    slots = max(1, min(cores // per_batch, batches))
    # One structure cannot be spread over processes: the longest one is a lower bound of the wall time.
    work = max(total / (slots * per_batch), float(costs.max(initial=0.0)) / stage.resources.threads)
    wall = work + BATCH_OVERHEAD_S * -(-batches // slots)
    size = -(-len(sites) // batches) if batches else 0
    stored, files = stored_files(stage, sites)
    return StagePlan(
        stage.name,
        stage.kind,
        False,
        stage.calculator.name if stage.calculator is not None else stage.parameters.get("descriptor"),
        structures,
        len(sites),
        batches,
        size,
        total / 3600,
        wall / 3600,
        stored,
        files,
    )

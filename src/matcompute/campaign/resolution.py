"""What depends on all structures of a campaign (``species: auto``), decided once, before batches are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matcompute.campaign.adapters import stage_parameters
from matcompute.campaign.model import Campaign, Stage

__all__ = ["facts_of", "resolve_campaign", "resolve_stage"]


def facts_of(report: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """Return the chemical symbols and the sites of the largest structure, from an ingest report's JSON values.

    The report is an output of the process that read the structures, and stands in the state tables: what was decided
    is on record in both, and in the inputs of every batch.
    """
    sizes = [int(size) for size in report.get("n_sites", {})]
    return tuple(sorted(report.get("elements", {}))), max(sizes, default=1)


def resolve_stage(stage: Stage, species: Sequence[str], n_atoms_max: int) -> Stage:
    """Return a stage whose parameters hold no ``auto``.

    Raises
    ------
    pydantic.ValidationError
        If the parameters do not fit these species.
    """
    if stage.is_gate:
        return stage
    task, parameters = stage_parameters(stage)
    resolve = getattr(task, "resolve", None)  # of tasks older than this hook
    if resolve is None:
        return stage
    values = resolve(parameters, species, n_atoms_max).model_dump(mode="json")
    return stage if values == stage.parameters else stage.model_copy(update={"parameters": values})


def resolve_campaign(campaign: Campaign, species: Sequence[str], n_atoms_max: int) -> Campaign:
    """Return a campaign all of whose stages are resolved; see :func:`resolve_stage`."""
    stages = [resolve_stage(stage, species, n_atoms_max) for stage in campaign.stages]
    if all(new is old for new, old in zip(stages, campaign.stages, strict=True)):
        return campaign
    return campaign.model_copy(update={"stages": stages})

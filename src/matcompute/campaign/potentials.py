"""What can be known to be wrong with first-principles stages before anything runs: potentials, and codes at centres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from matcompute.campaign.adapters import calculator_adapter, is_per_structure, parameters_model
from matcompute.campaign.placement import stage_codes
from matcompute.errors import InputError

if TYPE_CHECKING:
    from matcompute.campaign.model import Campaign, Stage
    from matcompute.yamlfile import Problem

__all__ = ["per_structure_problems", "potentials"]


def potentials(stage: Stage) -> frozenset[str] | None:
    """Return the symbols for which a per-structure stage has potentials.

    None where that is not known: outside of a workspace, without the plugin, or for a code that needs none.

    Raises
    ------
    InputError
        If its family is not installed in the workspace.
    """
    from matcompute.workspace import Workspace, WorkspaceError

    assert stage.calculator is not None
    adapter = calculator_adapter(stage.calculator.name)
    if not adapter.available():
        return None
    try:
        workspace = Workspace.find()
    except WorkspaceError:  # a campaign can be checked before there is a workspace
        return None
    workspace.load_profile()
    own = parameters_model(adapter).model_validate(stage.calculator.parameters)
    found: frozenset[str] | None = adapter.covered(own)
    return found


def per_structure_problems(
    campaign: Campaign, stage: Stage, key: tuple[str | int, ...], centres: Mapping[str, Any]
) -> list[Problem]:
    """Return what is wrong with a stage: its family is missing, or no centre has its codes.

    Parameters
    ----------
    campaign, stage, key
        The stage, and where it stands in the file.
    centres
        Those where the campaign may run, by id.
    """
    if stage.calculator is None or not is_per_structure(stage):
        return []
    problems = []
    try:
        potentials(stage)
    except InputError as error:
        text = error.message if error.hint is None else f"{error.message}; {error.hint}"
        problems.append(campaign.problem((*key, "calculator"), text))
    wanted = stage_codes(stage)
    lacking = {}
    for name, centre in centres.items():
        codes = getattr(centre, "codes", None)
        if codes is None:
            return problems  # not a profile: nothing is known of its codes
        lacking[name] = wanted - {code.plugin for code in codes}
    if lacking and all(lacking.values()):
        told = "; ".join(f"'{name}' lacks {', '.join(sorted(missing))}" for name, missing in lacking.items())
        text = f"no centre has the codes of calculator '{stage.calculator.name}': {told}; add them to `codes`"
        problems.append(campaign.problem((*key, "calculator"), f"{text} in a centre's profile"))
    return problems

"""What can be known to be wrong with first-principles stages before anything runs: potentials, and codes at centres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.campaign.adapters import (
    calculator_adapter,
    is_per_structure,
    parameters_model,
    stage_parameters,
)
from matcompute.campaign.placement import stage_codes
from matcompute.errors import InputError

if TYPE_CHECKING:
    from matcompute.campaign.model import Campaign, Stage
    from matcompute.yamlfile import Problem

__all__ = ["elements_of", "per_structure_problems", "potentials", "stored_files"]


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


def elements_of(what: Sequence[str]) -> set[str]:
    """Return symbols, and the symbols of the structures of campaign files.

    Raises
    ------
    InputError
        If something is neither a symbol nor a campaign file.
    """
    from matcompute.campaign.check import read_structures
    from matcompute.campaign.model import Campaign
    from matcompute_kernels.elements import SYMBOLS

    found: set[str] = set()
    for item in what:
        if item in SYMBOLS[1:]:
            found.add(item)
        elif Path(item).is_file():
            found |= set(read_structures(Campaign.load(Path(item))).elements)
        else:
            raise InputError(f"'{item}' is neither a chemical symbol nor a file")
    return found


def stored_files(stage: Stage, n_sites: np.ndarray) -> tuple[float, str]:
    """Return about how many bytes a stage leaves in the AiiDA repository, and what becomes of its files, in words.

    Only per-structure stages keep the files of each structure: ``(0.0, "")`` for others.
    """
    if stage.calculator is None or not is_per_structure(stage):
        return 0.0, ""
    adapter = calculator_adapter(stage.calculator.name)
    _, task = stage_parameters(stage)
    own = parameters_model(adapter).model_validate(stage.calculator.parameters)
    sizes, counts = np.unique(np.asarray(n_sites), return_counts=True)
    total = sum(
        float(n) * float(adapter.stored_bytes(stage.kind, task, own, float(size)))
        for size, n in zip(sizes, counts, strict=True)
    )
    said = ["outputs kept"]
    bands = getattr(own, "bands", None)
    if bands is not None:
        said.append("eigenvalues kept" if bands else "eigenvalues not kept")
    stash = getattr(own, "stash", ())
    if stash:
        said.append(f"stashed: {', '.join(stash)}")
    remote = getattr(own, "remote", "keep")
    said.append("folders at the centre removed" if remote == "clean" else "folders at the centre kept")
    return total, ", ".join(said)

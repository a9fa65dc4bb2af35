"""Which result columns exist after each stage: a gate that reads another one is refused before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matcompute.campaign.adapters import stage_parameters
from matcompute.errors import InputError, did_you_mean
from matcompute.yamlfile import KeyPath, LocatedYaml, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matcompute.campaign.model import Stage

__all__ = ["column_problems", "stage_columns", "stage_descriptor"]

#: Key that a problem of a gate is told at.
_KEYS = {"hull": "energy", "filter": "expression"}


def stage_columns(stage: Stage) -> dict[str, str]:
    """Return the scalar columns that a stage adds, name → unit."""
    from matcompute.dataset import PROPERTIES
    from matcompute.gates import read_gate

    if stage.is_gate:
        produced = read_gate(stage.kind, stage.parameters).produces()
        return {name: PROPERTIES[name].units if name in PROPERTIES else "1" for name in produced}
    task, parameters = stage_parameters(stage)
    outputs = task.outputs(parameters)
    return {info.name: info.units for info in outputs if info.per == "entry" and tuple(info.shape) == ()}


def stage_descriptor(stage: Stage) -> str | None:
    """Return what a row of the stage's descriptor belongs to (``entry`` or ``site``); None if it gives none."""
    if stage.is_gate:
        return None
    task, parameters = stage_parameters(stage)
    describe = getattr(task, "descriptor", None)  # of tasks older than this hook
    described = None if describe is None else describe(parameters)
    return None if described is None else str(described.per)


def column_problems(stages: Sequence[Stage], yaml_file: LocatedYaml) -> list[Problem]:
    """Return a problem for each gate that reads a column that no earlier stage gives, or in another unit."""
    from matcompute.gates import STRUCTURE_COLUMNS, Expression, read_gate

    known: dict[str, str] = dict(STRUCTURE_COLUMNS)
    descriptors: dict[str, str] = {}
    problems: list[Problem] = []
    for index, stage in enumerate(stages):
        if stage.is_gate:
            path: KeyPath = ("stages", index, stage.kind)
            model = read_gate(stage.kind, stage.parameters)
            key = _KEYS.get(stage.kind, "by")
            try:
                if stage.kind == "filter":
                    Expression(stage.parameters["expression"]).check(known)
                else:
                    if hasattr(model, "descriptor"):
                        key = "descriptor"
                        _check_descriptor(model.descriptor, descriptors)
                        key = "method"
                    key = "objectives" if hasattr(model, "objectives") else key
                    for name in sorted(model.columns()):
                        if name not in known:
                            raise InputError(_unknown(stage, name, known))
            except InputError as error:
                text = error.message if error.hint is None else f"{error.message}; {error.hint}"
                where = (
                    (*path, key) if (*path, key) in yaml_file.places else path
                )  # shorthand: no key of its own
                problems.append(yaml_file.problem(where, text))
        for name, unit in stage_columns(stage).items():
            known[name] = known[f"{stage.name}__{name}"] = unit
        per = stage_descriptor(stage)
        if per is not None:
            descriptors[stage.name] = per
    return problems


def _check_descriptor(wanted: str | None, known: dict[str, str]) -> None:
    if not known:
        raise InputError("no earlier stage describes the structures; put a `describe` stage before it")
    name = next(reversed(known)) if wanted is None else wanted
    if name not in known:
        raise InputError(f"no earlier stage gives a descriptor '{name}'{did_you_mean(name, known)}")
    if known[name] == "site":
        raise InputError(f"descriptor '{name}' has a row per site; give its stage an `average`")


def _unknown(stage: Stage, name: str, known: dict[str, str]) -> str:
    if stage.kind != "hull":
        return f"no earlier stage gives a column '{name}'{did_you_mean(name, known)}"
    if stage.parameters.get("energy") is None:
        return "a hull needs energies: put a compute stage (static, relax, …) before it"
    stages = [column.removesuffix("__energy") for column in known if column.endswith("__energy")]
    wanted = str(stage.parameters["energy"])
    return f"no earlier compute stage '{wanted}' gives energies{did_you_mean(wanted, stages)}"

"""Which result columns exist after each stage: a gate that reads another one is refused before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matcompute.campaign.adapters import parameters_model, task_adapter
from matcompute.errors import InputError, did_you_mean
from matcompute.yamlfile import KeyPath, LocatedYaml, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matcompute.campaign.model import Stage

__all__ = ["column_problems", "stage_columns"]


def stage_columns(stage: Stage) -> dict[str, str]:
    """Return the scalar columns that a stage adds, name → unit."""
    from matcompute.dataset import PROPERTIES
    from matcompute.gates import GATES

    if stage.is_gate:
        produced = GATES[stage.kind].model_validate(stage.parameters).produces()
        return {name: PROPERTIES[name].units if name in PROPERTIES else "1" for name in produced}
    task = task_adapter(stage.kind)
    outputs = task.outputs(parameters_model(task).model_validate(stage.parameters))
    return {info.name: info.units for info in outputs if info.per == "entry" and tuple(info.shape) == ()}


def column_problems(stages: Sequence[Stage], yaml_file: LocatedYaml) -> list[Problem]:
    """Return a problem for each gate that reads a column that no earlier stage gives, or in another unit."""
    from matcompute.gates import GATES, STRUCTURE_COLUMNS, Expression

    known: dict[str, str] = dict(STRUCTURE_COLUMNS)
    problems: list[Problem] = []
    for index, stage in enumerate(stages):
        if stage.is_gate:
            path: KeyPath = ("stages", index, stage.kind)
            model = GATES[stage.kind].model_validate(stage.parameters)
            try:
                if stage.kind == "filter":
                    Expression(stage.parameters["expression"]).check(known)
                else:
                    for name in sorted(model.columns()):
                        if name not in known:
                            raise InputError(_unknown(stage, name, known))
            except InputError as error:
                key = "energy" if stage.kind == "hull" else "by" if stage.kind == "top" else "expression"
                text = error.message if error.hint is None else f"{error.message}; {error.hint}"
                where = (
                    (*path, key) if (*path, key) in yaml_file.places else path
                )  # shorthand: no key of its own
                problems.append(yaml_file.problem(where, text))
        for name, unit in stage_columns(stage).items():
            known[name] = known[f"{stage.name}__{name}"] = unit
    return problems


def _unknown(stage: Stage, name: str, known: dict[str, str]) -> str:
    if stage.kind != "hull":
        return f"no earlier stage gives a column '{name}'{did_you_mean(name, known)}"
    if stage.parameters.get("energy") is None:
        return "a hull needs energies: put a compute stage (static, relax, …) before it"
    stages = [column.removesuffix("__energy") for column in known if column.endswith("__energy")]
    wanted = str(stage.parameters["energy"])
    return f"no earlier compute stage '{wanted}' gives energies{did_you_mean(wanted, stages)}"

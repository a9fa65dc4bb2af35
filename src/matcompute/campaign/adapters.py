"""Task and calculator adapters, reached by entry point only: this package never imports the node program."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from matcompute import plugins

if TYPE_CHECKING:
    from matcompute.campaign.model import Stage

__all__ = [
    "calculator_adapter",
    "is_per_structure",
    "needs_calculator",
    "parameters_model",
    "stage_parameters",
    "stage_task",
    "supported_species",
    "task_adapter",
]


class NoParameters(BaseModel):
    """For adapters that take none."""

    model_config = ConfigDict(extra="forbid")


def _instance(adapter: Any) -> Any:
    return adapter() if inspect.isclass(adapter) else adapter


def task_adapter(name: str) -> Any:
    """Return the task adapter of a stage kind.

    Raises
    ------
    InputError
        If there is none of that name, or its package is missing.
    """
    return _instance(plugins.load("matcompute.tasks", name))


def calculator_adapter(name: str) -> Any:
    """Return a calculator adapter.

    Raises
    ------
    InputError
        If there is none of that name, or its package is missing.
    """
    return _instance(plugins.load("matcompute.calculators", name))


def parameters_model(adapter: Any, values: Mapping[str, Any] | None = None) -> type[BaseModel]:
    """Return the pydantic model of an adapter's parameters; of a task, where it depends on ``values``, theirs.

    Raises
    ------
    InputError
        If the value that decides (which descriptor) names nothing.
    """
    choose = getattr(adapter, "model_for", None)
    if choose is not None and values is not None:
        chosen: type[BaseModel] = choose(values)
        return chosen
    model: type[BaseModel] = getattr(adapter, "Parameters", None) or NoParameters
    return model


def needs_calculator(task: Any) -> bool:
    """Return whether a stage of a task names a calculator."""
    return bool(getattr(task, "needs_calculator", True))


def is_per_structure(stage: Stage) -> bool:
    """Tell whether each structure of a stage gets a process of its own, from the AiiDA plugin of a code."""
    if stage.is_gate or stage.calculator is None:
        return False
    return bool(getattr(calculator_adapter(stage.calculator.name), "per_structure", False))


def stage_task(kind: str, calculator: str | None) -> Any:
    """Return the task of a compute stage: that of its calculator, where this has tasks of its own.

    Raises
    ------
    InputError
        If there is none of that kind, or the calculator has none.
    """
    adapter = None if calculator is None else calculator_adapter(calculator)
    if getattr(adapter, "per_structure", False):
        return adapter.task(kind)  # type: ignore[union-attr]
    return task_adapter(kind)


def stage_parameters(stage: Stage) -> tuple[Any, Any]:
    """Return the task of a compute stage and its parameters as the task takes them."""
    task = stage_task(stage.kind, None if stage.calculator is None else stage.calculator.name)
    return task, parameters_model(task, stage.parameters).model_validate(stage.parameters)


def supported_species(adapter: Any, parameters: Mapping[str, Any]) -> frozenset[int] | None:
    """Return the atomic numbers that a calculator knows with its parameters; None if it does not say."""
    from ase.data import atomic_numbers

    chosen = getattr(adapter, "species_for", None)
    species = getattr(adapter, "species", None) if chosen is None else chosen(parameters)
    if callable(species):
        species = species()
    if species is None:
        return None
    return frozenset(atomic_numbers[s] if isinstance(s, str) else int(s) for s in species)

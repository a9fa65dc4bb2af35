"""From a stage's ``task`` input to the calculator, its task and the checked parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matcompute import plugins
from matcompute_workflows.dft.adapter import StructureCalculator

__all__ = ["calculator", "calculator_of", "calculator_parameters"]


def calculator(name: str) -> StructureCalculator:
    """Return a per-structure calculator by name.

    Raises
    ------
    matcompute.errors.InputError
        If there is none.
    """
    found: StructureCalculator = plugins.load("matcompute.calculators", name)
    return found


def calculator_of(said: Mapping[str, Any]) -> tuple[StructureCalculator, str, Any]:
    """Return the calculator, the kind of the task and its parameters."""
    adapter = calculator(str(said["calculator"]["name"]))
    kind = str(said["task"])
    return adapter, kind, adapter.task(kind).Parameters.model_validate(said["parameters"])


def calculator_parameters(said: Mapping[str, Any]) -> Any:
    """Return the calculator's own parameters."""
    adapter = calculator(str(said["calculator"]["name"]))
    return adapter.Parameters.model_validate(said["calculator"]["parameters"])

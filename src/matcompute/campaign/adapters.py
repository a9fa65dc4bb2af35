"""Task and calculator adapters, reached by entry point only: this package never imports the node program."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel, ConfigDict

from matcompute import plugins

__all__ = ["calculator_adapter", "parameters_model", "supported_species", "task_adapter"]


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


def parameters_model(adapter: Any) -> type[BaseModel]:
    """Return the pydantic model of an adapter's parameters."""
    model: type[BaseModel] = getattr(adapter, "Parameters", None) or NoParameters
    return model


def supported_species(adapter: Any) -> frozenset[int] | None:
    """Return the atomic numbers that a calculator knows; None if it does not say."""
    from ase.data import atomic_numbers

    species = getattr(adapter, "species", None)
    if callable(species):
        species = species()
    if species is None:
        return None
    return frozenset(atomic_numbers[s] if isinstance(s, str) else int(s) for s in species)

"""Adapters by entry point: third parties add calculators, tasks and sources without touching this repository."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from matcompute.errors import InputError, did_you_mean

__all__ = ["GROUPS", "load", "names"]

#: Entry-point groups and what each holds.
GROUPS: dict[str, str] = {
    "matcompute.calculators": "calculator",
    "matcompute.tasks": "task",
    "matcompute.structure_sources": "structure source",
    "matcompute.kernels": "kernel",
}


@cache
def _group(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def names(group: str) -> list[str]:
    """Return the sorted names that are registered in an entry-point group."""
    return sorted(_group(group))


@cache
def load(group: str, name: str) -> Any:
    """Import and return the adapter ``name`` of an entry-point group.

    Raises
    ------
    InputError
        If there is no such name (the nearest spelling is given) or its package cannot be imported.
    """
    points = _group(group)
    what = GROUPS.get(group, group)
    if name not in points:
        raise InputError(f"unknown {what} '{name}'{did_you_mean(name, points)}")
    try:
        return points[name].load()
    except ImportError as error:
        raise InputError(
            f"{what} '{name}' cannot be loaded: {error}",
            hint=f"install the package that provides {points[name].value}, or its missing dependency",
        ) from error

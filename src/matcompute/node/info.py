"""What this installation can compute: calculators and tasks with versions, species, weights and parameters."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from matcompute import plugins
from matcompute.errors import InputError, MatcomputeError
from matcompute.node.job import load_adapter

__all__ = ["describe"]


def describe() -> dict[str, Any]:
    """Return every registered calculator and task, JSON-able.

    An adapter that cannot be imported is listed with its ``error``, so that one broken plug-in hides no other.
    Those that work structure by structure are not the node program's.
    """
    from matcompute.node.summary import software_versions

    return {
        "versions": software_versions(),
        "calculators": [_calculator(name) for name in _names("matcompute.calculators")],
        "tasks": [_task(name) for name in _names("matcompute.tasks")],
    }


def _names(group: str) -> list[str]:
    return [name for name in plugins.names(group) if not _per_structure(group, name)]


def _per_structure(group: str, name: str) -> bool:
    try:
        return bool(getattr(plugins.load(group, name), "per_structure", False))
    except InputError:
        return False  # told by whoever describes it


def _calculator(name: str) -> dict[str, Any]:
    try:
        adapter = load_adapter("matcompute.calculators", name)
        missing = adapter.missing()
        if missing is not None:
            return {"name": name, "available": False, "error": missing[0]}
        path = adapter.model_path()
        return {
            "name": name,
            "available": True,
            "package": adapter.package,
            "version": adapter.version,
            "species": sorted(adapter.species),
            "deterministic": adapter.deterministic,
            "model": None if path is None else path.name,
            "model_sha256": adapter.model_sha256(),
            **{k: v for k, v in adapter.method(adapter.Parameters().model_dump()).items() if k != "model"},
            "parameters": adapter.Parameters.model_json_schema().get("properties", {}),
        }
    except (MatcomputeError, OSError, ImportError, ValueError) as error:
        return {"name": name, "available": False, "error": str(error)}


def _task(name: str) -> dict[str, Any]:
    try:
        task = load_adapter("matcompute.tasks", name)
        try:
            outputs = task.outputs(task.Parameters())
        except ValidationError:
            outputs = ()  # it has parameters without which nobody knows them
        return {
            "name": name,
            "available": True,
            "title": task.title,
            "outputs": [{"name": i.name, "units": i.units, "per": i.per} for i in outputs],
            "parameters": task.Parameters.model_json_schema().get("properties", {}),
        }
    except (MatcomputeError, OSError, ImportError, ValueError) as error:
        return {"name": name, "available": False, "error": str(error)}

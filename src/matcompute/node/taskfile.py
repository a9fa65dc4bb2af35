"""The task file ``matcompute.task/v1``: what one job computes, read and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from matcompute.errors import did_you_mean
from matcompute.node.errors import TaskFileError

__all__ = ["SCHEMA", "CalculatorSpec", "TaskFile", "describe_validation"]

SCHEMA = "matcompute.task/v1"


class CalculatorSpec(BaseModel):
    """Which calculator, with what parameters and weights."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str = Field(description="Entry point in the group matcompute.calculators.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Of the calculator's own model.")
    model: str | None = Field(
        None, description="Weights in place of the shipped ones, relative to the task file."
    )
    model_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="Refuse to run with weights of another SHA-256."
    )


class TaskFile(BaseModel):
    """One job of the node program. Paths are relative to the folder of the task file."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    schema_: Literal["matcompute.task/v1"] = Field("matcompute.task/v1", alias="schema")
    task: str = Field(description="Entry point in the group matcompute.tasks.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Of the task's own model, canonical units."
    )
    calculator: CalculatorSpec | None = Field(None, description="Left out for tasks that need none.")
    structures: str = Field("structures.h5", description="Input shard, a dataset v1 file.")
    results: str = Field(
        "results.h5", description="Result shard, written when every structure was attempted."
    )
    checkpoint: str = Field(
        "checkpoint", description="Folder of the checkpoint; may be copied from an earlier job."
    )
    stage: str | None = Field(None, description="Name of the campaign stage, for the records.")
    walltime_s: float | None = Field(None, gt=0, description="Time that the job has, in s.")
    margin_s: float = Field(60.0, ge=0, description="Stop so long before it, in s (at most a fifth of it).")
    structure_timeout_s: float | None = Field(
        None, gt=0, description="Give one structure up after so long, in s."
    )
    processes: int = Field(1, ge=1, description="Worker processes, where the job is not under mpiexec.")
    threads: int = Field(1, ge=1, description="Threads of each worker.")
    slots: str | None = Field(None, description="Folder of core slots that jobs on one machine share.")

    @classmethod
    def read(cls, path: Path) -> TaskFile:
        """Read a task file.

        Raises
        ------
        TaskFileError
            If it is missing, no JSON, or does not fit; every problem is listed with its key.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise TaskFileError(f"{path}: no such task file", hint="give the path of a task.json") from error
        except (OSError, UnicodeDecodeError) as error:
            raise TaskFileError(f"{path}: cannot be read: {error}") from error
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise TaskFileError(
                f"{path}, line {error.lineno}, column {error.colno}: no valid JSON: {error.msg}"
            ) from error
        if isinstance(content, dict) and content.get("schema") != SCHEMA:
            raise TaskFileError(
                f"{path}: schema is {content.get('schema')!r}, this program reads {SCHEMA!r}",
                hint="write the task file with the matcompute version that runs it",
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise TaskFileError(f"{path}: " + describe_validation(error, cls)) from error


def describe_validation(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Return one line per problem: key, what was expected, what was found, nearest known key."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in (*([prefix] if prefix else []), *item["loc"])) or "(top level)"
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{did_you_mean(str(item['loc'][-1]), _keys(model, item['loc']))}")
        else:
            found = "" if item["type"] == "missing" else f", found {item['input']!r}"
            lines.append(f"{key}: {item['msg']}{found}")
    return "; ".join(lines)


def _keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    current: Any = model
    for part in location[:-1]:
        field = getattr(current, "model_fields", {}).get(str(part))
        current = field.annotation if field is not None else None
    fields = getattr(current, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]

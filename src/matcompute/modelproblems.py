"""What a pydantic model finds wrong in a YAML file, told as problems with line, key and nearest spelling."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from matcompute.errors import InputError, did_you_mean
from matcompute.yamlfile import KeyPath, LocatedYaml, Problem

__all__ = ["FileProblems", "model_keys", "one_line", "validation_problems"]


class FileProblems(InputError):
    """A file has problems; all of them are listed.

    Attributes
    ----------
    path
        The file.
    problems
        In the order of the file.
    """

    def __init__(self, path: Path, problems: Sequence[Problem], hint: str | None = None) -> None:
        self.path = Path(path)
        self.problems = sorted(set(problems))
        lines = [
            f"{path}:{p.line}: {p.key}: {p.message}" if p.key else f"{path}:{p.line}: {p.message}"
            for p in self.problems
        ]
        count = len(lines)
        super().__init__(
            f"{count} problem{'s' if count > 1 else ''} in {path}\n  " + "\n  ".join(lines), hint=hint
        )


def one_line(error: object) -> str:
    """Return an error as one line, its hint after a semicolon."""
    return "; ".join(part.strip() for part in str(error).replace("hint: ", "").splitlines())


def model_keys(model: type[BaseModel]) -> list[str]:
    """Return the keys of a model as a file writes them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _nested_keys(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Return the keys that are valid at the parent of ``loc`` inside a model, as far as types tell."""
    current: Any = model
    for part in loc[:-1]:
        if isinstance(part, int):
            continue
        fields = getattr(current, "model_fields", {})
        field = fields.get(part) or next((f for f in fields.values() if f.alias == part), None)
        current = _inner_model(field.annotation) if field is not None else None
        if current is None:
            return []
    return model_keys(current) if hasattr(current, "model_fields") else []


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        found = _inner_model(part)
        if found is not None:
            return found
    return None


def validation_problems(
    error: ValidationError, model: type[BaseModel], yaml_file: LocatedYaml, prefix: KeyPath
) -> list[Problem]:
    """Translate pydantic's errors into problems with line, key and nearest spelling."""
    problems = []
    for item in error.errors():
        if item["type"] == "too_short" and len(item["input"]) >= item.get("ctx", {}).get("min_length", 1):
            continue  # only short because of items that are told of anyway
        # Names of union members and validators come along in the location; keep what is a key of the file.
        loc: tuple[Any, ...] = tuple(p for p in item["loc"] if not (isinstance(p, str) and "[" in p))
        while (
            loc
            and (*prefix, *loc) not in yaml_file.places
            and item["type"] not in {"missing", "extra_forbidden"}
        ):
            loc = loc[:-1]
        path: KeyPath = (*prefix, *loc)
        problems.append(yaml_file.problem(path, _message(item, model, loc)))
    return problems


def _message(item: Any, model: type[BaseModel], loc: tuple[Any, ...]) -> str:
    kind, found, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key '{loc[-1]}'{did_you_mean(str(loc[-1]), _nested_keys(model, loc))}"
    if kind == "missing":
        return f"the key '{loc[-1]}' is missing"
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", context.get("expected", ""))
        hint = did_you_mean(str(found), options)
        if "did you mean" in hint:
            hint += f" (known: {', '.join(options)})" if len(options) <= 8 else ""
        return f"'{found}' is not a valid value{hint}"
    if kind == "value_error":
        return one_line(context.get("error", item["msg"])).removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        return f"'{found}' has the wrong form; expected text that matches {context.get('pattern')}"
    text = item["msg"][0].lower() + item["msg"][1:]
    if isinstance(found, str | int | float | bool) or found is None:
        text += f", found {'nothing' if found is None else repr(found)}"
    elif isinstance(found, dict):
        text += ", found a mapping"
    elif isinstance(found, list):
        text += ", found a list"
    return text.replace("input should be", "expected")

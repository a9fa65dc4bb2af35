"""Parameters on a command line: ``r_cut=5,n_max=8,species=Al,Cu`` as keywords, checked by a descriptor's model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from matcompute.errors import InputError
from matcompute.node.errors import TaskFileError
from matcompute.node.taskfile import describe_validation

if TYPE_CHECKING:
    from matcompute.node.descriptors import DescriptorAdapter, DescriptorParameters, Facts

__all__ = ["check_settings", "find_descriptor", "parameter_rows", "parse_settings", "resolve_settings"]

_OPEN, _CLOSE = "[{(", "]})"


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Return settings as keywords; values are YAML, a list by commas (``l=4,6``) or in brackets.

    Parameters
    ----------
    texts
        Any number of ``KEY=VALUE[,KEY=VALUE…]``. A dot goes into a mapping: ``grid.min=0``.

    Raises
    ------
    TaskFileError
        If an item has no ``=``, a key occurs twice or a value cannot be read.
    """
    found: dict[str, Any] = {}
    for text in texts:
        for key, value in _items(text):
            *outer, last = key.split(".")
            inner = found
            for part in outer:
                inner = inner.setdefault(part, {})
                if not isinstance(inner, dict):
                    raise TaskFileError(f"'{text}': {part} is given as a value and as a mapping")
            if last in inner:
                raise TaskFileError(f"'{text}': {key} is given twice")
            inner[last] = value
    return found


def _items(text: str) -> list[tuple[str, Any]]:
    """Cut at the commas outside of brackets; a piece without ``=`` goes on with the list before it."""
    pieces, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if char == "," and depth == 0:
            pieces.append(text[start:at])
            start = at + 1
    pieces.append(text[start:])
    found: list[tuple[str, list[str]]] = []
    for piece in pieces:
        key, equals, value = piece.partition("=")
        if equals and key.strip() and not any(char in key for char in _OPEN):
            found.append((key.strip(), [value]))
        elif found and piece.strip():
            found[-1][1].append(piece)
        elif piece.strip() or len(pieces) == 1:
            raise TaskFileError(
                f"'{text}': expected KEY=VALUE, found '{piece}'", hint="such as r_cut=5,n_max=8,l_max=6"
            )
    return [
        (key, _value(key, parts[0]) if len(parts) == 1 else [_value(key, part) for part in parts])
        for key, parts in found
    ]


class _Loader(yaml.SafeLoader):
    """YAML of which only ``true`` and ``false`` are booleans (``off`` and ``No`` are words), and 1e-5 is a number."""


_Loader.yaml_implicit_resolvers = {
    key: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool"]
    for key, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)\Z"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z"), list("-+.0123456789")
)


def _value(key: str, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # it is a SafeLoader
    except yaml.YAMLError as error:
        raise TaskFileError(f"{key}={text}: cannot be read; is a bracket or quote missing?") from error


def find_descriptor(name: str) -> DescriptorAdapter:
    """Return the descriptor of this name.

    Raises
    ------
    TaskFileError
        If there is none, with the nearest spelling.
    """
    from matcompute.node.descriptors import descriptor_adapter

    try:
        return descriptor_adapter(name)
    except InputError as error:
        message = error.message.replace("unknown kernel", "no descriptor")
        raise TaskFileError(message, hint=error.hint) from error


def check_settings(adapter: DescriptorAdapter, settings: Mapping[str, Any]) -> DescriptorParameters:
    """Return the checked parameters of a descriptor.

    Raises
    ------
    TaskFileError
        If they are wrong: each problem with its key, the nearest spelling and what is allowed.
    """
    values = dict(settings)
    annotation = {name: str(field.annotation) for name, field in adapter.Parameters.model_fields.items()}
    for key, value in values.items():
        # `g3=0.5` and `l=4` stand for lists of one.
        if not isinstance(value, list | dict | str) and "list[" in annotation.get(key, ""):
            values[key] = [value]
    try:
        return adapter.Parameters.model_validate(values)
    except ValidationError as error:
        problems = describe_validation(error, adapter.Parameters)
        raise TaskFileError(f"{adapter.name}: {problems}", hint=_usage(adapter)) from error


def resolve_settings(
    adapter: DescriptorAdapter, parameters: DescriptorParameters, facts: Facts
) -> DescriptorParameters:
    """Return the parameters with every ``auto`` replaced by what the structures have.

    Raises
    ------
    TaskFileError
        If the others do not fit to that, such as groups of other elements.
    """
    try:
        resolved: DescriptorParameters = parameters.resolve(facts)
    except ValidationError as error:
        problems = describe_validation(error, adapter.Parameters)
        raise TaskFileError(f"{adapter.name}: {problems}", hint=_usage(adapter)) from error
    return resolved


def _usage(adapter: DescriptorAdapter) -> str:
    """What the descriptor takes, needed keys first."""
    fields = adapter.Parameters.model_fields
    needed = [name for name, field in fields.items() if field.is_required()]
    others = [name for name in fields if name not in needed]
    return (
        f"needs {', '.join(needed)}; takes also {', '.join(others)}"
        if needed
        else f"takes {', '.join(others)}"
    )


def parameter_rows(adapter: DescriptorAdapter) -> list[tuple[str, str, str]]:
    """Return name, default (or ``needed``) and explanation of each parameter."""
    rows = []
    for name, field in adapter.Parameters.model_fields.items():
        extra = field.json_schema_extra
        unit = extra.get("unit", "") if isinstance(extra, dict) else ""
        default = "needed" if field.is_required() else str(field.default)
        text = (field.description or "").rstrip(".")
        rows.append((name, default, f"{text} ({unit})" if unit and text else text))
    return rows

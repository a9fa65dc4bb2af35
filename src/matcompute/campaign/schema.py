"""The JSON Schema of the campaign file, from the models of everything that is installed."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from matcompute import plugins
from matcompute.campaign.adapters import (
    calculator_adapter,
    needs_calculator,
    parameters_model,
    task_adapter,
)
from matcompute.campaign.model import CampaignHeader, Resources
from matcompute.gates.selection import ALIASES
from matcompute.structures.spec import GROUP as SOURCES
from matcompute.structures.spec import source

__all__ = ["campaign_schema", "schema_text"]

_NAME = {
    "type": "string",
    "pattern": "^[a-z][a-z0-9]*(_[a-z0-9]+)*$",
    "description": "Name of the stage; its kind by default, of a describe stage the descriptor's name.",
}


def _inline(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema with quantities that may be written with a unit."""
    schema = model.model_json_schema(by_alias=True)
    for entry in schema.get("properties", {}).values():
        _allow_unit(entry)
    schema.pop("title", None)
    return schema


def _allow_unit(entry: dict[str, Any]) -> None:
    unit = entry.get("unit")
    if unit in (None, "1"):
        return
    kinds = entry.pop("anyOf", None) or [{"type": entry.pop("type", "number")}]
    for key in ("exclusiveMinimum", "exclusiveMaximum", "minimum", "maximum"):
        if key in entry:
            for kind in kinds:
                if kind.get("type") in {"number", "integer"}:
                    kind[key] = entry[key]
            entry.pop(key)
    if not any(kind.get("type") == "string" for kind in kinds):
        kinds.append({"type": "string", "description": f"a quantity, for example '1 {unit}'"})
    entry["anyOf"] = kinds


def campaign_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of ``matcompute.campaign/v1``, tasks and calculators installed here included."""
    from matcompute.gates import GATES, METHODS

    header = CampaignHeader.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = header.pop("$defs", {})
    for entry in definitions.values():
        for item in entry.get("properties", {}).values():
            _allow_unit(item)

    def define(name: str, schema: dict[str, Any]) -> dict[str, str]:
        # Two models may have parts of one name: theirs are told apart by the owner's.
        parts = schema.pop("$defs", {})
        schema, parts = _renamed((schema, parts), {part: f"{name}-{part}" for part in parts})
        definitions.update({f"{name}-{part}": body for part, body in parts.items()})
        definitions[name] = schema
        return {"$ref": f"#/$defs/{name}"}

    sources = []
    for kind in plugins.names(SOURCES):
        schema = _inline(source(kind).Parameters)
        _shorthands(schema)
        sources.append(define(f"source-{kind}", schema))

    alone: dict[str, Any] = {}  # calculators whose structures each get a process, with tasks of their own
    calculators: list[dict[str, Any]] = []
    for name in plugins.names("matcompute.calculators"):
        adapter = calculator_adapter(name)
        schema = _inline(parameters_model(adapter))
        schema["properties"] = {"name": {"const": name}, **schema.get("properties", {})}
        schema["required"] = ["name", *schema.get("required", [])]
        reference = define(f"calculator-{name}", schema)
        if getattr(adapter, "per_structure", False):
            alone[name] = adapter
        else:
            calculators.append(reference)
    known = [name for name in plugins.names("matcompute.calculators") if name not in alone]
    define(
        "calculator",
        {
            "description": "A name, or a mapping of a name and parameters.",
            "anyOf": [{"enum": known}, *calculators],
        },
    )
    resources = _inline(Resources)
    define("resources", resources)

    stages = []
    for kind in plugins.names("matcompute.tasks"):
        task = task_adapter(kind)
        models: dict[str, type[BaseModel]] = getattr(task, "models", dict)()
        # As many kinds of parameters as there are descriptors.
        bodies = [define(f"task-{kind}-{name}", _task(model, task)) for name, model in models.items()]
        if not models and not getattr(task, "per_structure", False):
            bodies = [define(f"task-{kind}-batch", _task(parameters_model(task), task))]
        for name, adapter in alone.items():
            if kind in adapter.tasks:
                bodies.append(
                    define(f"task-{kind}-{name}", _task(adapter.tasks[kind].Parameters, task, name))
                )
        stages.append(_stage(kind, define(f"task-{kind}", {"anyOf": bodies})))
    for kind, model in GATES.items():
        if kind == "select":
            bodies = [define(f"gate-{kind}-{name}", _select(one)) for name, one in METHODS.items()]
            stages.append(_stage(kind, define(f"gate-{kind}", {"anyOf": bodies})))
            continue
        schema = _inline(model)
        schema["properties"] = {"name": _NAME, **schema.get("properties", {})}
        body: dict[str, Any] = define(f"gate-{kind}", schema)
        if kind == "filter":
            body = {"anyOf": [{"type": "string"}, body]}
        elif not schema.get("required"):
            body = {"anyOf": [{"type": "null"}, body]}
            stages.append({"const": kind})
        stages.append(_stage(kind, body))

    properties = header["properties"]
    properties["license"] = {**properties["licence"], "description": "The same as `licence`."}
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    body = {key: value for key, value in properties["centres"].items() if key in ("$ref", "allOf")}
    properties["centres"] = {
        "description": properties["centres"].get("description", ""),
        "anyOf": [{**names, "description": "Ids of centres."}, {"type": "string"}, body],
    }
    properties["structures"] = {
        "type": "array",
        "minItems": 1,
        "description": "Where structures come from; each is taken once.",
        "items": {"oneOf": sources},
    }
    properties["stages"] = {
        "type": "array",
        "minItems": 1,
        "description": "Tasks and gates, in order.",
        "items": {"oneOf": stages},
    }
    required = [key for key in header["required"] if key != "licence"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "matcompute campaign file, version 1",
        "type": "object",
        "properties": properties,
        "required": [*required, "structures", "stages"],
        "oneOf": [{"required": ["licence"]}, {"required": ["license"]}],
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """Return a schema with its references to some definitions under new names."""
    if isinstance(value, dict):
        return {
            key: f"#/$defs/{names[item.removeprefix('#/$defs/')]}"
            if key == "$ref" and item.removeprefix("#/$defs/") in names
            else _renamed(item, names)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_renamed(item, names) for item in value)
    return value


def _task(model: type[BaseModel], task: Any, alone: str = "") -> dict[str, Any]:
    """Return the schema of a compute stage, of a task of one calculator's own if it is named."""
    schema = _inline(model)
    calculator: dict[str, Any] = (
        {"calculator": {"$ref": "#/$defs/calculator"}} if needs_calculator(task) else {}
    )
    if alone:
        either = [{"const": alone}, {"$ref": f"#/$defs/calculator-{alone}"}]
        calculator = {"calculator": {"anyOf": either}}
    short: dict[str, Any] = {}
    if calculator:
        text = "The protocol of a first-principles calculator; short for its own key."
        short = {"protocol": {"type": "string", "description": text}}
    schema["properties"] = {
        "name": _NAME,
        **calculator,
        **short,
        "resources": {"$ref": "#/$defs/resources"},
        "batch_size": {"type": "integer", "minimum": 1, "description": "Structures a batch at most."},
        **schema.get("properties", {}),
    }
    schema["required"] = [*calculator, *schema.get("required", [])]
    return schema


def _select(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a ``select`` gate of one method."""
    schema = _inline(model)
    properties = schema["properties"]
    name = properties["method"]["const"]
    others = [alias for alias, meant in ALIASES.items() if meant == name]
    if others:
        properties["method"] = {"enum": [name, *others], "description": model.__doc__}
    if "objectives" in properties:
        pairs = {"type": "array", "minItems": 1, "items": dict(properties["objectives"])}
        properties["objectives"] = {"anyOf": [properties["objectives"], pairs]}
    schema["properties"] = {"name": _NAME, **properties}
    return schema


def _stage(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {kind: body},
        "required": [kind],
        "additionalProperties": False,
    }


def _shorthands(schema: dict[str, Any]) -> None:
    """Allow one text where a list of texts is meant, as the models do."""
    for name, entry in schema["properties"].items():
        if entry.get("type") == "array" and name in {"files", "prototypes"}:
            array = {key: entry.pop(key) for key in ("type", "items", "minItems") if key in entry}
            entry["anyOf"] = [array, {"type": "string"}]
        if name == "index":
            entry["type"] = ["string", "integer"]
        if name == "elements":
            one_or_many = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
            entry["anyOf"] = [
                one_or_many,
                {"type": "object", "additionalProperties": one_or_many},
            ]


def schema_text() -> str:
    """Return the schema as it stands in ``docs/reference/campaign.schema.json``."""
    return json.dumps(campaign_schema(), indent=2, ensure_ascii=False) + "\n"

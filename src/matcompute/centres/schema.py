"""The JSON Schema of the centre profile, for editors and other programs."""

from __future__ import annotations

import json
from typing import Any

from matcompute.centres.model import SCHEMA, Centre

__all__ = ["centre_schema", "schema_text"]


def centre_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of ``matcompute.centre/v1``."""
    schema = Centre.model_json_schema(by_alias=True)
    schema.pop("description", None)
    schema["required"] = sorted({"schema", *schema.get("required", [])})
    schema["properties"]["schema"]["description"] = "Version of the format."
    definitions = schema["$defs"]
    # A number of GPUs is enough; the model takes it as their count.
    gpus = definitions["PartitionBlock"]["properties"]["gpus"]
    reference = gpus.pop("$ref", None) or gpus.pop("allOf")[0]["$ref"]
    gpus["anyOf"] = [{"type": "integer", "minimum": 0}, {"$ref": reference}]
    values = definitions["LaunchBlock"]["properties"]["env"]
    for key in ("additionalProperties", "patternProperties"):
        if key in values:
            values[key] = _text_or_number(values[key])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"matcompute compute-centre profile, {SCHEMA}",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _text_or_number(entry: Any) -> Any:
    if isinstance(entry, dict) and entry.get("type") == "string":
        return {**entry, "type": ["string", "number"]}
    return {key: _text_or_number(value) for key, value in entry.items()} if isinstance(entry, dict) else entry


def schema_text() -> str:
    """Return the schema as it stands in ``docs/reference/centre.schema.json``."""
    return json.dumps(centre_schema(), indent=2, ensure_ascii=False) + "\n"

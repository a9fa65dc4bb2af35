"""Answers of the OPTIMADE door as JSON text; the attributes of an entry are passed on as they are stored."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import matcompute
from matcompute.server.optimade.fields import UNKNOWN_STANDARD
from matcompute.server.optimade.problems import BadRequest, OptimadeProblem
from matcompute.server.optimade.served import PREFIX, Catalogue
from matcompute.times import exact, utc_now

__all__ = ["API_VERSION", "document", "entry", "error", "fields_of", "info", "meta", "property_infos"]

#: The newest version that the models of the ``optimade`` package check.
API_VERSION = "1.2.0"
_SCHEMA = "https://schemas.optimade.org/openapi/v1.2/optimade.json"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


#: A time of RFC 3339; many entries of an answer have the same one.
timestamp = lru_cache(maxsize=4096)(exact)


def meta(
    representation: str,
    provider: dict[str, Any],
    *,
    more: bool = False,
    returned: int | None = None,
    available: int | None = None,
    warnings: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the ``meta`` of an answer."""
    found: dict[str, Any] = {
        "query": {"representation": representation},
        "api_version": API_VERSION,
        "schema": _SCHEMA,
        "time_stamp": utc_now(),
        "more_data_available": more,
        "provider": provider,
        "implementation": {"name": "matcompute", "version": matcompute.__version__},
    }
    if returned is not None:
        found["data_returned"] = returned
    if available is not None:
        found["data_available"] = available
    said = list(dict.fromkeys(warnings))
    if said:
        found["warnings"] = [{"type": "warning", "title": "Warning", "detail": text} for text in said]
    return found


def document(meta: dict[str, Any], data: str, links: dict[str, Any] | None = None) -> bytes:
    """Return an answer; ``data`` is JSON already."""
    tail = f',"links":{_json(links)}' if links is not None else ""
    return f'{{"data":{data},"meta":{_json(meta)}{tail}}}'.encode()


def error(problem: OptimadeProblem, meta: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a wrong request."""
    # A request may hold what is no text; the answer is.
    detail = str(problem)[:1000].encode("utf-8", "replace").decode()
    return {
        "errors": [{"status": str(problem.status), "title": problem.title, "detail": detail}],
        "meta": meta,
    }


def fields_of(
    names: tuple[str, ...] | None, catalogue: Catalogue, warnings: list[str]
) -> tuple[str, ...] | None:
    """Return the attributes to show; None: all.

    Raises
    ------
    BadRequest
        If there is no such property in the standard.
    """
    if names is None:
        return None
    found = []
    for name in dict.fromkeys(names):
        if name in ("", "id", "type"):
            continue
        if name not in catalogue.fields and name not in UNKNOWN_STANDARD:
            if not name.startswith("_"):
                raise BadRequest(f"there is no property '{name[:80]}' in response_fields")
            warnings.append(f"the property '{name[:80]}' is unknown here")
            if not name.isidentifier() or len(name) > 255:
                continue
        if "." not in name:
            found.append(name)
    return tuple(found)


def entry(row: Any, fields: tuple[str, ...] | None) -> str:
    """Return an entry as JSON."""
    of_set = {
        f"_{PREFIX}_dataset_id": row.dataset_id,
        f"_{PREFIX}_dataset_version": row.version,
        f"_{PREFIX}_licence": row.licence,
    }
    entry_id = row.id[len(row.dataset_id) + 1 :]
    own = {
        "immutable_id": f"{row.dataset_id}/{row.version}/{entry_id}",
        "last_modified": timestamp(row.modified),
    }
    if fields is None:
        # By far the most frequent case: what all entries of a set share is made once.
        attributes = f"{_json(own)[:-1]},{_shared(*of_set.items())},{row.attributes[1:]}"
    else:
        every = own | of_set | (json.loads(row.attributes) if not set(fields) <= own.keys() else {})
        attributes = _json({name: every.get(name) for name in fields})
    return f'{{"id":{_json(row.id)},"type":"structures","attributes":{attributes}}}'


@lru_cache(maxsize=1024)
def _shared(*items: tuple[str, Any]) -> str:
    return _json(dict(items))[1:-1]


def info(base: str) -> dict[str, Any]:
    """Return the data of ``/info``."""
    attributes: dict[str, Any] = {
        "api_version": API_VERSION,
        "available_api_versions": [{"url": f"{base}/v1", "version": API_VERSION}],
        "formats": ["json"],
        "available_endpoints": ["info", "links", "structures"],
        "entry_types_by_format": {"json": ["structures"]},
        "is_index": False,
    }
    return {"type": "info", "id": "/", "attributes": attributes}


def property_infos(catalogue: Catalogue) -> dict[str, Any]:
    """Return the properties of ``/info/structures``: the standard's, and those of what the principal is shown."""
    described = _standard()
    found: dict[str, Any] = {}
    for name, field in catalogue.fields.items():
        if "." in name:
            continue
        definition = field.definition or {}
        item: dict[str, Any] = described.get(name) or _OWN.get(name) or {}
        if definition:
            item = {"description": definition.get("description") or definition.get("title") or name}
            unit = definition.get("x-optimade-unit")
            if unit not in (None, "inapplicable", "dimensionless"):
                item["unit"] = unit
            for key in ("$id", "title", "items", "x-optimade-unit", "x-optimade-property"):
                if key in definition:
                    item[key] = definition[key]
        found[name] = item | {"type": field.kind, "x-optimade-type": field.kind, "sortable": field.sortable}
    return found


_OWN = {
    f"_{PREFIX}_dataset_id": {"description": "Identifier of the dataset that the entry belongs to."},
    f"_{PREFIX}_dataset_version": {"description": "Version of that dataset."},
    f"_{PREFIX}_licence": {"description": "Licence of that dataset, an SPDX expression."},
    f"_{PREFIX}_computed": {
        "description": "When the entry was last computed. (`last_modified` is when it changed on this server.)"
    },
}


def _standard() -> dict[str, dict[str, Any]]:
    from optimade.models import StructureResource
    from optimade.server.schemas import retrieve_queryable_properties

    found = retrieve_queryable_properties(StructureResource, ("id", "type", "attributes"))
    return {
        name: {key: item[key] for key in ("description", "unit") if item.get(key)}
        for name, item in found.items()
    }

"""Fill a mapping table with the facts of a release: `render`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matcompute.publish.facts import ReleaseFacts
from matcompute.publish.mappings.tables import MappingError, load_table

__all__ = ["MappingError", "render"]


def render(name: str, facts: ReleaseFacts, *, tables_dir: Path | None = None) -> dict[str, Any]:
    """Return the document that a table makes of the facts.

    The template language is JSON-e (a published specification, with no access to anything but the context): names
    are the fields of `ReleaseFacts`, what `ReleaseFacts.to_context` adds, and ``settings`` and ``table`` of the
    table. What comes out empty (null, empty text, list or mapping) is left out of the document. The same facts give
    the same document: a template sees no clock and no random numbers.

    Parameters
    ----------
    name
        Name of the table (`table_names`).
    facts
        The release.
    tables_dir
        A node's own tables, which replace those of the package by name.

    Raises
    ------
    MappingError
        If the table is missing or malformed, or the template asks for what is not there.
    """
    from jsone import render as fill
    from jsone.shared import JSONTemplateError

    table = load_table(name, tables_dir)
    context = facts.to_context() | {
        "settings": table.settings,
        "table": {"name": table.name, "version": table.version, "standard": table.standard},
        # JSON-e offers the time of day as `now`; a document that held it could not be made again.
        "now": facts.created,
        "first": _first,
    }
    try:
        document = _without_empty(fill(table.document, context))
    except JSONTemplateError as error:
        raise MappingError(
            f"{table.path}: {error}", hint="the names that a table may use are in docs/reference/mappings.md"
        ) from error
    if not isinstance(document, dict):
        raise MappingError(f"{table.path}: document is no mapping")
    return document


def _first(values: list[Any]) -> Any:
    """The first of some values that is not empty (JSON-e's own ``||`` gives true or false)."""
    return next((value for value in values if not _empty(value)), None)


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        items = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if not _empty(item)}
    if isinstance(value, list):
        return [item for item in map(_without_empty, value) if not _empty(item)]
    return value


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)

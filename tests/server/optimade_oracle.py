"""Filters decided in plain Python over whole entries: what the answers of the database must agree with."""

from __future__ import annotations

import operator
from datetime import datetime
from typing import Any

from matcompute.server.optimade import grammar as g

_OPS: dict[str, Any] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip


def value_of(entry: dict[str, Any], path: str) -> Any:
    """Return the value of a property, None if it is unknown."""
    if path in ("id", "type"):
        return entry[path]
    head, _, rest = path.partition(".")
    found = entry["attributes"].get(head)
    if rest and found is not None:
        parts = [item[rest] for item in found]
        return [x for part in parts for x in part] if parts and isinstance(parts[0], list) else parts
    return found


def _compare(op: str, one: Any, other: Any, name: str) -> bool | None:
    if one is None or other is None:
        return None
    if name == "last_modified":
        one, other = (datetime.fromisoformat(x.upper().replace("Z", "+00:00")) for x in (one, other))
    return bool(_OPS[op](one, other))


def _all(values: list[bool | None]) -> bool | None:
    return False if False in values else None if None in values else True


def _any(values: list[bool | None]) -> bool | None:
    return True if True in values else None if None in values else False


def decide(tree: g.Expression, entry: dict[str, Any]) -> bool | None:
    """Return whether a filter matches; None: unknown."""
    match tree:
        case g.And(parts):
            return _all([decide(p, entry) for p in parts])
        case g.Or(parts):
            return _any([decide(p, entry) for p in parts])
        case g.Not(part):
            found = decide(part, entry)
            return None if found is None else not found
        case g.Compare(left, op, right):
            one, other = (value_of(entry, v.path) if isinstance(v, g.Name) else v for v in (left, right))
            return _compare(op, one, other, left.path if isinstance(left, g.Name) else "")
        case g.Fuzzy(name, kind, value):
            one = value_of(entry, name.path)
            other = value_of(entry, value.path) if isinstance(value, g.Name) else value
            if one is None or other is None:
                return None
            return {"CONTAINS": str.__contains__, "STARTS": str.startswith, "ENDS": str.endswith}[kind](
                one, other
            )
        case g.Known(name, known):
            return (value_of(entry, name.path) is not None) == known
        case g.Length(name, op, value):
            found = value_of(entry, name.path)
            return None if found is None else bool(_OPS[op](len(found), value))
        case g.Has(names, quantifier, wanted):
            lists = [value_of(entry, n.path) for n in names]
            if any(items is None for items in lists):
                return None
            rows = list(zip(*lists))

            def match_(one: Any, row: Any) -> bool:
                return all(v is not None and _OPS[op](v, value) for (op, value), v in zip(one, row))

            if quantifier == "ALL":
                return all(any(match_(one, row) for row in rows) for one in wanted)
            if quantifier == "ANY":
                return any(match_(one, row) for one in wanted for row in rows)
            return all(any(match_(one, row) for one in wanted) for row in rows)
        case _:
            raise AssertionError(tree)

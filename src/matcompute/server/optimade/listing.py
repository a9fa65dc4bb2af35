"""One page of entries: parameters, keyset cursors, and the queries."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Float,
    Text,
    and_,
    case,
    false,
    literal,
    or_,
    select,
    true,
)

from matcompute.server.access import Principal
from matcompute.server.optimade import grammar
from matcompute.server.optimade.problems import BadRequest, Forbidden, NotFound, VersionNotSupported
from matcompute.server.optimade.served import PREFIX, Catalogue, served
from matcompute.server.optimade.tables import ROWS, bodies, sets, structures
from matcompute.server.tables import datasets

__all__ = ["COUNTED", "Page", "Query", "find_one", "find_page"]

#: Matches of a filter are counted up to here; a larger number is not said.
COUNTED = 10_000
#: A principal's sets are read one range after the other if there are at most so many ranges.
_RUNS = 16
_KNOWN = {
    "filter", "response_format", "email_address", "response_fields", "sort", "page_limit", "page_offset",
    "page_number", "page_cursor", "page_after", "page_above", "page_below", "include", "api_hint",
}  # fmt: skip


@dataclass(frozen=True)
class Query:
    """The parameters of a request, checked.

    Parameters
    ----------
    tree, sort, fields
        Filter, order (name, descending), names of the wanted fields (None: all).
    limit, offset, cursor
        Which page.
    """

    tree: grammar.Expression | None = None
    sort: tuple[tuple[str, bool], ...] = ()
    fields: tuple[str, ...] | None = None
    limit: int = 100
    offset: int = 0
    cursor: str | None = None
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, pairs: Iterable[tuple[str, str]], size: int, most: int, *, single: bool = False) -> Query:
        """Check the parameters of a URL.

        Raises
        ------
        OptimadeProblem
            If one is unknown, wrong, or asks for too much.
        """
        given: dict[str, str] = {}
        warnings: list[str] = []
        for name, value in pairs:
            if name in _KNOWN:
                given[name] = value
            elif (match := re.fullmatch(r"_([a-z0-9]+)_[a-z0-9_]*", name)) and match[1] != PREFIX:
                warnings.append(f"the parameter '{name[:80]}' belongs to another provider: it was not used")
            else:
                raise BadRequest(f"there is no parameter '{name[:80]}' here")
        _hint(given.get("api_hint", ""))
        if given.get("response_format", "json") not in ("json", ""):
            raise BadRequest(f"the only response_format here is json, not {given['response_format'][:40]!r}")
        if "include" in given and given["include"] not in ("", "references"):
            raise BadRequest(f"{given['include'][:80]!r} cannot be included")
        names = (
            tuple(n.strip() for n in given["response_fields"].split(","))
            if given.get("response_fields")
            else None
        )
        if single:
            return cls(fields=names, warnings=warnings)
        for name in ("page_above", "page_below"):
            if name in given:
                raise BadRequest(f"{name} is not offered here", hint="follow links.next, or use page_offset")
        limit = _integer(given, "page_limit", size, 1)
        if limit > most:
            raise Forbidden(f"page_limit is {limit}; this server gives {most} at most")
        offset = _integer(given, "page_offset", 0, 0)
        if "page_number" in given:
            number = _integer(given, "page_number", 1, 1)
            offset = offset or (number - 1) * limit
        text = given.get("filter", "")
        return cls(
            tree=grammar.parse(text) if text.strip() else None,
            sort=_sort(given.get("sort", "")),
            fields=names,
            limit=limit,
            offset=offset,
            cursor=given.get("page_cursor") or given.get("page_after") or None,
            warnings=warnings,
        )


def _hint(text: str) -> None:
    if not text:
        return
    if not re.fullmatch(r"v[0-9]+(\.[0-9]+){0,2}", text):
        raise BadRequest("api_hint is like v1 or v1.2")
    if text.split(".")[0] != "v1":
        raise VersionNotSupported(f"this server speaks v1, not {text[:20]}")


def _integer(given: dict[str, str], name: str, default: int, least: int) -> int:
    text = given.get(name, "")
    if text == "":
        return default
    if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) < least:
        raise BadRequest(f"{name} is a whole number from {least} on, not {text[:40]!r}")
    return int(text)


def _sort(text: str) -> tuple[tuple[str, bool], ...]:
    parts = [part.strip() for part in text.split(",")] if text else []
    if len(parts) > 8:
        raise BadRequest("sort takes up to 8 fields")
    return tuple((part.removeprefix("-"), part.startswith("-")) for part in parts)


@dataclass(frozen=True)
class Page:
    """Rows of a page, and what is known of the rest."""

    rows: list[Any]
    more: bool
    cursor: str | None
    returned: int | None


@dataclass(frozen=True)
class _Key:
    """One column of the order."""

    expression: Any
    descending: bool
    type: Any

    def after(self, value: Any) -> ColumnElement[bool]:
        if value is None:
            return false()  # unknown values come last, told apart by the key before
        bound = literal(value, self.type)
        return self.expression < bound if self.descending else self.expression > bound

    def same(self, value: Any) -> ColumnElement[bool]:
        return self.expression.is_(None) if value is None else self.expression == literal(value, self.type)

    def order(self) -> Any:
        return self.expression.desc() if self.descending else self.expression.asc()


_TYPES = {"integer": BigInteger(), "float": Float(53), "string": Text(), "timestamp": BigInteger()}
_NULLABLE = re.compile(r"[nt][0-9]{2}")


def _order(catalogue: Catalogue, query: Query) -> list[_Key]:
    keys = []
    for name, descending in query.sort:
        found = catalogue.fields.get(name)
        if found is None or not found.sortable:
            catalogue.fields.get(name) or catalogue.find(name, query.warnings)
            if found is None and name.startswith("_"):
                continue  # another provider's: said in the warnings
            raise BadRequest(
                f"entries cannot be sorted by '{name[:80]}'", hint="see sortable in /info/structures"
            )
        assert found.at is not None
        assert found.at.column is not None
        column = structures.c[found.at.column]
        expression = catalogue.modified if name == "last_modified" else column
        if _NULLABLE.fullmatch(column.name):
            keys.append(_Key(case((column.is_(None), 1), else_=0), False, BigInteger()))
        kind = "float" if column.name.startswith("n") and _NULLABLE.fullmatch(column.name) else found.kind
        keys.append(_Key(expression, descending, _TYPES[kind]))
    keys.append(_Key(structures.c.key, False, BigInteger()))
    return keys


def _after(keys: list[_Key], values: list[Any]) -> ColumnElement[bool]:
    ways = []
    for k, (key, value) in enumerate(zip(keys, values)):
        ways.append(and_(*(one.same(v) for one, v in zip(keys[:k], values[:k])), key.after(value)))
    return or_(*ways)


def _encode(query: Query, values: list[Any], total: int | None) -> str:
    raw = json.dumps([_sort_text(query), values, total], separators=(",", ":"), ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(query: Query, keys: list[_Key]) -> tuple[list[Any], int | None]:
    text = query.cursor or ""
    try:
        raw = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        sort, values, total = json.loads(raw)
        right = len(values) == len(keys) and sort == _sort_text(query)
        for key, value in zip(keys, values):
            kinds: tuple[type, ...] = (str,) if isinstance(key.type, Text) else (int, float)
            right = right and (value is None or (isinstance(value, kinds) and not isinstance(value, bool)))
            right = right and not (isinstance(value, int) and abs(value) >= 1 << 63)
            right = right and not (isinstance(key.type, BigInteger) and not isinstance(value, int))
            right = right and not (isinstance(value, str) and "\x00" in value)
        right = right and (total is None or (isinstance(total, int) and 0 <= total <= COUNTED))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        right = False
    if not right:
        raise BadRequest("this page_cursor was not given out for this query", hint="follow links.next")
    return values, total


def _sort_text(query: Query) -> str:
    return ",".join(f"{'-' * descending}{name}" for name, descending in query.sort)


def find_page(
    connection: Connection, principal: Principal, catalogue: Catalogue, query: Query, dialect: str
) -> Page:
    """Return one page.

    Without a sort, entries come in the order of their keys, and each range of keys that is served is read from
    where the page before ended: a page costs the same wherever it is. Only keys are looked for; the bulky
    attributes of the page are read in the end.

    Raises
    ------
    OptimadeProblem
        If the filter, the order or the cursor is wrong.
    """
    keys = _order(catalogue, query)
    condition = (
        true() if query.tree is None else catalogue.compiler(dialect, query.warnings).condition(query.tree)
    )
    values, total = _decode(query, keys) if query.cursor is not None else ([], None)
    first = query.cursor is None and query.offset == 0
    counting = first and query.tree is not None
    wanted = (max(COUNTED, query.limit) if counting else query.limit) + 1
    base = (
        select(*(key.expression.label(f"key{k}") for k, key in enumerate(keys)))
        .where(structures.c.set_no.in_(served(principal)), condition)
        .order_by(*(key.order() for key in keys))
    )
    found: list[Any] = []
    if len(keys) == 1 and query.offset == 0 and len(catalogue.runs) <= _RUNS:
        after = values[0] if values else -1
        for low, high in catalogue.runs:
            if (high + 1) * ROWS <= after:
                continue
            within = structures.c.key.between(max(low * ROWS, after + 1), (high + 1) * ROWS - 1)
            found += connection.execute(base.where(within).limit(wanted - len(found))).all()
            if len(found) == wanted:
                break
    else:
        if values:
            base = base.where(_after(keys, values))
        found = list(connection.execute(base.offset(query.offset or None).limit(wanted)).all())
    if query.tree is None:
        total = catalogue.total
    elif counting:
        total = len(found) if len(found) < wanted and len(found) <= COUNTED else None
    shown, more = found[: query.limit], len(found) > query.limit
    rows = _rows(connection, principal, catalogue, [row[-1] for row in shown])
    cursor = _encode(query, list(shown[-1]), total if query.tree is not None else None) if more else None
    return Page(rows, more, cursor, total)


def find_one(connection: Connection, principal: Principal, catalogue: Catalogue, entry_id: str) -> Any:
    """Return the row of an entry.

    Raises
    ------
    NotFound
        If there is none that the principal may see.
    """
    rows = []
    if "\x00" not in entry_id:  # PostgreSQL has no such text
        found = connection.execute(
            select(structures.c.key)
            .join(bodies, bodies.c.key == structures.c.key)
            .where(bodies.c.id == entry_id, structures.c.set_no.in_(served(principal)))
        )
        rows = _rows(connection, principal, catalogue, list(found.scalars()))
    if not rows:
        raise NotFound("there is no such entry that you may see")
    return rows[0]


def _rows(connection: Connection, principal: Principal, catalogue: Catalogue, keys: list[int]) -> list[Any]:
    if not keys:
        return []
    query = (
        select(
            structures.c.key,
            catalogue.modified.label("modified"),
            bodies.c.id,
            bodies.c.attributes,
            sets.c.dataset_id,
            sets.c.version,
            datasets.c.licence,
        )
        .join(bodies, bodies.c.key == structures.c.key)
        .join(sets, sets.c.no == structures.c.set_no)
        .join(datasets, datasets.c.id == sets.c.dataset_id)
        .where(structures.c.key.in_(keys), structures.c.set_no.in_(served(principal)))
    )
    by_key = {row.key: row for row in connection.execute(query).all()}
    return [by_key[key] for key in keys if key in by_key]

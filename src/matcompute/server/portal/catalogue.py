"""The catalogue: which datasets somebody may see, narrowed by text, domain, elements and a range of a property."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, Connection, and_, exists, func, select

from matcompute.dataset import DOMAINS
from matcompute.server.access import Access, Principal
from matcompute.server.portal.tables import elements, properties
from matcompute.server.tables import datasets
from matcompute_kernels.elements import SYMBOLS

__all__ = ["Catalogue", "Query", "parse_elements", "parse_number", "plain"]

_SPLIT = re.compile(r"[\s,;、，+-]+")
_KNOWN = frozenset(SYMBOLS[1:])


@dataclass(frozen=True)
class Query:
    """What a reader of the catalogue looks for.

    Parameters
    ----------
    text
        Part of a title or description.
    domains
        Any of these.
    elements
        All of these.
    column, low, high
        Datasets whose values of a property reach into this range.
    before
        Only datasets whose last event came before this one (keyset of the pages).
    """

    text: str = ""
    domains: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    column: str = ""
    low: float | None = None
    high: float | None = None
    before: int | None = None

    @property
    def low_text(self) -> str:
        """The lower end as it was typed."""
        return "" if self.low is None else f"{self.low:g}"

    @property
    def high_text(self) -> str:
        """The upper end as it was typed."""
        return "" if self.high is None else f"{self.high:g}"

    def href(self, **changes: Any) -> str:
        """Return the query string of this query with some changes; always from the first page unless told."""
        query = replace(self, **({"before": None} | changes))
        pairs: list[tuple[str, str]] = [("q", query.text)] if query.text else []
        pairs += [("domain", name) for name in query.domains]
        pairs += [("elements", " ".join(query.elements))] if query.elements else []
        pairs += [("property", query.column)] if query.column else []
        pairs += [("min", query.low_text)] if query.low is not None else []
        pairs += [("max", query.high_text)] if query.high is not None else []
        pairs += [("before", str(query.before))] if query.before is not None else []
        return "?" + urlencode(pairs)

    @classmethod
    def parse(cls, values: Mapping[str, str], domains: list[str]) -> tuple[Query, list[tuple[str, str]]]:
        """Read a query string; what is wrong in it is left out and told as (key of the text, what was wrong)."""
        problems: list[tuple[str, str]] = []
        found, unknown = parse_elements(values.get("elements", ""))
        problems += [("problem.element", text) for text in unknown]
        numbers: dict[str, float | None] = {}
        for key in ("min", "max"):
            try:
                numbers[key] = parse_number(values.get(key, ""))
            except ValueError:
                problems.append(("problem.number", values[key][:30]))
                numbers[key] = None
        before = values.get("before", "")
        query = cls(
            text=plain(values.get("q", ""), 200),
            domains=tuple(d for d in DOMAINS if d in domains),
            elements=found,
            column=plain(values.get("property", ""), 128),
            low=numbers["min"],
            high=numbers["max"],
            before=int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None,
        )
        if not query.column and (query.low is not None or query.high is not None):
            problems.append(("problem.range", ""))
        return query, problems


def plain(text: str, most: int) -> str:
    """Return a text without control characters, which some databases refuse, cut to a length."""
    return "".join(c for c in text[:most] if c.isprintable()).strip()


def parse_elements(text: str) -> tuple[tuple[str, ...], list[str]]:
    """Return the elements in a text (``Al, Ni`` or ``AlNi``), and what in it is none."""
    found, unknown = [], []
    for part in filter(None, _SPLIT.split(text[:200])):
        symbols = re.findall(r"[A-Z][a-z]?", part)
        name = part[:1].upper() + part[1:].lower()
        if part in _KNOWN or (len(part) <= 2 and name in _KNOWN and "".join(symbols) != part):
            found.append(part if part in _KNOWN else name)
        elif symbols and "".join(symbols) == part and all(s in _KNOWN for s in symbols):
            found += symbols
        else:
            unknown.append(part[:20])
    return tuple(dict.fromkeys(found)), unknown


def parse_number(text: str) -> float | None:
    """Return a number, None for an empty text.

    Raises
    ------
    ValueError
        If it is none, or not finite.
    """
    text = text.strip().replace("−", "-")
    if not text:
        return None
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


class Catalogue:
    """The datasets that a principal may see.

    Parameters
    ----------
    connection
        To the index.
    principal
        Who asks.
    """

    def __init__(self, connection: Connection, principal: Principal) -> None:
        self.connection = connection
        self.visible = Access.visible(principal)

    def rows(self, query: Query, limit: int) -> list[dict[str, Any]]:
        """Return datasets with their elements, those first that changed last."""
        where = [*self._where(query)]
        if query.before is not None:
            where.append(datasets.c.seq < query.before)
        found = self.connection.execute(
            select(datasets).where(and_(*where)).order_by(datasets.c.seq.desc()).limit(limit)
        )
        rows = [dict(row) for row in found.mappings()]
        of: dict[str, list[str]] = {row["id"]: [] for row in rows}
        symbols = (
            select(elements.c.dataset_id, elements.c.symbol)
            .join(datasets, _same(elements))
            .where(elements.c.dataset_id.in_(list(of)))
            .order_by(elements.c.entries.desc(), elements.c.symbol)
        )
        for row in self.connection.execute(symbols):
            of[row.dataset_id].append(row.symbol)
        return [{**row, "elements": of[row["id"]]} for row in rows]

    def count(self, query: Query) -> int:
        """Return how many datasets there are."""
        query_all = select(func.count()).select_from(datasets).where(and_(*self._where(query)))
        return int(self.connection.execute(query_all).scalar_one())

    def totals(self) -> dict[str, Any]:
        """Return how much there is in all: datasets, entries, elements, time of the last change."""
        columns = (
            func.count(),
            func.coalesce(func.sum(datasets.c.entries), 0),
            func.max(datasets.c.changed_at),
        )
        count, entries, changed = self.connection.execute(select(*columns).where(self.visible)).one()
        return {
            "datasets": int(count),
            "entries": int(entries),
            "elements": len(self.elements(Query())),
            "changed_at": changed or "",
        }

    def domains(self, query: Query) -> list[tuple[str, int]]:
        """Return domains with their number of datasets; the choice of domains itself is left aside."""
        where = self._where(replace(query, domains=()))
        grouped = select(datasets.c.domain, func.count()).where(and_(*where)).group_by(datasets.c.domain)
        counts = {str(name): int(n) for name, n in self.connection.execute(grouped)}
        return [(name, counts.get(name, 0)) for name in DOMAINS if name in counts or name in query.domains]

    def elements(self, query: Query) -> dict[str, int]:
        """Return the elements of the datasets found, with in how many of them each is."""
        grouped = (
            select(elements.c.symbol, func.count())
            .join(datasets, _same(elements))
            .where(and_(*self._where(query)))
            .group_by(elements.c.symbol)
        )
        return {str(symbol): int(n) for symbol, n in self.connection.execute(grouped)}

    def properties(self) -> list[dict[str, Any]]:
        """Return the properties of all visible datasets: name, long name, units; one of each name."""
        grouped = (
            select(
                properties.c.name,
                func.min(properties.c.long_name).label("long_name"),
                func.min(properties.c.units).label("units"),
            )
            .join(datasets, _same(properties))
            .where(self.visible)
            .group_by(properties.c.name)
            .order_by(func.count().desc(), properties.c.name)
            .limit(500)
        )
        return [dict(row) for row in self.connection.execute(grouped).mappings()]

    def _where(self, query: Query) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = [self.visible]
        if query.text:
            text = query.text.lower()
            found.append(
                func.lower(datasets.c.title).contains(text, autoescape=True)
                | func.lower(datasets.c.description).contains(text, autoescape=True)
                | (datasets.c.id == text)
            )
        if query.domains:
            found.append(datasets.c.domain.in_(query.domains))
        found += [
            exists().where(_same(elements), elements.c.symbol == symbol).correlate(datasets)
            for symbol in query.elements
        ]
        if query.column:
            inside = [_same(properties), properties.c.name == query.column]
            if query.low is not None:
                inside.append(properties.c.high >= query.low)
            if query.high is not None:
                inside.append(properties.c.low <= query.high)
            found.append(exists().where(*inside).correlate(datasets))
        return found


def _same(table: Any) -> ColumnElement[bool]:
    return and_(table.c.dataset_id == datasets.c.id, table.c.version == datasets.c.version)

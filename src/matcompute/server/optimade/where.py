"""A filter as an SQL condition over ``structures``: `condition`.

Every value of the request is a bound parameter. Unknown values follow SQL's three-valued logic: a comparison with
one is neither true nor false, so neither it nor its negation matches, as the standard wants.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Text,
    and_,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    select,
)

from matcompute.server.optimade import elements, grammar
from matcompute.server.optimade.fields import Field, Kind, entry_key_of, immutable_id
from matcompute.server.optimade.problems import BadRequest, NotImplementedHere
from matcompute.server.optimade.tables import bodies, sets, structures

__all__ = ["Compiler", "microseconds"]

Condition = ColumnElement[bool]
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def microseconds(text: str) -> int:
    """Return a time of RFC 3339 as microseconds since 1970.

    Raises
    ------
    BadRequest
        If it is none.
    """
    match = _RFC3339.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        day, clock, fraction, zone = match.groups()
        leap = clock.endswith(":60")
        clock = clock[:-2] + "59" if leap else clock
        at = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
        delta = at - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadRequest(f"{text[:40]!r} is no time of RFC 3339 (2026-01-31T12:00:00Z)") from None
    whole = (delta.days * 86400 + delta.seconds + leap) * 1_000_000
    return whole + int((fraction or "0").ljust(6, "0")[:6])


class Compiler:
    """Make conditions for one kind of database.

    Parameters
    ----------
    fields
        What may be named; `find` says what to do with other names.
    dialect
        ``sqlite`` or ``postgresql``.
    find
        Called with a name that is not in the fields: gives a field without values, or raises.
    modified
        Expression of ``last_modified``.
    """

    def __init__(
        self,
        fields: Mapping[str, Field],
        dialect: str,
        find: Callable[[str], Field],
        modified: Any = structures.c.last_modified,
    ) -> None:
        self.fields = fields
        self.dialect = dialect
        self._find = find
        self._modified = modified
        self._count = 0

    def field(self, name: grammar.Name) -> Field:
        """Return the field of a name."""
        return self.fields[name.path] if name.path in self.fields else self._find(name.path)

    def condition(self, tree: grammar.Expression) -> Condition:
        """Return the condition of a filter.

        Raises
        ------
        BadRequest
            If it names what is not there, or a time is none.
        NotImplementedHere
            If it compares two types, or asks for what this server has not.
        """
        match tree:
            case grammar.And(parts):
                return _tree(and_, [self.condition(part) for part in parts])
            case grammar.Or(parts):
                return _tree(or_, [self.condition(part) for part in parts])
            case grammar.Not(part):
                return not_(self.condition(part))
            case grammar.Compare(left, op, right):
                return self._compare(left, op, right)
            case grammar.Bare(name):
                return self._scalar(self.field(name), "=", True)
            case grammar.Fuzzy(name, kind, value):
                return self._fuzzy(name, kind, value)
            case grammar.Known(name, known):
                found = self.field(name).known(self.dialect)
                return found if known else not_(found)
            case grammar.Has(names, quantifier, wanted):
                return self._has([self.field(n) for n in names], quantifier, wanted)
            case grammar.Length(name, op, value):
                return self._length(self.field(name), op, value)

    # -- scalars ----------------------------------------------------------------------------------------------

    def _compare(self, left: grammar.Value, op: str, right: grammar.Value) -> Condition:
        if not isinstance(left, grammar.Name):
            if isinstance(left, str) or isinstance(right, str | grammar.Name):
                raise NotImplementedHere("two constants can be compared only if they are numbers")
            return _constant(_COMPARE[op](left, right))
        field = self.field(left)
        if isinstance(right, grammar.Name):
            return self._two(field, op, self.field(right))
        return self._scalar(field, op, right)

    def _two(self, one: Field, op: str, other: Field) -> Condition:
        numbers = {"integer", "float"}
        if "unknown" in (one.kind, other.kind):
            return _unknown()
        if one.kind != other.kind and not {one.kind, other.kind} <= numbers:
            raise NotImplementedHere(
                f"{one.name} ({one.kind}) cannot be compared with {other.name} ({other.kind})"
            )
        if not (one.sortable and other.sortable):
            raise NotImplementedHere(f"{one.name} and {other.name} cannot be compared with each other here")
        return _COMPARE[op](self._expression(one), self._expression(other))

    def _expression(self, field: Field) -> Any:
        assert field.at is not None
        assert field.at.column is not None
        return self._modified if field.name == "last_modified" else structures.c[field.at.column]

    def _scalar(self, field: Field, op: str, value: str | float | bool) -> Condition:
        if field.kind == "unknown":
            return _unknown()
        if field.kind in ("list", "dictionary"):
            raise NotImplementedHere(f"{field.name} is a {field.kind}: it cannot be compared with '{op}'")
        bound = _bound(field.name, field.kind, op, value)
        compare = _COMPARE[op]
        if field.name == "type":
            return _constant(compare("structures", value))
        if field.name == "immutable_id":
            return self._immutable(op, str(value))
        if field.name == "last_modified":
            return compare(self._modified, bound)
        if field.at is None:
            return _unknown()
        if field.name == "_matcompute_computed":
            raise NotImplementedHere("_matcompute_computed cannot be compared; last_modified can")
        return field.at.where(lambda found: compare(found, bound), field.kind, self.dialect)

    def _immutable(self, op: str, value: str) -> Condition:
        if op == "=":
            parts = entry_key_of(value)
            if parts is None:
                return false()
            same = select(bodies.c.key).where(bodies.c.id == parts[0])
            return and_(
                structures.c.key.in_(same),
                structures.c.set_no.in_(select(sets.c.no).where(sets.c.version == parts[1])),
            )
        expression, joined = immutable_id()
        return structures.c.key.in_(
            select(bodies.c.key).select_from(joined).where(_COMPARE[op](expression, value))
        )

    def _fuzzy(self, name: grammar.Name, kind: str, value: grammar.Value) -> Condition:
        field = self.field(name)
        wanted: Any
        if isinstance(value, grammar.Name):
            other = self.field(value)
            if other.kind != "string" or not other.sortable:
                raise NotImplementedHere(f"{other.name} cannot be the text of {kind}")
            wanted = self._expression(other)
        elif isinstance(value, str):
            wanted = literal(value, Text)
        else:
            raise NotImplementedHere(f"{kind} takes a text, not {value!r}")
        if field.kind == "unknown":
            return _unknown()
        if field.kind != "string":
            raise NotImplementedHere(f"{field.name} is a {field.kind}: {kind} is for texts")

        def test(found: Any) -> Condition:
            if kind == "CONTAINS":
                position = func.strpos if self.dialect == "postgresql" else func.instr
                return position(found, wanted) > 0
            length = func.length(wanted)
            if kind == "STARTS":
                return func.substr(found, 1, length) == wanted
            return and_(
                func.length(found) >= length,
                func.substr(found, func.length(found) - length + 1, length) == wanted,
            )

        if field.name == "type":
            if not isinstance(value, str):
                raise NotImplementedHere("type can be compared with a constant only")
            matches = {"CONTAINS": str.__contains__, "STARTS": str.startswith, "ENDS": str.endswith}[kind]
            return _constant(matches("structures", value))
        if field.name == "immutable_id":
            expression, joined = immutable_id()
            return structures.c.key.in_(select(bodies.c.key).select_from(joined).where(test(expression)))
        if field.at is None:
            return _unknown()
        return field.at.where(test, field.kind, self.dialect)

    # -- lists ------------------------------------------------------------------------------------------------

    def _length(self, field: Field, op: str, value: int) -> Condition:
        if field.kind == "unknown":
            return _unknown()
        if field.kind != "list":
            raise NotImplementedHere(f"{field.name} is a {field.kind}: it has no LENGTH")
        if field.length is not None:
            return _COMPARE[op](structures.c[field.length], _number(value))
        if field.name == "lattice_vectors":
            # Three vectors where there are any.
            return case((field.known(self.dialect), _constant(_COMPARE[op](3, value))), else_=null())
        if field.items is None:
            return _unknown()
        rows, _, _, tie = field.items.unnest(self.dialect, self._alias())
        count = select(func.count()).select_from(rows).where(tie).correlate(structures).scalar_subquery()
        return case((field.known(self.dialect), _COMPARE[op](count, _number(value))), else_=null())

    def _has(
        self, fields: list[Field], quantifier: str, wanted: tuple[tuple[tuple[str, grammar.Value], ...], ...]
    ) -> Condition:
        if any(field.kind == "unknown" for field in fields):
            return _unknown()
        for field in fields:
            if field.kind != "list":
                raise NotImplementedHere(f"{field.name} is a {field.kind}: HAS is for lists")
        for one in wanted:
            for _, value in one:
                if isinstance(value, grammar.Name):
                    raise NotImplementedHere("HAS takes constants, not properties")
        if len(fields) == 1 and fields[0].elements:
            return _elements(fields[0], quantifier, [one[0] for one in wanted])
        for field in fields:
            if field.items is None:
                if field.length is None and field.at is None and field.name != "lattice_vectors":
                    return _unknown()
                raise NotImplementedHere(f"{field.name}: its items cannot be searched")
        found = self._positions(fields, quantifier, wanted)
        known = and_(*(f.known(self.dialect) for f in fields))
        found = case((known, found), else_=null())
        first = fields[0]
        if first.elements and quantifier != "ONLY" and all(one[0][0] == "=" for one in wanted):
            # A quick look at the elements spares reading the lists of most entries.
            return and_(_elements(first, quantifier, [one[0] for one in wanted]), found)
        return found

    def _positions(self, fields: list[Field], quantifier: str, wanted: tuple[Any, ...]) -> Condition:
        def some(make: Callable[[list[Any]], Condition]) -> Condition:
            """There is a position at which a condition on the values holds."""
            rows, values, positions, ties = [], [], [], []
            for field in fields:
                assert field.items is not None
                one, position, value, tie = field.items.unnest(self.dialect, self._alias())
                rows.append(one)
                values.append(value)
                ties.append(tie)
                positions.append(position)
            joined = rows[0]
            for other, position in zip(rows[1:], positions[1:]):
                joined = joined.join(other, position == positions[0])
            query = select(1).select_from(joined).where(*ties, make(values))
            return exists(query.correlate(structures))

        def matches(one: Any, values: list[Any]) -> Condition:
            tests = []
            for field, (op, value), found in zip(fields, one, values):
                assert field.items is not None
                kind = field.items.item
                tests.append(_COMPARE[op](found, _bound(field.name, kind, op, value)))
            return and_(*tests)

        if quantifier == "ALL":
            return and_(*(some(lambda values, one=one: matches(one, values)) for one in wanted))  # type: ignore[misc]
        if quantifier == "ANY":
            return some(lambda values: or_(*(matches(one, values) for one in wanted)))
        return not_(
            some(lambda values: not_(func.coalesce(or_(*(matches(one, values) for one in wanted)), false())))
        )

    def _alias(self) -> str:
        self._count += 1
        return f"item{self._count}"


def _elements(field: Field, quantifier: str, wanted: list[tuple[str, grammar.Value]]) -> Condition:
    groups: list[list[str]] = []
    for op, value in wanted:
        if not isinstance(value, str):
            raise NotImplementedHere(f"the items of {field.name} are texts, not {value!r}")
        compare, text = _COMPARE[op], value
        groups.append(elements.symbols_where(lambda symbol: bool(compare(symbol, text))))  # noqa: B023
    if quantifier == "ALL":
        return and_(*(elements.any_of(group) for group in groups))
    together = [symbol for group in groups for symbol in group]
    return elements.any_of(together) if quantifier == "ANY" else elements.only_of(together)


def _bound(name: str, kind: Kind, op: str, value: Any) -> Any:
    """Return a constant as a parameter of the type of a property."""
    if kind == "boolean":
        if not isinstance(value, bool) or op not in ("=", "!="):
            raise NotImplementedHere(f"{name} is a boolean: it can be = or != TRUE or FALSE")
        return literal(value)
    if kind in ("integer", "float") and isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value)
    if kind == "string" and isinstance(value, str):
        return literal(value, Text)
    if kind == "timestamp" and isinstance(value, str):
        return literal(microseconds(value), BigInteger)
    raise NotImplementedHere(f"{name} is a {kind}: it cannot be compared with {value!r:.60}")


def _number(value: float) -> Any:
    if isinstance(value, int):
        if abs(value) < 1 << 63:
            return literal(value, BigInteger)
        try:
            value = float(value)
        except OverflowError:
            value = float("inf") if value > 0 else float("-inf")
    return literal(value, Float(53))


def _unknown() -> Condition:
    return cast(null(), BigInteger) == 0


def _constant(value: bool) -> Condition:
    return literal(1 if value else 0, BigInteger) == 1


def _tree(join: Callable[..., Condition], parts: list[Condition]) -> Condition:
    # A chain of hundreds is deep for SQLite's parser unless it is broken up.
    if len(parts) <= 50:
        return join(*parts)
    return join(*(join(*parts[k : k + 50]).self_group() for k in range(0, len(parts), 50)))

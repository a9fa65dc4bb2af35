"""The properties that a filter, a sort or a response may name, and where their values stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    Select,
    Text,
    cast,
    exists,
    false,
    func,
    literal,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

from matcompute.server.optimade.tables import ROWS, bodies, sets, structures
from matcompute.server.tables import datasets

__all__ = ["STANDARD", "UNKNOWN_STANDARD", "Field", "Items", "Kind", "Located", "provider_field"]

Kind = Literal["string", "integer", "float", "boolean", "timestamp", "list", "dictionary", "unknown"]
Condition = ColumnElement[bool]
#: Takes the SQL expression of a value, gives a condition on it.
Test = Callable[[Any], Condition]


@dataclass(frozen=True)
class Items:
    """A list as JSON: a column of ``structures``, or a key of the attributes."""

    item: Kind
    column: str | None = None
    key: str | None = None

    def unnest(self, dialect: str, name: str) -> tuple[Any, Any, Any, Condition]:
        """Return (FROM clause, position, value, condition that ties it to ``structures``) of the items."""
        document: Any
        tie: Condition = true()
        if self.column is not None:
            document = structures.c[self.column]
        else:
            body = bodies.alias(f"{name}_body")
            document, tie = body.c.attributes, body.c.key == structures.c.key

        def together(rows: Any) -> Any:
            return rows if self.column is not None else body.join(rows, true())

        if dialect == "postgresql":
            found: Any = cast(document, JSONB)
            if self.key is not None:
                found = found.op("->")(self.key)
            # What is no list has no items; the function would raise instead.
            found = func.jsonb_path_query_array(
                found,
                literal_column("'strict $[*]'::jsonpath"),
                literal_column("'{}'::jsonb"),
                literal_column("true"),
            )
            rows = (
                func.jsonb_array_elements(found)
                .table_valued("value", with_ordinality="key", name=name)
                .render_derived()
            )
            value: Any = rows.c.value.op("#>>")(literal_column("'{}'")).cast(Text)
            if self.item in ("integer", "float"):
                value = cast(value, Float(53))
            return together(rows), rows.c.key, value, tie
        arguments = [document] if self.key is None else [document, f'$."{self.key}"']
        rows = func.json_each(*arguments).table_valued("key", "value", name=name)
        return together(rows), rows.c.key, rows.c.value, tie

    def known(self, dialect: str) -> Condition:
        """Whether there is a list."""
        if self.column is not None:
            return structures.c[self.column].is_not(None)
        return _body_known(dialect, self.key or "")


@dataclass(frozen=True)
class Located:
    """Where a scalar stands: ``where(test)`` gives the condition over ``structures``.

    Parameters
    ----------
    column
        A column of ``structures``.
    holder
        ``set``: a column of the set or its dataset; ``body``: of the row beside; ``attributes``: a key there.
    name
        The column or key of the holder.
    """

    column: str | None = None
    holder: Literal["set", "dataset", "body", "attributes"] | None = None
    name: str = ""

    def where(self, test: Test, kind: Kind, dialect: str) -> Condition:
        if self.column is not None:
            return test(structures.c[self.column])
        if self.holder == "set":
            return structures.c.set_no.in_(select(sets.c.no).where(test(sets.c[self.name])))
        if self.holder == "dataset":
            joined = sets.join(datasets, datasets.c.id == sets.c.dataset_id)
            return structures.c.set_no.in_(
                select(sets.c.no).select_from(joined).where(test(datasets.c[self.name]))
            )
        if self.holder == "body":
            return structures.c.key.in_(select(bodies.c.key).where(test(bodies.c[self.name])))
        return test(_attribute(self.name, kind, dialect))


def _attribute(name: str, kind: Kind, dialect: str) -> Any:
    body = bodies.alias()
    if dialect == "postgresql":
        found: Any = cast(body.c.attributes, JSONB).op("->>")(name).cast(Text)
        if kind in ("integer", "float"):
            found = cast(found, Float(53))
    else:
        found = func.json_extract(body.c.attributes, f'$."{name}"')
    return _correlated(select(found).where(body.c.key == structures.c.key)).scalar_subquery()


def _body_known(dialect: str, name: str) -> Condition:
    body = bodies.alias()
    if dialect == "postgresql":
        kind: Any = func.jsonb_typeof(cast(body.c.attributes, JSONB).op("->")(name))
    else:
        kind = func.json_type(body.c.attributes, f'$."{name}"')
    return exists(
        _correlated(select(literal_column("1")).where(body.c.key == structures.c.key, kind != "null"))
    )


def _correlated(query: Select[Any]) -> Select[Any]:
    return query.correlate(structures)


@dataclass(frozen=True)
class Field:
    """One property.

    Parameters
    ----------
    name, kind
        As ``/info/structures`` says; ``unknown``: a property of another provider, which has no value here.
    at
        Where a scalar stands; None: it has no value anywhere.
    items
        Where the items of a list stand; None for a list that can only be counted.
    length
        Column with the length of a list; None: its items are counted.
    elements
        A list of element symbols: its set of symbols is that of ``elements``.
    definition
        Description, unit and so on of a provider property.
    """

    name: str
    kind: Kind
    at: Located | None = None
    items: Items | None = None
    length: str | None = None
    elements: bool = False
    definition: dict[str, Any] | None = None

    @property
    def sortable(self) -> bool:
        """Whether entries can be put in the order of this property."""
        return self.at is not None and self.at.column is not None

    def known(self, dialect: str) -> Condition:
        """Whether an entry has a value."""
        if self.kind == "unknown":
            return false()
        if self.kind in ("list", "dictionary"):
            if self.items is not None:
                return self.items.known(dialect)
            return true() if self.length is not None else _body_known(dialect, self.name)
        if self.at is None:
            return literal(False)
        if self.name == "last_modified" or self.at.holder in ("set", "dataset", "body"):
            return true()
        return self.at.where(lambda value: value.is_not(None), self.kind, dialect)


def _column(name: str, kind: Kind, column: str) -> Field:
    return Field(name, kind, Located(column=column))


_FIELDS = (
    Field("id", "string", Located(holder="body", name="id")),
    Field("type", "string"),
    Field("immutable_id", "string"),
    _column("last_modified", "timestamp", "last_modified"),
    Field("elements", "list", items=Items("string", column="elements"), length="nelements", elements=True),
    _column("nelements", "integer", "nelements"),
    Field("elements_ratios", "list", items=Items("float", column="elements_ratios"), length="nelements"),
    _column("chemical_formula_descriptive", "string", "descriptive"),
    _column("chemical_formula_reduced", "string", "reduced"),
    _column("chemical_formula_anonymous", "string", "anonymous"),
    Field("dimension_types", "list", items=Items("integer", column="dimension_types")),
    _column("nperiodic_dimensions", "integer", "nperiodic"),
    Field("lattice_vectors", "list", items=None),
    Field("cartesian_site_positions", "list", length="nsites"),
    _column("nsites", "integer", "nsites"),
    Field("species", "list", length="nelements"),
    # The species of a release are its elements, in their order.
    Field(
        "species.name", "list", items=Items("string", column="elements"), length="nelements", elements=True
    ),
    Field(
        "species.chemical_symbols",
        "list",
        items=Items("string", column="elements"),
        length="nelements",
        elements=True,
    ),
    Field(
        "species_at_sites",
        "list",
        items=Items("string", key="species_at_sites"),
        length="nsites",
        elements=True,
    ),
    Field("structure_features", "list", items=Items("string", key="structure_features")),
    Field("_matcompute_dataset_id", "string", Located(holder="set", name="dataset_id")),
    Field("_matcompute_dataset_version", "integer", Located(holder="set", name="version")),
    Field("_matcompute_licence", "string", Located(holder="dataset", name="licence")),
    Field("_matcompute_computed", "timestamp", Located(holder="attributes", name="_matcompute_computed")),
)
#: Fields that every entry has.
STANDARD: dict[str, Field] = {f.name: f for f in _FIELDS}
#: Properties of the standard that no entry here has: they are unknown, not wrong.
UNKNOWN_STANDARD: dict[str, Kind] = {
    "chemical_formula_hill": "string",
    "assemblies": "list",
    "space_group_symmetry_operations_xyz": "list",
    "space_group_symbol_hall": "string",
    "space_group_symbol_hermann_mauguin": "string",
    "space_group_symbol_hermann_mauguin_extended": "string",
    "space_group_it_number": "integer",
    "fractional_site_positions": "list",
    "site_coordinate_span": "list",
    "wyckoff_positions": "list",
    "optimization_type": "string",
    "database_provider": "string",
}


def provider_field(name: str, slot: str | None, definition: dict[str, Any]) -> Field:
    """Return the field of a provider property."""
    kind: Kind = definition.get("x-optimade-type", "string")
    if kind == "list":
        item = (definition.get("items") or {}).get("x-optimade-type", "float")
        return Field(name, kind, items=Items(item, key=name), definition=definition)
    at = Located(column=slot) if slot is not None else Located(holder="attributes", name=name)
    return Field(name, kind, at, definition=definition)


def entry_key_of(value: str) -> tuple[str, int] | None:
    """Return (id, version) of an immutable id ``<dataset>/<version>/<entry>``."""
    dataset_id, _, rest = value.partition("/")
    version, slash, entry = rest.partition("/")
    if not slash or not version.isdecimal() or str(int(version[:18] or 0)) != version:
        return None
    return f"{dataset_id}/{entry}", int(version)


def immutable_id() -> tuple[Any, Any]:
    """Return (expression of the immutable id, FROM clause with the key of ``structure_bodies``)."""
    joined = bodies.join(sets, sets.c.no == bodies.c.key // literal(ROWS, BigInteger))
    rest = func.substr(bodies.c.id, func.length(sets.c.dataset_id) + 1)
    return sets.c.dataset_id + "/" + cast(sets.c.version, Text) + rest, joined

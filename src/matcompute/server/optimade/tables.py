"""Tables of the OPTIMADE door: one row an entry, narrow enough to be scanned; bulky attributes stand beside it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from matcompute.server.tables import metadata

__all__ = ["N_NUMBERS", "N_TEXTS", "ROWS", "bodies", "number", "properties", "sets", "structures", "text"]

#: Columns for numbers and for texts of provider properties; a node with more keeps the rest in the attributes.
N_NUMBERS, N_TEXTS = 32, 32
#: Keys of one set: the row's number added to the set's number times this.
ROWS = 1 << 32

# The same order of strings everywhere: by code point, as SQLite has it.
_text = Text().with_variant(Text(collation="C"), "postgresql")

#: One row a version of a dataset whose structures are loaded.
sets = Table(
    "structure_sets",
    metadata,
    Column("no", Integer, primary_key=True),
    Column("dataset_id", String(36), nullable=False),
    Column("version", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("since", BigInteger),  # microseconds since 1970 when it began to be served; NULL: still loading
    Column("settled", Boolean, nullable=False),  # whether every row has its own last_modified
    Index("structure_sets_of", "dataset_id", "version"),
)

#: Provider properties of a set. ``slot``: a column of ``structures``; NULL: only in the attributes.
properties = Table(
    "structure_properties",
    metadata,
    Column("no", Integer, primary_key=True, autoincrement=False),
    Column("name", String(255), primary_key=True),
    Column("source", String(255), nullable=False),  # its name in the release
    Column("slot", String(8)),
    Column("definition", Text, nullable=False),  # JSON
)


def number(k: int) -> str:
    """Return the name of a column for numbers."""
    return f"n{k:02d}"


def text(k: int) -> str:
    """Return the name of a column for texts."""
    return f"t{k:02d}"


structures = Table(
    "structures",
    metadata,
    Column("key", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("set_no", Integer, nullable=False),
    Column("last_modified", BigInteger),  # microseconds since 1970; NULL: since the set is served
    Column("nelements", Integer, nullable=False),
    Column("nsites", Integer, nullable=False),
    Column("nperiodic", Integer, nullable=False),
    Column("elements_lo", BigInteger, nullable=False),  # bit Z for Z = 0 … 59
    Column("elements_hi", BigInteger, nullable=False),  # bit Z - 60 for Z = 60 … 118
    Column("reduced", _text, nullable=False),
    Column("anonymous", _text, nullable=False),
    Column("descriptive", _text, nullable=False),
    Column("elements", Text, nullable=False),  # JSON, as are the two that follow
    Column("elements_ratios", Text, nullable=False),
    Column("dimension_types", Text, nullable=False),
    *(Column(number(k), Float(53)) for k in range(N_NUMBERS)),
    *(Column(text(k), _text) for k in range(N_TEXTS)),
    Index("structures_modified", "last_modified"),
    Index("structures_reduced", "reduced"),
)

bodies = Table(
    "structure_bodies",
    metadata,
    Column("key", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("id", _text, nullable=False),
    Column("digest", String(32), nullable=False),  # of all attributes but immutable_id and last_modified
    Column("attributes", Text, nullable=False),  # JSON object without these two
    Index("structure_bodies_id", "id"),
)

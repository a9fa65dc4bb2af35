"""Tables of the server's index. All but tokens and receipts can be made again from the events and the store."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

__all__ = [
    "DERIVED",
    "changes",
    "datasets",
    "domains",
    "files",
    "indexed",
    "metadata",
    "receipts",
    "state",
    "tokens",
    "versions",
]

metadata = MetaData()

#: One row: how far the index is (``head``: the last event in it). Every writer locks it first.
state = Table(
    "state",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("head", BigInteger, nullable=False),
)

#: The events, with what held before each and which version was the newest available one after it.
changes = Table(
    "changes",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("op", String(16), nullable=False),
    Column("dataset_id", String(36), nullable=False),
    Column("version", Integer),
    Column("manifest_sha256", String(64)),
    Column("grade", String(16), nullable=False),
    Column("tier", String(16), nullable=False),
    Column("at", String(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("grade_before", String(16)),
    Column("tier_before", String(16)),
    Column("newest", Integer),
    Column("newest_sha256", String(64)),
    Index("changes_of", "dataset_id", "seq"),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("domain", String(64), nullable=False),
    Column("node_class", String(32), nullable=False),
    Column("licence", String(256), nullable=False),
    Column("grade", String(16), nullable=False),
    Column("tier", String(16), nullable=False),
    Column("withdrawn", Boolean, nullable=False),  # no version is available
    Column("version", Integer, nullable=False),  # the newest available one; the newest if all are withdrawn
    Column("first_at", String(32), nullable=False),
    Column("changed_at", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),  # of the last event
    Column("entries", BigInteger, nullable=False),
    Column("summary", JSON, nullable=False),  # indexers may add to it
    Index("datasets_by_seq", "seq"),
)

versions = Table(
    "versions",
    metadata,
    Column("dataset_id", String(36), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("manifest", LargeBinary, nullable=False),  # the bytes that were signed
    Column("signature", LargeBinary, nullable=False),
    Column("created", String(32), nullable=False),
    Column("withdrawn", Boolean, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("dataset_id", String(36), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("path", String(1024), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("media_type", String(128), nullable=False),
    Column("role", String(32), nullable=False),
    Column("location", Text, nullable=False),  # in the store, from its root
    Index("files_by_digest", "sha256"),
)

#: Which indexer has done which version.
indexed = Table(
    "indexed",
    metadata,
    Column("indexer", String(64), primary_key=True),
    Column("dataset_id", String(36), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("sha256", String(64), nullable=False),  # of the secret, which is stored nowhere
    Column("tier", String(16), nullable=False),
    Column("grade", String(16), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created", String(32), nullable=False),
    Column("expires", String(32)),
    Column("revoked", String(32)),
    Column("public_key", String(64)),  # of receipts; pinned at the first one
    Column(
        "products", JSON(none_as_null=True)
    ),  # {datasets: […], domains: […]}; null: all of its tier and grade
)

#: The domains that a dataset was ever released in: what a token for a domain opens stays open to it.
domains = Table(
    "dataset_domains",
    metadata,
    Column("dataset_id", String(36), primary_key=True),
    Column("domain", String(64), primary_key=True),
    Index("datasets_of_domain", "domain", "dataset_id"),
)

receipts = Table(
    "receipts",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("sha256", String(64), nullable=False, unique=True),  # of what was signed
    Column("dataset_id", String(36), nullable=False),
    Column("version", Integer, nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("verdict", String(8), nullable=False),
    Column("reason", Text, nullable=False),
    Column("receiver", String(128), nullable=False),
    Column("at", String(32), nullable=False),
    Column("key_id", String(32), nullable=False),
    Column("signature", String(128), nullable=False),
    Column("token_id", String(16), nullable=False),
    Column("received", String(32), nullable=False),
    Index("receipts_of", "dataset_id", "version"),
)

#: What `Node.rebuild` empties; indexers make their own tables anew when their rows of ``indexed`` are gone.
DERIVED = (state, changes, datasets, versions, files, indexed, domains)

"""The portal's own tables: what each version holds, and what the facets of the catalogue ask for."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Index, Integer, String, Table, Text

from matcompute.server.tables import metadata

__all__ = ["elements", "properties", "summaries"]

#: What `matcompute.publish.summary.summarize_release` says of a version.
summaries = Table(
    "portal_summaries",
    metadata,
    Column("dataset_id", String(36), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("summary", JSON, nullable=False),
)

#: In how many entries of a version an element is.
elements = Table(
    "portal_elements",
    metadata,
    Column("dataset_id", String(36), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("symbol", String(3), primary_key=True),
    Column("entries", BigInteger, nullable=False),
    Index("portal_elements_by_symbol", "symbol", "dataset_id", "version"),
)

#: Ranges of the properties with one number per entry.
properties = Table(
    "portal_properties",
    metadata,
    Column("dataset_id", String(36), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("name", String(128), primary_key=True),
    Column("long_name", Text, nullable=False),
    Column("units", String(64), nullable=False),
    Column("low", Float(53), nullable=False),
    Column("high", Float(53), nullable=False),
    Index("portal_properties_by_range", "name", "low", "high"),
)

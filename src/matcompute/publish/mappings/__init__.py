"""Documents of other standards, made from the facts of a release by versioned tables.

>>> from matcompute.publish.mappings import render, table_names
"""

from __future__ import annotations

from matcompute.publish.mappings.engine import MappingError, render
from matcompute.publish.mappings.tables import Table, load_table, table_names

__all__ = ["MappingError", "Table", "load_table", "render", "table_names"]

"""The columns of ``/entries``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from matcompute.dataset.status import Quality

__all__ = ["ENTRY_COLUMNS", "TEXT_COLUMNS", "EntryColumn"]

#: Text columns of ``/entries`` whose width depends on the content.
TEXT_COLUMNS: tuple[str, ...] = ("id", "formula", "label", "message")


@dataclass(frozen=True)
class EntryColumn:
    """Type, shape and meaning of one column."""

    dtype: str
    long_name: str
    fill: Any
    tail: tuple[int, ...] = ()
    dims: tuple[str, ...] = ()
    units: str = ""
    more: tuple[tuple[str, Any], ...] = ()

    def attributes(self) -> dict[str, Any]:
        """Return the attributes that the dataset carries."""
        units = {"units": self.units} if self.units else {}
        return {"long_name": self.long_name, **units, **dict(self.more)}


_UUID = ((16,), ("uuid_byte",))
_QUALITY = (
    ("flag_masks", np.array([q.value for q in Quality], dtype="u4")),
    ("flag_meanings", " ".join(str(q.name).lower() for q in Quality)),
)

#: Every other column of ``/entries``, in the order of the reference page.
ENTRY_COLUMNS: dict[str, EntryColumn] = {
    "structure_hash": EntryColumn("S32", "hash of the structure in this row", None),
    "node_uuid": EntryColumn("u1", "UUID of the AiiDA node that holds the structure, zeros none", 0, *_UUID),
    "process_uuid": EntryColumn("u1", "UUID of the process that made the structure, zeros none", 0, *_UUID),
    "cell": EntryColumn("f8", "lattice vectors as rows", np.nan, (3, 3), ("cell_vector", "xyz"), "angstrom"),
    "pbc": EntryColumn("u1", "periodic along each lattice vector", 0, (3,), ("cell_vector",)),
    "site_start": EntryColumn("i8", "first site of the entry", 0),
    "row_size": EntryColumn("i4", "number of sites of the entry", 0, more=(("sample_dimension", "site"),)),
    "last_modified": EntryColumn(
        "i8", "time of the last change", 0, units="microseconds since 1970-01-01 00:00:00"
    ),
    "quality": EntryColumn("u4", "quality flags", 0, more=_QUALITY),
    "method_index": EntryColumn("i4", "row of /methods, -1 none", -1),
    "source_index": EntryColumn("i4", "row of /sources, -1 none", -1),
    "source_line": EntryColumn("i8", "line (or frame, for formats without lines) in the source, -1 none", -1),
    "attempt": EntryColumn("u1", "number of the attempt that gave the results, 0 none", 0),
}

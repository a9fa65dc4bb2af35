"""One entry with everything that the file says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset.provenance import uuid_text
from matcompute.dataset.status import Quality, Status

if TYPE_CHECKING:
    from ase import Atoms

    from matcompute.dataset.metadata import Method, Source
    from matcompute.dataset.reader import Dataset

__all__ = ["Entry"]


@dataclass(frozen=True)
class Entry:
    """One entry.

    ``values``, ``units`` and ``statuses`` have the same keys; a site property is an array [sites, ...].
    """

    row: int
    id: str
    formula: str
    structure_hash: str
    atoms: Atoms
    values: dict[str, Any] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, Status] = field(default_factory=dict)
    quality: Quality = field(default_factory=lambda: Quality(0))
    label: str = ""
    message: str = ""
    attempt: int = 0
    method: Method | None = None
    source: Source | None = None
    source_line: int = -1
    node_uuid: str = ""
    process_uuid: str = ""
    last_modified: int = 0
    selections: tuple[str, ...] = ()

    @classmethod
    def read(cls, dataset: Dataset, row: int) -> Entry:
        """Read one row of a dataset."""
        rows = slice(row, row + 1)

        def one(name: str) -> Any:
            return dataset.entry_column(name, rows)[0]

        values: dict[str, Any] = {}
        for name in dataset.properties:
            data = dataset.column(name, rows)
            if dataset.properties[name].per == "site":
                values[name] = data
            else:
                values[name] = data[0].item() if data.ndim == 1 else data[0]
        method, source = int(one("method_index")), int(one("source_index"))
        return cls(
            row=row,
            id=str(one("id")),
            formula=str(one("formula")),
            structure_hash=str(one("structure_hash")),
            atoms=dataset.atoms(row),
            values=values,
            units={name: info.units for name, info in dataset.properties.items()},
            statuses={name: Status(int(dataset.status(name, rows)[0])) for name in dataset.properties},
            quality=Quality(int(one("quality"))),
            label=str(one("label")),
            message=str(one("message")),
            attempt=int(one("attempt")),
            method=dataset.methods[method] if 0 <= method < len(dataset.methods) else None,
            source=dataset.sources[source] if 0 <= source < len(dataset.sources) else None,
            source_line=int(one("source_line")),
            node_uuid=uuid_text(one("node_uuid")),
            process_uuid=uuid_text(one("process_uuid")),
            last_modified=int(one("last_modified")),
            selections=tuple(n for n, s in dataset.selections.items() if bool(np.asarray(s.mask)[row])),
        )

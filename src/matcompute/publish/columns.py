"""The columns of ``summary.parquet``: which they are, and their values for a block of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from matcompute.dataset import Dataset, PropertyInfo, Status
from matcompute.dataset.errors import DatasetError
from matcompute.dataset.rows import take
from matcompute_kernels.elements import SYMBOLS

__all__ = ["MAX_COMPONENTS", "TableColumn", "block_values", "elements_of", "table_columns"]

#: A vector property of more components than this stays in the HDF5 files alone.
MAX_COMPONENTS = 16

_LABELS = np.array([s.label for s in Status])


@dataclass(frozen=True)
class TableColumn:
    """One column of the table.

    Parameters
    ----------
    name
        Column name.
    dtype
        ``string``, ``int64``, ``float64``, ``bool`` or ``timestamp`` (µs, UTC).
    units
        Unit, empty where there is none.
    description
        One line for people.
    kind, key, component
        Where the values come from: a column of ``/entries``, a property (one component of it), its status or a gate.
    """

    name: str
    dtype: Literal["string", "int64", "float64", "bool", "timestamp"]
    units: str
    description: str
    kind: Literal["entry", "elements", "property", "status", "selection"]
    key: str
    component: int = -1

    def to_json(self) -> dict[str, str]:
        """Return what the mappings say about the column."""
        return {"name": self.name, "dtype": self.dtype, "units": self.units, "description": self.description}


_FIXED: tuple[TableColumn, ...] = (
    TableColumn("id", "string", "", "Entry id, unique in the dataset.", "entry", "id"),
    TableColumn(
        "formula", "string", "", "Reduced formula, symbols in alphabetical order.", "entry", "formula"
    ),
    TableColumn("elements", "string", "", "Symbols of the elements, joined by '-'.", "elements", "elements"),
    TableColumn("n_sites", "int64", "", "Number of sites.", "entry", "n_sites"),
    TableColumn("structure_hash", "string", "", "Hash of the structure.", "entry", "structure_hash"),
    TableColumn("last_modified", "timestamp", "", "Time of the last change.", "entry", "last_modified"),
)


def table_columns(datasets: Iterable[Dataset]) -> list[TableColumn]:
    """Return the columns of the table of some shards: those of any of them.

    Raises
    ------
    DatasetError
        If two shards give the same property another unit or shape.
    """
    columns = {c.name: c for c in _FIXED}
    known: dict[str, PropertyInfo] = {}
    gates: list[str] = []
    for dataset in datasets:
        for name, info in dataset.properties.items():
            first = known.setdefault(name, info)
            if (first.units, first.shape, first.per) != (info.units, info.shape, info.per):
                raise DatasetError(
                    f"{dataset.path}: property '{name}' is {info.units} {info.shape}, "
                    f"in another shard {first.units} {first.shape}",
                    hint="shards of one release need the same units and shapes",
                )
        gates += [name for name in dataset.selections if name not in gates]
    for name in sorted(known):
        for column in _of_property(known[name]):
            columns.setdefault(column.name, column)
    for name in gates:
        column = TableColumn(name, "bool", "", f"Passed the gate '{name}'.", "selection", name)
        columns.setdefault(name, column)
    return list(columns.values())


def _of_property(info: PropertyInfo) -> list[TableColumn]:
    if info.per != "entry":
        return []
    size = int(np.prod(info.shape)) if info.shape else 1
    if size > MAX_COMPONENTS:
        return []
    dtype: Literal["int64", "float64"] = "float64" if info.dtype[0] == "f" else "int64"
    text = ": ".join(part for part in (info.long_name, info.definition) if part) or info.name
    if info.shape:
        found = [
            TableColumn(
                f"{info.name}_{part}", dtype, info.units, f"{text} [{part}]", "property", info.name, k
            )
            for k, part in enumerate(info.components)
        ]
    else:
        found = [TableColumn(info.name, dtype, info.units, text, "property", info.name)]
    status = TableColumn(f"{info.name}_status", "string", "", f"Status of {info.name}.", "status", info.name)
    return [*found, status]


def elements_of(dataset: Dataset, rows: slice) -> list[tuple[str, ...]]:
    """Return for each of some rows its elements, in alphabetical order."""
    sites, ptr = dataset.site_selection(rows)
    numbers = take(dataset.file["sites/atomic_number"], sites).astype(np.int64)
    owner = np.repeat(np.arange(ptr.shape[0] - 1), np.diff(ptr))
    pairs = np.unique(owner * 256 + numbers)
    bounds = np.searchsorted(pairs, np.arange(ptr.shape[0]) * 256)
    symbols = (pairs % 256).tolist()
    return [tuple(sorted(SYMBOLS[z] for z in symbols[a:b])) for a, b in pairwise(bounds)]


def block_values(dataset: Dataset, column: TableColumn, rows: slice) -> tuple[Any, np.ndarray | None]:
    """Return the values of a column for some rows and a mask that is true where there is none.

    A property of which this shard knows nothing has no value anywhere, and the status ``not_attempted``.
    """
    n = rows.stop - rows.start
    nothing = np.ones(n, dtype=bool)
    if column.kind == "elements":
        return ["-".join(e) for e in elements_of(dataset, rows)], None
    if column.kind == "selection":
        if column.key not in dataset.selections:
            return np.zeros(n, dtype=bool), nothing
        return dataset.selections[column.key].mask[rows], None
    if column.kind == "entry":
        return dataset.entry_column(column.key, rows), None
    if column.key not in dataset.properties:
        if column.kind == "status":
            return np.full(n, Status.NOT_ATTEMPTED.label), None
        return np.zeros(n), nothing
    status = dataset.status(column.key, rows)
    if column.kind == "status":
        return _LABELS[status], None
    values = dataset.column(column.key, rows)
    if column.component >= 0:
        values = np.ascontiguousarray(values.reshape(n, -1)[:, column.component])
    missing = (status != Status.OK) & (status != Status.NOT_CONVERGED)
    if values.dtype.kind == "f":
        missing = missing | np.isnan(values)
    return values, missing

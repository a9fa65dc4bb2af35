"""A few rows of a dataset as a table for people: `list_rows`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matcompute.dataset.errors import DatasetError, unknown_name
from matcompute.dataset.reader import Dataset
from matcompute.dataset.rows import resolve_rows

__all__ = ["Listing", "list_rows"]


@dataclass(frozen=True)
class Listing:
    """Chosen columns of chosen rows.

    ``total`` counts the entries from which the rows were taken.
    """

    columns: tuple[str, ...]
    units: dict[str, str]
    rows: tuple[tuple[Any, ...], ...]
    total: int

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {
            "units": self.units,
            "total": self.total,
            "rows": [dict(zip(self.columns, row)) for row in self.rows],
        }


def list_rows(
    dataset: Dataset,
    *,
    columns: Sequence[str] | None = None,
    sort: str | None = None,
    selection: str | None = None,
    n: int = 20,
) -> Listing:
    """Return ``n`` rows of scalar columns.

    Parameters
    ----------
    dataset
        An open dataset.
    columns
        Columns of ``/entries``, ``n_sites`` and scalar properties; by default id, n_sites and the scalar properties.
    sort
        Column to sort by, smallest first; ``-column`` for largest first. Entries without a value come last.
    selection
        Only the entries that passed this gate.
    n
        Number of rows.
    """
    scalars = [name for name, info in dataset.properties.items() if info.per == "entry" and not info.shape]
    names = list(columns) if columns is not None else ["id", "n_sites", *scalars]
    rows = np.arange(len(dataset))
    if selection is not None:
        if selection not in dataset.selections:
            raise unknown_name("selection", selection, dataset.selections, dataset.path)
        rows = np.flatnonzero(dataset.selections[selection].mask)
    total = int(rows.shape[0])
    if sort is not None:
        key = sort.lstrip("-")
        values = _column(dataset, key, scalars, rows)
        order = np.argsort(values, kind="stable")
        if sort.startswith("-"):
            known = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, dtype=bool)
            order = np.concatenate([order[known[order]][::-1], order[~known[order]]])
        rows = rows[order]
    rows = rows[: max(n, 0)]
    data = [_column(dataset, name, scalars, rows) for name in names]
    units = {name: dataset.properties[name].units for name in names if name in dataset.properties}
    table = tuple(tuple(column[k].item() for column in data) for k in range(rows.shape[0]))
    return Listing(tuple(names), units, table, total)


def _column(dataset: Dataset, name: str, scalars: Sequence[str], rows: np.ndarray) -> np.ndarray:
    if name in scalars:
        return dataset.column(name, rows)
    if name in dataset.properties:
        raise DatasetError(f"{dataset.path}: property '{name}' is no single number per entry")
    if name in dataset.selections:
        return dataset.selections[name].mask[resolve_rows(rows, len(dataset))]
    entries = [
        c
        for c in (*dataset.file["entries"], "n_sites")
        if c == "n_sites" or dataset.file["entries"][c].ndim == 1
    ]
    if name in entries:
        return dataset.entry_column(name, rows)
    raise unknown_name("column", name, [*scalars, *entries, *dataset.selections], dataset.path)

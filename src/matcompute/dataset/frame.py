"""Entry-level columns as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset.errors import unknown_name
from matcompute.dataset.layout import ENTRY_COLUMNS, TEXT_COLUMNS
from matcompute.dataset.provenance import uuid_text
from matcompute.dataset.rows import resolve_rows

if TYPE_CHECKING:
    import pandas as pd

    from matcompute.dataset.reader import Dataset

__all__ = ["to_pandas"]


def to_pandas(dataset: Dataset, columns: Sequence[str] | None = None, rows: Any = None) -> pd.DataFrame:
    """Return chosen columns of a dataset as a DataFrame, see `Dataset.to_pandas`."""
    import pandas as pd

    per_entry = [name for name, info in dataset.properties.items() if info.per == "entry"]
    if columns is None:
        columns = ["id", "formula", "n_sites"]
        for name in per_entry:
            columns += [name, f"{name}_status"]
        columns += [name for name in dataset.selections if name not in columns]
    data: dict[str, Any] = {}
    units: dict[str, str] = {}
    for name in columns:
        for key, values, unit in _series(dataset, name, rows, per_entry):
            data[key] = values
            if unit:
                units[key] = unit
    frame = pd.DataFrame(data)
    frame.attrs["units"] = units
    return frame


def _series(
    dataset: Dataset, name: str, rows: Any, per_entry: Sequence[str]
) -> list[tuple[str, np.ndarray, str]]:
    if name in per_entry:
        info, values = dataset.properties[name], dataset.column(name, rows)
        if values.ndim == 1:
            return [(name, values, info.units)]
        flat = values.reshape(values.shape[0], int(np.prod(values.shape[1:])))
        return [(f"{name}_{part}", flat[:, k], info.units) for k, part in enumerate(info.components)]
    if name in ("n_sites", *ENTRY_COLUMNS, *TEXT_COLUMNS):
        values = dataset.entry_column(name, rows)
        if name.endswith("_uuid"):
            return [(name, np.array([uuid_text(u) for u in values], dtype=object), "")]
        unit = ENTRY_COLUMNS[name].units if name in ENTRY_COLUMNS else ""
        if values.ndim == 1:
            return [(name, values, unit)]
        flat = values.reshape(values.shape[0], int(np.prod(values.shape[1:])))
        return [(f"{name}_{k}", flat[:, k], unit) for k in range(flat.shape[1])]
    if name.removesuffix("_status") in dataset.properties:
        return [(name, dataset.status(name.removesuffix("_status"), rows), "")]
    if name in dataset.selections:
        chosen = resolve_rows(rows, len(dataset))
        return [(name, dataset.selections[name].mask[chosen], "")]
    known = ["n_sites", *ENTRY_COLUMNS, *TEXT_COLUMNS, *per_entry, *dataset.selections]
    raise unknown_name("entry-level column", name, known, dataset.path)

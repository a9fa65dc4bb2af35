"""What a file says about a descriptor beside its values: `DescriptorInfo`, labels of columns, companions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import h5py
import numpy as np

from matcompute.dataset.block_sparse import LAYOUT
from matcompute.dataset.errors import DatasetError
from matcompute.dataset.h5io import (
    ENTRY_CHUNK,
    attach,
    get_attr,
    make_dataset,
    read,
    set_attr,
    set_scale,
    text_dtype,
    to_text,
)

__all__ = [
    "COMPANIONS",
    "DescriptorInfo",
    "is_companion",
    "pad_descriptors",
    "read_info",
    "write_info",
    "write_labels",
]

#: Suffixes of the datasets beside a descriptor: what became of it, who gave it, names of its columns.
COMPANIONS = ("_status", "_process", "_label")
#: Labels beyond this go into a dataset of their own (an attribute of HDF5 has little room).
_LABEL_BYTES = 32_000


@dataclass(frozen=True)
class DescriptorInfo:
    """A descriptor of a file.

    Parameters
    ----------
    name
        Its name in ``/descriptors``.
    n_features
        Number of columns (of a dense row).
    kernel
        Which descriptor it is.
    parameters
        Its parameters, in JSON values.
    per
        Whether a row belongs to an entry or to a site.
    layout
        ``dense`` or ``block-sparse``.
    dtype
        Type of the values.
    units, long_name, definition
        As for properties.
    labels
        Name of each column, or nothing.
    """

    name: str
    n_features: int
    kernel: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    per: Literal["entry", "site"] = "entry"
    layout: Literal["dense", "block-sparse"] = "dense"
    dtype: str = "f8"
    units: str = "1"
    long_name: str = ""
    definition: str = ""
    labels: tuple[str, ...] = ()

    def differs_from(self, other: DescriptorInfo) -> str | None:
        """Return why the rows of both cannot stand in one table; None if they can."""
        for what in ("kernel", "per", "layout", "n_features", "units", "labels"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                text = "" if what == "labels" else f": {mine} and {theirs}"
                return f"different {what.replace('n_features', 'number of columns')}{text}"
        mine, theirs = _comparable(self.parameters), _comparable(other.parameters)
        keys = sorted(k for k in {*mine, *theirs} if mine.get(k) != theirs.get(k))
        if keys:
            return f"different {keys[0]}: {mine.get(keys[0])} and {theirs.get(keys[0])}"
        return None


def _comparable(parameters: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(dict(parameters), sort_keys=True))
    return content


def is_companion(group: Any, name: str) -> bool:
    """Return whether a dataset of ``/descriptors`` belongs to another one."""
    return any(name.endswith(suffix) and name.removesuffix(suffix) in group for suffix in COMPANIONS)


def write_info(file: h5py.File, info: DescriptorInfo) -> None:
    """Write kernel, parameters and definition as attributes of a descriptor that is there."""
    item = file["descriptors"][info.name]
    if info.kernel:
        set_attr(item, "kernel", info.kernel)
        set_attr(item, "parameters", json.dumps(_comparable(info.parameters), sort_keys=True))
    if info.definition:
        set_attr(item, "definition", info.definition)


def write_labels(file: h5py.File, name: str, labels: Sequence[str]) -> None:
    """Write the names of a descriptor's columns: an attribute, or a dataset if they are many."""
    if not labels:
        return
    if sum(len(label.encode()) + 4 for label in labels) < _LABEL_BYTES:
        set_attr(file["descriptors"][name], "features", list(labels))
        return
    raw = np.array([label.encode() for label in labels])
    kind = text_dtype(raw.dtype.itemsize)
    item = make_dataset(file["descriptors"], f"{name}_label", kind, (), ENTRY_CHUNK)
    item.resize(len(raw), axis=0)
    item[...] = raw.astype(kind)
    set_scale(file, f"{name}_feature", len(raw))
    attach(file, item, (f"{name}_feature",))
    set_attr(item, "long_name", f"columns of {name}")


def read_info(file: h5py.File, name: str) -> DescriptorInfo:
    """Return what a file says about one of its descriptors."""
    group = file["descriptors"]
    item = group[name]
    sparse = isinstance(item, h5py.Group)
    values = item["values"] if sparse else item
    text = str(get_attr(item, "features", ""))
    labels = json.loads(text) if text else []
    if f"{name}_label" in group:
        labels = to_text(read(group[f"{name}_label"])).tolist()
    try:
        parameters = json.loads(str(get_attr(item, "parameters", "{}")))
    except ValueError as error:
        raise DatasetError(f"{file.filename}: /descriptors/{name}@parameters is no JSON: {error}") from error
    return DescriptorInfo(
        name=name,
        n_features=int(get_attr(item, "n_features", 0)) if sparse else int(item.shape[1]),
        kernel=str(get_attr(item, "kernel")),
        parameters=parameters,
        per="site" if get_attr(item, "per") == "site" else "entry",
        layout=LAYOUT if sparse else "dense",  # type: ignore[arg-type]
        dtype=f"f{values.dtype.itemsize}",
        units=str(get_attr(values, "units", "1")),
        long_name=str(get_attr(values, "long_name")),
        definition=str(get_attr(item, "definition")),
        labels=tuple(labels),
    )


def pad_descriptors(file: h5py.File, entries: int, sites: int) -> None:
    """Make descriptors as long as the file: entries that were added to it have none."""
    group = file.get("descriptors", {})
    for name, item in group.items():
        if is_companion(group, name):
            if not name.endswith("_label") and item.shape[0] < entries:
                old = item.shape[0]
                item.resize(entries, axis=0)
                item[old:] = -1 if name.endswith("_process") else 0
            continue
        rows = sites if get_attr(item, "per") == "site" else entries
        if isinstance(item, h5py.Dataset):
            _pad(item, rows, np.nan)
        elif item["row_size"].shape[0] < rows:
            ends = {"block_start": item["pair"].shape[0], "value_start": item["values"].shape[0]}
            for key, end in (("row_size", 0), *ends.items()):
                _pad(item[key], rows, end)


def _pad(item: h5py.Dataset, rows: int, value: float) -> None:
    old = item.shape[0]
    if old < rows:
        item.resize(rows, axis=0)
        for start in range(old, rows, 4096):
            item[start : start + 4096] = value

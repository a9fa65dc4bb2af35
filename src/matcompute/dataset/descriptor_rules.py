"""Rules on the values of ``/descriptors``: shapes, statuses, block-sparse bookkeeping."""

from __future__ import annotations

import h5py
import numpy as np

from matcompute.dataset.block_sparse import LAYOUT
from matcompute.dataset.descriptor_info import is_companion
from matcompute.dataset.h5io import get_attr
from matcompute.dataset.status import Status
from matcompute.dataset.violations import Report

__all__ = ["check_descriptors"]

_BLOCK = 65536
_PARTS = {
    "row_size": "i",
    "block_start": "i",
    "value_start": "i",
    "pair": "u",
    "values": "f",
    "kind_pair": "u",
    "kind_offset": "i",
    "kind_size": "i",
}


def check_descriptors(file: h5py.File, report: Report) -> None:
    """Check every descriptor of a file whose entries and sites are in order."""
    group = file.get("descriptors", {})
    for name, item in group.items():
        path = f"/descriptors/{name}"
        if name.endswith("_status"):
            if name.removesuffix("_status") not in group:
                report.add(path, "descriptor", f"there is no descriptor '{name.removesuffix('_status')}'")
            _status(file, item, path, report)
        elif is_companion(group, name):
            if name.endswith("_process"):
                _process(file, name, item, report)
        elif isinstance(item, h5py.Dataset):
            _dense(file, name, item, report)
        elif get_attr(item, "layout") == LAYOUT:
            _blocks(file, item, path, report)
        else:
            report.add(path, "descriptor", f"layout {get_attr(item, 'layout')!r} is not {LAYOUT!r}")


def _status(file: h5py.File, item: h5py.Dataset, path: str, report: Report) -> None:
    if item.shape != file["entries/id"].shape or item.dtype.kind != "u":
        report.add(path, "descriptor", f"shape {item.shape}, type {item.dtype}: expected a status per entry")
        return
    report.rows(path, "flags", item[:] > max(Status), "is no known status")


def _process(file: h5py.File, name: str, item: h5py.Dataset, report: Report) -> None:
    if item.shape != file["entries/id"].shape or item.dtype.kind != "i":
        text = f"shape {item.shape}, type {item.dtype}: expected a process per entry"
        report.add(item.name, "descriptor", text)
        return
    processes = file["provenance/process_uuid"].shape[0]
    found = item[:]
    outside = (found < -1) | (found >= processes)
    report.rows(item.name, "index", outside, f"points outside the {processes} rows of /provenance")
    status = file["descriptors"].get(f"{name.removesuffix('_process')}_status")
    if processes and status is not None and status.shape == found.shape:
        orphan = (found == -1) & (status[:] == Status.OK)
        report.rows(item.name, "provenance", orphan, "a descriptor without the process that made it")


def _rows(file: h5py.File, item: h5py.Dataset | h5py.Group) -> int | None:
    """Rows that a descriptor must have; None if its attribute ``per`` is wrong."""
    columns = {"entry": "entries/id", "site": "sites/position"}
    per = get_attr(item, "per")
    return int(file[columns[per]].shape[0]) if per in columns else None


def _dense(file: h5py.File, name: str, item: h5py.Dataset, report: Report) -> None:
    path, rows = item.name, _rows(file, item)
    if rows is None:
        report.add(path, "descriptor", "attribute 'per' is neither entry nor site")
        return
    if item.ndim != 2 or item.shape[0] != rows or item.dtype.kind not in "fiu":
        report.add(
            path, "descriptor", f"shape {item.shape}, type {item.dtype}: expected {rows} rows of numbers"
        )
        return
    if not get_attr(item, "units"):
        report.add(path, "units", "has no units")
    status = file["descriptors"].get(f"{name}_status")
    if item.dtype.kind != "f" or status is None or status.shape != file["entries/id"].shape:
        return
    good = status[:] == Status.OK
    if get_attr(item, "per") == "site":
        good = np.repeat(good, file["entries/row_size"][:])
    for start in range(0, rows, _BLOCK):
        part = np.isnan(item[start : start + _BLOCK]).all(axis=1) & good[start : start + _BLOCK]
        if item.shape[1]:
            report.rows(path, "nan", part, "is NaN and its status is ok", start)


def _blocks(file: h5py.File, group: h5py.Group, path: str, report: Report) -> None:
    for key, kind in _PARTS.items():
        if key not in group or group[key].dtype.kind != kind:
            report.add(f"{path}/{key}", "descriptor", "is missing or of another type")
            return
    rows = _rows(file, group)
    if rows is None or group["row_size"].shape != (rows,):
        report.add(
            f"{path}/row_size", "descriptor", f"{group['row_size'].shape[0]} rows, expected {rows} (per)"
        )
        return
    size = group["row_size"][:].astype(np.int64)
    widths = group["kind_size"][:]
    kinds = group["kind_pair"][:]
    report.rows(f"{path}/row_size", "ragged", size < 0, "is negative")
    if (group["kind_offset"][:] != np.cumsum(widths) - widths).any():
        report.add(f"{path}/kind_offset", "ragged", "columns of the pairs do not follow each other")
    if (size < 0).any() or size.sum() != group["pair"].shape[0]:
        report.add(
            f"{path}/row_size",
            "ragged",
            f"sizes add up to {size.sum()}, there are {group['pair'].shape[0]} blocks",
        )
        return
    report.rows(
        f"{path}/block_start",
        "ragged",
        group["block_start"][:] != np.cumsum(size) - size,
        "is not where the rows before it end",
    )
    place = np.full((256, 256), -1, dtype=np.int64)
    place[kinds[:, 0], kinds[:, 1]] = widths
    pairs = group["pair"][:]
    lengths = place[pairs[:, 0], pairs[:, 1]]
    report.rows(f"{path}/pair", "descriptor", lengths < 0, "is no pair of kind_pair")
    if (lengths < 0).any():
        return
    if lengths.sum() != group["values"].shape[0]:
        report.add(
            f"{path}/values",
            "ragged",
            f"there are {group['values'].shape[0]} values, the blocks need {lengths.sum()}",
        )
        return
    value_ptr = np.concatenate([[0], np.cumsum(lengths)])
    start = value_ptr[np.cumsum(size) - size]
    report.rows(
        f"{path}/value_start", "ragged", group["value_start"][:] != start, "is not where its values begin"
    )
    for first in range(0, group["values"].shape[0], _BLOCK * 16):
        bad = ~np.isfinite(group["values"][first : first + _BLOCK * 16])
        report.rows(f"{path}/values", "nan", bad, "is not finite", first)

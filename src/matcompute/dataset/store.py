"""The columns of a file that is being written: made when first met, filled block by block."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import h5py
import numpy as np

from matcompute.dataset.columns import Column, TextColumn
from matcompute.dataset.descriptor_info import pad_descriptors
from matcompute.dataset.errors import DatasetError
from matcompute.dataset.h5io import ENTRY_CHUNK, SITE_CHUNK, attach, set_attr, set_scale, text_dtype
from matcompute.dataset.layout import ENTRY_COLUMNS, TEXT_COLUMNS
from matcompute.dataset.properties import PropertyInfo, lookup
from matcompute.dataset.status import Status
from matcompute.errors import did_you_mean
from matcompute_kernels import Batch
from matcompute_kernels.formula import formula_bytes

__all__ = ["ColumnStore"]

#: Longest message kept with an entry, in bytes of UTF-8.
MESSAGE_WIDTH = 400


class ColumnStore:
    """Columns of ``/entries``, ``/sites`` and ``/results`` of one open file.

    Parameters
    ----------
    file
        Open for writing; empty, or a dataset to which rows are added.
    level
        gzip level.
    """

    def __init__(self, file: h5py.File, level: int) -> None:
        self.file, self.level = file, level
        for name in ("entries", "sites", "results", "selections"):
            file.require_group(name)
        self.rows: int = file["entries/id"].shape[0] if "id" in file["entries"] else 0
        self.sites: int = file["sites/position"].shape[0] if "position" in file["sites"] else 0
        self.declared: dict[str, PropertyInfo] = {}
        self.known: dict[str, PropertyInfo] = {}
        self._columns: dict[str, Column] = {}
        # Statuses of properties whose length no value has fixed yet: (first row, flags, process).
        self._waiting: dict[str, list[tuple[int, np.ndarray, Any]]] = {}
        for name, info in ENTRY_COLUMNS.items():
            dtype = text_dtype(int(info.dtype[1:])) if info.dtype[0] == "S" else info.dtype
            column = self._column("entries", name, dtype, info.tail, info.dims, info.fill)
            for key, value in info.attributes().items():
                set_attr(column.dataset, key, value)
        self._text = {
            name: TextColumn(file["entries"], name, ENTRY_CHUNK, ("entry",)) for name in TEXT_COLUMNS
        }
        number = self._column("sites", "atomic_number", "u1", (), (), 0)
        position = self._column("sites", "position", "f8", (3,), ("xyz",), np.nan)
        for column, units, long_name in (
            (number, "1", "atomic number"),
            (position, "angstrom", "Cartesian position"),
        ):
            set_attr(column.dataset, "units", units)
            set_attr(column.dataset, "long_name", long_name)

    def _column(
        self, group: str, name: str, dtype: Any, tail: tuple[int, ...], dims: tuple[str, ...], fill: Any
    ) -> Column:
        of, chunk = ("site", SITE_CHUNK) if group == "sites" else ("entry", ENTRY_CHUNK)
        column = Column(self.file[group], name, dtype, tail, chunk, (of, *dims), fill, level=self.level)
        self._columns[f"{group}/{name}"] = column
        return column

    def add_property(self, name: str, values: np.ndarray | None) -> PropertyInfo:
        """Make the columns of a property when it is first met.

        Raises
        ------
        DatasetError
            If the name is unknown or its dimension has another size in this file.
        """
        if name in self.known:
            return self.known[name]
        info = lookup(name, self.declared)
        if -1 in info.shape:
            if values is None or values.ndim != 1 + len(info.shape):
                raise DatasetError(f"property '{name}' wants {1 + len(info.shape)} dimensions")
            info = replace(info, shape=values.shape[1:], dims=info.dimensions)
        for dim, size in zip(info.dimensions, info.shape):
            if dim in self.file and self.file[dim].shape != (size,):
                there = self.file[dim].shape[0]
                raise DatasetError(
                    f"property '{name}': dimension '{dim}' is {there} in this file, not {size}",
                    hint="values of another length are another property: put the stage in front, eos-2__eos_volume",
                )
            set_scale(self.file, dim, size)
        group = "sites" if info.per == "site" else "results"
        column = self._column(group, name, info.dtype, info.shape, info.dimensions, info.fill)
        for key, value in (
            ("units", info.units),
            ("long_name", info.long_name or name),
            ("property_definition", info.definition or info.long_name or name),
        ):
            set_attr(column.dataset, key, value)
        status = self._column("results", f"{name}_status", "u1", (), (), 0)
        status.dataset.attrs.create("flag_values", np.array([s.value for s in Status], dtype="u1"))
        set_attr(status.dataset, "flag_meanings", " ".join(s.label for s in Status))
        process = self._column("results", f"{name}_process", "i4", (), (), -1)
        set_attr(process.dataset, "long_name", "row of /provenance, -1 none")
        self.known[name] = info
        for start, flags, rows in self._waiting.pop(name, []):
            self._append_flags(name, flags, rows, start)
        return info

    # -- blocks -----------------------------------------------------------------------------------------------

    def append(
        self,
        batch: Batch,
        ids: np.ndarray,
        hashes: np.ndarray,
        results: Mapping[str, Any],
        status: Mapping[str, Any],
        process: Mapping[str, Any],
        site_results: Mapping[str, Any],
        entry: Mapping[str, Any],
    ) -> None:
        """Add entries, see `DatasetWriter.append`."""
        n, m = len(batch), batch.numbers.shape[0]
        for name in entry:
            if name not in ENTRY_COLUMNS and name not in TEXT_COLUMNS:
                raise DatasetError(f"unknown entry column '{name}'{did_you_mean(name, ENTRY_COLUMNS)}")
        values = {
            "structure_hash": hashes,
            "cell": batch.cell,
            "pbc": batch.pbc,
            "row_size": batch.n_sites,
            "site_start": batch.ptr[:-1] + self.sites,
            "last_modified": np.full(n, time.time_ns() // 1000),
            **{k: v for k, v in entry.items() if k in ENTRY_COLUMNS},
        }
        for name, info in ENTRY_COLUMNS.items():
            column = self._columns[f"entries/{name}"]
            block = values.get(name)
            if block is None:
                block = np.full((n, *info.tail), info.fill, dtype=column.dtype)
            _put(column, name, block, n)
        self._text["id"].append(ids)
        self._text["formula"].append(formula_bytes(batch.numbers, batch.ptr))
        self._text["label"].append(_messages(entry.get("label"), n))
        self._text["message"].append(_messages(entry.get("message"), n))
        _put(self._columns["sites/atomic_number"], "atomic_number", batch.numbers, m)
        _put(self._columns["sites/position"], "position", batch.positions, m)
        for given, per in ((results, "entry"), (site_results, "site")):
            for name, data in given.items():
                self._append_values(name, np.asarray(data), per, batch, status.get(name), process.get(name))
        # A status without values: a property that was computed nowhere in this block.
        for name in status:
            if name not in results and name not in site_results:
                self._append_status(name, batch, status[name], process.get(name))
        self.rows += n
        self.sites += m

    def _append_status(self, name: str, batch: Batch, status: Any, process: Any) -> None:
        flags = _flags(name, status, len(batch))
        if name not in self.known and -1 in lookup(name, self.declared).shape:
            self._waiting.setdefault(name, []).append((self.rows, flags, process))
            return
        info = self.add_property(name, None)
        rows = len(batch) if info.per == "entry" else batch.numbers.shape[0]
        empty = np.full((rows, *info.shape), info.fill, dtype=info.dtype)
        self._append_values(name, empty, info.per, batch, flags, process)

    def _append_values(
        self, name: str, data: np.ndarray, per: str, batch: Batch, status: Any, process: Any
    ) -> None:
        info = self.add_property(name, data)
        if info.per != per:
            raise DatasetError(
                f"property '{name}' is per {info.per}",
                hint="site properties go into site_results, others into results",
            )
        rows, at = (len(batch), self.rows) if per == "entry" else (batch.numbers.shape[0], self.sites)
        if data.shape != (rows, *info.shape):
            raise DatasetError(f"property '{name}' has shape {data.shape}, expected {(rows, *info.shape)}")
        if status is None:
            there = _finite(data, info, batch)
            flags = np.where(there, Status.OK, Status.NOT_ATTEMPTED).astype("u1")
        else:
            flags = _flags(name, status, len(batch))
        keep = (flags == Status.OK) | (flags == Status.NOT_CONVERGED)
        if not keep.all():
            if per == "site":
                keep = np.repeat(keep, batch.n_sites)
            data = np.array(data, dtype=info.dtype)
            data[~keep] = info.fill
        column = self._columns[f"sites/{name}" if per == "site" else f"results/{name}"]
        column.pad(at)
        column.append(data)
        self._append_flags(name, flags, process, self.rows)

    def _append_flags(self, name: str, flags: np.ndarray, process: Any, start: int) -> None:
        for column, block in (
            (self._columns[f"results/{name}_status"], flags),
            (
                self._columns[f"results/{name}_process"],
                np.full(len(flags), -1) if process is None else process,
            ),
        ):
            column.pad(start)
            _put(column, f"{name} (status, process)", block, len(flags))

    # -- end --------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Write what is pending and give every dimension its scale."""
        sizes = {"entry": self.rows, "site": self.sites, "xyz": 3, "cell_vector": 3, "uuid_byte": 16}
        for name, size in sizes.items():
            set_scale(self.file, name, size)
        for key, column in self._columns.items():
            column.pad(self.sites if key.startswith("sites/") else self.rows)
            column.finish()
            attach(self.file, column.dataset, column.dims)
        pad_descriptors(self.file, self.rows, self.sites)
        for text in self._text.values():
            text.finish()
            attach(self.file, text.dataset, text.dims)


def _put(column: Column, name: str, block: Any, rows: int) -> None:
    array = np.asarray(block)
    if array.shape != (rows, *column.tail):
        raise DatasetError(f"column '{name}' has shape {array.shape}, expected {(rows, *column.tail)}")
    column.append(array)


def _flags(name: str, status: Any, n: int) -> np.ndarray:
    flags = np.asarray(status).astype("u1")
    if flags.shape != (n,):
        raise DatasetError(f"status of '{name}' has shape {flags.shape}, expected {(n,)}")
    if n and flags.max() > max(Status):
        raise DatasetError(f"status of '{name}' has the unknown value {flags.max()}")
    return flags


def _messages(messages: Sequence[str] | None, n: int) -> np.ndarray:
    if messages is None:
        return np.zeros(n, dtype="S1")
    raw = []
    for text in messages:
        data = (text or "").encode()
        if len(data) > MESSAGE_WIDTH:  # cut between characters
            data = data[: MESSAGE_WIDTH - 3].decode(errors="ignore").encode() + "…".encode()
        raw.append(data)
    if len(raw) != n:
        raise DatasetError(f"{len(raw)} messages for {n} structures")
    return np.array(raw, dtype=f"S{max(max(map(len, raw), default=1), 1)}")


def _finite(data: np.ndarray, info: PropertyInfo, batch: Batch) -> np.ndarray:
    """Return whether each entry's value is there: finite, or not the integer fill."""
    good = np.isfinite(data) if data.dtype.kind == "f" else data != info.fill
    good = good.all(axis=tuple(range(1, data.ndim)))
    if info.per == "entry":
        return good
    bad = np.concatenate([[0], np.cumsum(~good)])
    return bad[batch.ptr[1:]] == bad[batch.ptr[:-1]]

"""Write and append: `DatasetWriter`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from matcompute.dataset import tables
from matcompute.dataset.columns import Column, TextColumn
from matcompute.dataset.errors import DatasetError, DatasetWriteError
from matcompute.dataset.h5io import (
    ENTRY_CHUNK,
    GZIP_LEVEL,
    LIBVER,
    MAX_ENTRIES,
    SITE_CHUNK,
    attach,
    set_attr,
    set_scale,
    text_dtype,
)
from matcompute.dataset.ids import IdIndex
from matcompute.dataset.layout import ENTRY_COLUMNS, TEXT_COLUMNS, EntryColumn
from matcompute.dataset.metadata import Metadata, Method, Selection, Source
from matcompute.dataset.properties import PropertyInfo, lookup
from matcompute.dataset.provenance import Provenance
from matcompute.dataset.status import Status
from matcompute.dataset.target import Target, disk_error
from matcompute.errors import did_you_mean
from matcompute_kernels import Batch, entry_ids
from matcompute_kernels import structure_hash as hash_structures

__all__ = ["DatasetWriter"]

#: Longest message kept with an entry, in bytes of UTF-8.
MESSAGE_WIDTH = 400


class DatasetWriter:
    """Write a dataset file: all of it or nothing.

    Rows go to a locked temporary file beside ``path``, which takes its place when the writer is closed. If the
    ``with`` block raises, the disk fills up or the process is killed, the file that stood at ``path`` still does.

    Parameters
    ----------
    path
        The file to write.
    metadata
        Root attributes; a dataset id and date are made when not given.
    overwrite
        Replace a file that is there.
    gzip_level
        Compression level (1 to 9).

    Raises
    ------
    DatasetLockedError
        If another writer has the same path open.
    DatasetWriteError
        If the file exists and ``overwrite`` is false, or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        metadata: Metadata | None = None,
        *,
        overwrite: bool = False,
        gzip_level: int = GZIP_LEVEL,
    ) -> None:
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise DatasetWriteError(
                f"{self.path} exists", hint="pass overwrite=True (--overwrite) to replace it"
            )
        self._setup(Target(self.path), "w", metadata or Metadata(), gzip_level)

    def _setup(self, target: Target, mode: str, metadata: Metadata, gzip_level: int) -> None:
        self.metadata = metadata
        self._target = target
        self._level = gzip_level
        self._columns: dict[str, Column] = {}
        self._text: dict[str, TextColumn] = {}
        self._declared: dict[str, PropertyInfo] = {}
        self._infos: dict[str, PropertyInfo] = {}
        self._methods: list[Method] = []
        self._sources: list[Source] = []
        self._selections: dict[str, Selection] = {}
        self._provenance: Provenance | None = None
        self._ids = IdIndex()
        self._rows = self._sites = 0
        self._open = True
        with self._writing():
            # Our own lock holds the file; HDF5's would collide with it within this process.
            self._file = h5py.File(target.temporary, mode, libver=LIBVER, locking=False)
            for name in ("entries", "sites", "results", "selections"):
                self._file.require_group(name)
            for name, column in ENTRY_COLUMNS.items():
                self._entry_column(name, column)
            for name in TEXT_COLUMNS:
                self._text[name] = TextColumn(self._file["entries"], name, ENTRY_CHUNK, ("entry",))
            self._site_column("atomic_number", "u1", (), ("site",), 0, "1", "atomic number")
            self._site_column(
                "position", "f8", (3,), ("site", "xyz"), np.nan, "angstrom", "Cartesian position"
            )

    @classmethod
    def append_to(cls, path: str | Path, *, gzip_level: int = GZIP_LEVEL) -> Self:
        """Open a finished dataset to add entries, methods, sources, selections or provenance.

        The writer works on a copy (a reflink where the file system has them), which replaces the file on close: a
        crash at any point leaves the old file.
        """
        from matcompute.dataset.reader import Dataset

        with Dataset(path) as old:
            metadata, methods, sources = old.metadata, old.methods, old.sources
            infos, provenance = old.properties, old.provenance
            rows, sites, ids = len(old), old.n_sites, old.raw_ids
            selections = old.selections
        writer = cls.__new__(cls)
        writer.path = Path(path)
        writer._setup(Target(writer.path, copy=True), "r+", metadata, gzip_level)
        writer._methods, writer._sources, writer._provenance = methods, sources, provenance
        writer._selections = selections
        writer._rows, writer._sites = rows, sites
        writer._ids.add(ids, writer.path)
        with writer._writing():
            for info in infos.values():
                writer._declared[info.name] = info
                writer._property(info.name, None)
        return writer

    # -- context ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __len__(self) -> int:
        return self._rows

    @contextlib.contextmanager
    def _writing(self) -> Any:
        """Turn a failed write into our error, and drop the temporary on any failure."""
        try:
            yield
        except OSError as error:
            self.abort()
            raise disk_error(self.path, error) from error
        except RuntimeError as error:  # h5py's kind for a failure inside HDF5's own flush
            self.abort()
            raise DatasetWriteError(f"{self.path}: writing failed ({error}); nothing was changed") from error
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Give up: the temporary is removed, ``path`` stays as it was."""
        if not self._open:
            return
        self._open = False
        self._target.discard()
        if hasattr(self, "_file"):
            # With the disk full HDF5 cannot flush; the file is gone already, so only its handle matters.
            with contextlib.suppress(OSError, RuntimeError, ValueError):
                self._file.close()

    def close(self) -> None:
        """Complete the file and put it in place."""
        if not self._open:
            return
        for selection in self._selections.values():
            if selection.mask.shape != (self._rows,):
                self.abort()
                raise DatasetError(
                    f"selection '{selection.name}' has {selection.mask.shape[0]} rows, the dataset {self._rows}"
                )
        with self._writing():
            self._finish()
            self._file.close()
        self._open = False
        self._target.publish()

    def _finish(self) -> None:
        file = self._file
        sizes = {"entry": self._rows, "site": self._sites, "xyz": 3, "cell_vector": 3, "uuid_byte": 16}
        for name, size in sizes.items():
            set_scale(file, name, size)
        for key, column in self._columns.items():
            column.pad(self._sites if key.startswith("sites/") else self._rows)
            column.finish()
            attach(file, column.dataset, column.dims)
        for text in self._text.values():
            text.finish()
            attach(file, text.dataset, text.dims)
        tables.write_metadata(file, self.metadata)
        tables.write_methods(file, self._methods)
        tables.write_sources(file, self._sources)
        tables.write_provenance(file, self._provenance or Provenance())
        for selection in self._selections.values():
            tables.write_selection(file, selection)
        file.flush()

    # -- columns ----------------------------------------------------------------------------------------------

    def _entry_column(self, name: str, info: EntryColumn) -> None:
        dtype = text_dtype(int(info.dtype[1:])) if info.dtype[0] == "S" else info.dtype
        column = Column(
            self._file["entries"],
            name,
            dtype,
            info.tail,
            ENTRY_CHUNK,
            ("entry", *info.dims),
            info.fill,
            level=self._level,
        )
        for key, value in info.attributes().items():
            set_attr(column.dataset, key, value)
        self._columns[f"entries/{name}"] = column

    def _site_column(
        self,
        name: str,
        dtype: str,
        tail: tuple[int, ...],
        dims: tuple[str, ...],
        fill: Any,
        units: str,
        long_name: str,
    ) -> Column:
        column = Column(self._file["sites"], name, dtype, tail, SITE_CHUNK, dims, fill, level=self._level)
        set_attr(column.dataset, "units", units)
        set_attr(column.dataset, "long_name", long_name)
        self._columns[f"sites/{name}"] = column
        return column

    def declare(self, info: PropertyInfo) -> None:
        """Make a property known that the registry does not have."""
        self._declared[info.name] = info

    def _property(self, name: str, values: np.ndarray | None) -> PropertyInfo:
        """Make the columns of a property when it is first met."""
        if name in self._infos:
            return self._infos[name]
        info = lookup(name, self._declared)
        if -1 in info.shape:
            if values is None or values.ndim != 1 + len(info.shape):
                raise DatasetError(f"property '{name}' wants {1 + len(info.shape)} dimensions")
            info = replace(info, shape=values.shape[1:], dims=info.dimensions)
        for dim, size in zip(info.dimensions, info.shape):
            if dim in self._file and self._file[dim].shape != (size,):
                there = self._file[dim].shape[0]
                raise DatasetError(
                    f"property '{name}': dimension '{dim}' is {there} in this file, not {size}"
                )
            set_scale(self._file, dim, size)
        results = self._file["results"]
        if info.per == "site":
            column = self._site_column(
                name,
                info.dtype,
                info.shape,
                ("site", *info.dimensions),
                info.fill,
                info.units,
                info.long_name,
            )
        else:
            column = Column(
                results,
                name,
                info.dtype,
                info.shape,
                ENTRY_CHUNK,
                ("entry", *info.dimensions),
                info.fill,
                level=self._level,
            )
            self._columns[f"results/{name}"] = column
        for key, value in (
            ("units", info.units),
            ("long_name", info.long_name or name),
            ("property_definition", info.definition or info.long_name or name),
        ):
            set_attr(column.dataset, key, value)
        status = Column(results, f"{name}_status", "u1", (), ENTRY_CHUNK, ("entry",), 0, level=self._level)
        status.dataset.attrs.create("flag_values", np.array([s.value for s in Status], dtype="u1"))
        set_attr(status.dataset, "flag_meanings", " ".join(s.label for s in Status))
        process = Column(results, f"{name}_process", "i4", (), ENTRY_CHUNK, ("entry",), -1, level=self._level)
        set_attr(process.dataset, "long_name", "row of /provenance, -1 none")
        self._columns[f"results/{name}_status"] = status
        self._columns[f"results/{name}_process"] = process
        self._infos[name] = info
        return info

    # -- rows -------------------------------------------------------------------------------------------------

    def append(
        self,
        batch: Batch,
        ids: Sequence[str] | np.ndarray | None = None,
        structure_hash: Sequence[str] | np.ndarray | None = None,
        results: Mapping[str, Any] | None = None,
        status: Mapping[str, Any] | None = None,
        process: Mapping[str, Any] | None = None,
        site_results: Mapping[str, Any] | None = None,
        entry: Mapping[str, Any] | None = None,
    ) -> None:
        """Add entries. Large blocks (thousands of entries) are the fastest.

        Parameters
        ----------
        batch
            n structures with m sites.
        ids
            Unique entry ids, ASCII; ``<formula>-<hash>`` when not given.
        structure_hash
            Their hashes; computed when not given.
        results
            Property → values [n, ...].
        status
            Property → `Status` values u1[n]; when not given, ok where the value is finite, else not_attempted.
        process
            Property → row of the provenance, i4[n]; -1 when not given.
        site_results
            Property → values [m, ...].
        entry
            Other columns of ``/entries``: source_index, source_line, node_uuid, process_uuid, quality, method_index,
            message, last_modified, attempt.

        Raises
        ------
        DatasetError
            If an id is there already, a name is unknown, a shape is wrong or the file would grow past 10⁶ entries.
        """
        if not self._open:
            raise DatasetError(f"{self.path}: this writer is closed")
        with self._writing():
            self._append(
                batch,
                ids,
                structure_hash,
                results or {},
                status or {},
                process or {},
                site_results or {},
                entry or {},
            )

    def _append(
        self,
        batch: Batch,
        ids: Any,
        hashes: Any,
        results: Mapping[str, Any],
        status: Mapping[str, Any],
        process: Mapping[str, Any],
        site_results: Mapping[str, Any],
        entry: Mapping[str, Any],
    ) -> None:
        from matcompute_kernels.formula import formula_bytes

        n, m = len(batch), batch.numbers.shape[0]
        if self._rows + n > MAX_ENTRIES:
            raise DatasetError(
                f"{self.path}: a file holds at most {MAX_ENTRIES:,} entries",
                hint="write further shards (Metadata.shard) of the same dataset",
            )
        hashes = hash_structures(batch) if hashes is None else np.asarray(hashes).astype("S32")
        ids = entry_ids(batch, hashes) if ids is None else np.asarray(ids)
        raw_ids = _ascii(ids, n)
        unknown = [k for k in entry if k not in ENTRY_COLUMNS and k not in TEXT_COLUMNS]
        if unknown:
            raise DatasetError(
                f"unknown entry column '{unknown[0]}'{did_you_mean(unknown[0], ENTRY_COLUMNS)}"
            )
        self._ids.add(raw_ids, self.path)

        values = {
            "structure_hash": hashes,
            "cell": batch.cell,
            "pbc": batch.pbc,
            "row_size": batch.n_sites,
            "site_start": batch.ptr[:-1] + self._sites,
            "last_modified": np.full(n, time.time_ns() // 1000),
            **{k: v for k, v in entry.items() if k in ENTRY_COLUMNS},
        }
        for name, info in ENTRY_COLUMNS.items():
            column = self._columns[f"entries/{name}"]
            block = values.get(name)
            if block is None:
                block = np.full((n, *info.tail), info.fill, dtype=column.dtype)
            self._put(column, name, block, n)
        self._text["id"].append(raw_ids)
        self._text["formula"].append(formula_bytes(batch.numbers, batch.ptr))
        self._text["message"].append(_messages(entry.get("message"), n))
        self._put(self._columns["sites/atomic_number"], "atomic_number", batch.numbers, m)
        self._put(self._columns["sites/position"], "position", batch.positions, m)

        for given, per in ((results, "entry"), (site_results, "site")):
            for name, data in given.items():
                self._append_property(name, np.asarray(data), per, batch, status.get(name), process.get(name))
        # A status without values: failures of a property that this block has nowhere computed.
        for name in status:
            if name not in results and name not in site_results:
                self._append_property(name, None, None, batch, status[name], process.get(name))
        self._rows += n
        self._sites += m

    def _append_property(
        self, name: str, data: np.ndarray | None, per: str | None, batch: Batch, status: Any, process: Any
    ) -> None:
        if data is None and name not in self._infos and -1 in lookup(name, self._declared).shape:
            return  # its length is not known yet; rows before the first value read as not attempted
        info = self._property(name, data)
        if per is not None and info.per != per:
            raise DatasetError(
                f"property '{name}' is per {info.per}",
                hint="site properties go into site_results, others into results",
            )
        n = len(batch)
        rows, at = (n, self._rows) if info.per == "entry" else (batch.numbers.shape[0], self._sites)
        if data is None:
            data = np.full((rows, *info.shape), info.fill, dtype=info.dtype)
        if data.shape != (rows, *info.shape):
            raise DatasetError(f"property '{name}' has shape {data.shape}, expected {(rows, *info.shape)}")
        if status is None:
            flags = np.where(_finite(data, info, batch), Status.OK, Status.NOT_ATTEMPTED).astype("u1")
        else:
            flags = np.asarray(status).astype("u1")
            if flags.shape != (n,):
                raise DatasetError(f"status of '{name}' has shape {flags.shape}, expected {(n,)}")
        keep = (flags == Status.OK) | (flags == Status.NOT_CONVERGED)
        if not keep.all():
            if info.per == "site":
                keep = np.repeat(keep, batch.n_sites)
            data = np.array(data, dtype=info.dtype)
            data[~keep] = info.fill
        column = self._columns[f"sites/{name}" if info.per == "site" else f"results/{name}"]
        column.pad(at)
        column.append(data)
        flag_column, process_column = (
            self._columns[f"results/{name}_status"],
            self._columns[f"results/{name}_process"],
        )
        flag_column.pad(self._rows)
        flag_column.append(flags)
        process_column.pad(self._rows)
        self._put(process_column, f"process of {name}", np.full(n, -1) if process is None else process, n)

    def _put(self, column: Column, name: str, block: Any, rows: int) -> None:
        array = np.asarray(block)
        if array.shape != (rows, *column.tail):
            raise DatasetError(f"column '{name}' has shape {array.shape}, expected {(rows, *column.tail)}")
        column.append(array)

    # -- tables -----------------------------------------------------------------------------------------------

    def add_method(self, method: Method) -> int:
        """Add a method (once) and return its row."""
        return _add(self._methods, method)

    def add_source(self, source: Source) -> int:
        """Add a source file (once) and return its row."""
        return _add(self._sources, source)

    def set_selection(
        self, name: str, mask: Any, *, expression: str = "", inputs: Sequence[str] = ()
    ) -> None:
        """Store which entries passed a gate (bool or u1, one per entry of the finished file)."""
        self._selections[name] = Selection(name, np.asarray(mask).astype(bool), expression, tuple(inputs))

    def set_provenance(self, provenance: Provenance) -> None:
        """Store the processes that ``/results/<property>_process`` points into."""
        self._provenance = provenance


def _add(table: list[Any], row: Any) -> int:
    # NaN fields make equal methods unequal; repr compares them as they read.
    key = repr(row)
    for index, known in enumerate(table):
        if repr(known) == key:
            return index
    table.append(row)
    return len(table) - 1


def _ascii(ids: np.ndarray, n: int) -> np.ndarray:
    if ids.shape != (n,):
        raise DatasetError(f"{ids.shape[0] if ids.ndim else 0} ids for {n} structures")
    try:
        return ids.astype("S")
    except UnicodeEncodeError as error:
        raise DatasetError(f"entry ids must be ASCII: {error.object!r}") from error


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
    good = good.reshape(data.shape[0], -1).all(axis=1)
    if info.per == "entry":
        return good
    bad = np.concatenate([[0], np.cumsum(~good)])
    return bad[batch.ptr[1:]] == bad[batch.ptr[:-1]]

"""Write and append: `DatasetWriter`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from matcompute.dataset import tables
from matcompute.dataset.errors import DatasetError, DatasetWriteError
from matcompute.dataset.h5io import (
    GZIP_LEVEL,
    LIBVER,
    MAX_ENTRIES,
)
from matcompute.dataset.ids import IdIndex
from matcompute.dataset.metadata import Metadata, Method, Selection, Source
from matcompute.dataset.properties import PropertyInfo
from matcompute.dataset.provenance import Provenance
from matcompute.dataset.store import ColumnStore
from matcompute.dataset.target import Target, disk_error
from matcompute_kernels import Batch, entry_ids
from matcompute_kernels import structure_hash as hash_structures

__all__ = ["DatasetWriter"]


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
        self._methods: list[Method] = []
        self._sources: list[Source] = []
        self._selections: dict[str, Selection] = {}
        self._inherited: dict[str, Selection] = {}
        self._provenance = Provenance()
        self._ids = IdIndex()
        self._open = True
        with self._writing():
            # Our own lock holds the file; HDF5's would collide with it within this process.
            self._file = h5py.File(target.temporary, mode, libver=LIBVER, locking=False)
            self._store = ColumnStore(self._file, gzip_level)

    @classmethod
    def append_to(cls, path: str | Path, *, gzip_level: int = GZIP_LEVEL) -> Self:
        """Open a finished dataset to add entries, methods, sources, selections or provenance.

        The writer works on a copy, which replaces the file on close: a crash at any point leaves the old file, and
        readers that have it open keep what they see. Entries that are added have passed none of the old selections.
        """
        from matcompute.dataset.reader import Dataset

        target = Target(Path(path), copy=True)  # the lock first: nobody else may change the file from here on
        try:
            with Dataset(path) as old:
                metadata, infos, ids = old.metadata, old.properties, old.raw_ids
                methods, sources, selections = old.methods, old.sources, old.selections
                provenance = old.provenance
        except BaseException:
            target.discard()
            raise
        writer = cls.__new__(cls)
        writer.path = Path(path)
        writer._setup(target, "r+", metadata, gzip_level)
        writer._methods, writer._sources, writer._inherited = methods, sources, selections
        writer._provenance = provenance
        with writer._writing():
            writer._ids.add(ids, writer.path)
            for info in infos.values():
                writer.declare(info)
                writer._store.add_property(info.name, None)
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
        return self._store.rows

    @property
    def n_sites(self) -> int:
        """Number of sites appended so far."""
        return self._store.sites

    @property
    def file(self) -> h5py.File:
        """The open temporary file (for `descriptors`)."""
        return self._file

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
        for name, selection in self._inherited.items():
            if name not in self._selections:  # what was appended has passed no gate
                mask = np.zeros(len(self), dtype=bool)
                mask[: selection.mask.shape[0]] = selection.mask
                self._selections[name] = replace(selection, mask=mask)
        for selection in self._selections.values():
            if selection.mask.shape != (len(self),):
                self.abort()
                raise DatasetError(
                    f"selection '{selection.name}' has {selection.mask.shape[0]} rows, the dataset {len(self)}"
                )
        with self._writing():
            self._finish()
            self._file.close()
        self._open = False
        self._target.publish()

    def _finish(self) -> None:
        file = self._file
        self._store.finish()
        tables.write_metadata(file, self.metadata)
        tables.write_methods(file, self._methods)
        tables.write_sources(file, self._sources)
        tables.write_provenance(file, self._provenance)
        for position, selection in enumerate(self._selections.values()):
            tables.write_selection(file, selection, position)
        file.flush()

    # -- rows -------------------------------------------------------------------------------------------------

    def declare(self, info: PropertyInfo) -> None:
        """Make a property known that the registry does not have."""
        self._store.declared[info.name] = info

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

    def _append(self, batch: Batch, ids: Any, hashes: Any, *rest: Mapping[str, Any]) -> None:
        n = len(batch)
        if len(self) + n > MAX_ENTRIES:
            raise DatasetError(
                f"{self.path}: a file holds at most {MAX_ENTRIES:,} entries",
                hint="write further shards (Metadata.shard) of the same dataset",
            )
        hashes = hash_structures(batch) if hashes is None else np.asarray(hashes).astype("S32")
        raw_ids = _ascii(np.asarray(entry_ids(batch, hashes) if ids is None else ids), n)
        self._ids.add(raw_ids, self.path)
        self._store.append(batch, raw_ids, hashes, *rest)

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

    def add_selection(self, selection: Selection) -> None:
        """Store a selection with all that is known of it, see `set_selection`."""
        self._selections[selection.name] = selection

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

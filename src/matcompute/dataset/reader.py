"""Read a dataset: `Dataset`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

import h5py
import numpy as np

from matcompute.dataset import tables
from matcompute.dataset.descriptor_info import DescriptorInfo, is_companion, read_info
from matcompute.dataset.entry import Entry
from matcompute.dataset.errors import DatasetError, unknown_name
from matcompute.dataset.h5io import get_attr, read, to_text
from matcompute.dataset.layout import ENTRY_COLUMNS, TEXT_COLUMNS
from matcompute.dataset.metadata import Metadata, Method, Selection, Source
from matcompute.dataset.opening import open_dataset
from matcompute.dataset.properties import PROPERTIES, PropertyInfo
from matcompute.dataset.provenance import Provenance
from matcompute.dataset.rows import resolve_rows, spans, take
from matcompute_kernels import Batch

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms
    from pymatgen.core import Structure

__all__ = ["Dataset", "Rows"]

#: Which entries: all of them, a slice, row numbers or a mask.
Rows = slice | Sequence[int] | np.ndarray | None


class Dataset:
    """A dataset file, opened for reading.

    Nothing but the header is read on opening; columns and structures are read when asked for. Use it as a context
    manager, or call `close`.

    Parameters
    ----------
    path
        The file.
    stream
        The same file, open for reading, where it is not on a disk of this machine; the caller closes it.

    Raises
    ------
    DatasetFileError
        If the file is missing, is not HDF5, is not a dataset, is of another format version, or is damaged.
    """

    def __init__(self, path: str | Path, stream: IO[bytes] | None = None) -> None:
        self.path = Path(path)
        self.file: h5py.File = open_dataset(self.path, stream)
        self._n = int(self.file["entries/id"].shape[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __repr__(self) -> str:
        return f"<Dataset {self.path.name}: {self._n} entries, {self.n_sites} sites>"

    # -- header -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._n

    @property
    def n_sites(self) -> int:
        """Number of sites of all entries together (per entry: ``entry_column("row_size")``)."""
        return int(self.file["sites/position"].shape[0])

    @cached_property
    def metadata(self) -> Metadata:
        """The root attributes."""
        return tables.read_metadata(self.file)

    @property
    def format_version(self) -> str:
        """Version of the format, ``major.minor``."""
        return str(get_attr(self.file, "format_version"))

    @cached_property
    def properties(self) -> dict[str, PropertyInfo]:
        """The properties that this file holds, by name."""
        found = {}
        for name in self.file["results"]:
            if not name.endswith("_status"):
                continue
            base = name.removesuffix("_status")
            for group, per in (("results", "entry"), ("sites", "site")):
                if base in self.file[group]:
                    found[base] = _info(self.file[group][base], base, per)
                    break
        return found

    @cached_property
    def descriptors(self) -> dict[str, DescriptorInfo]:
        """The descriptors that this file holds, by name (:mod:`matcompute.dataset.descriptors` reads their values)."""
        group = self.file.get("descriptors", {})
        return {name: read_info(self.file, name) for name in group if not is_companion(group, name)}

    @cached_property
    def methods(self) -> list[Method]:
        """Rows of ``/methods``."""
        return tables.read_methods(self.file)

    @cached_property
    def sources(self) -> list[Source]:
        """Rows of ``/sources``."""
        return tables.read_sources(self.file)

    @cached_property
    def selections(self) -> dict[str, Selection]:
        """Which entries passed each gate."""
        return tables.read_selections(self.file)

    @cached_property
    def provenance(self) -> Provenance:
        """The processes and their edges."""
        return tables.read_provenance(self.file)

    # -- entries ----------------------------------------------------------------------------------------------

    @cached_property
    def raw_ids(self) -> np.ndarray:
        """Entry ids as stored, S[N]."""
        return read(self.file["entries/id"])

    @property
    def ids(self) -> np.ndarray:
        """Entry ids as text, U[N]."""
        return to_text(self.raw_ids)

    def find(self, entry_id: str) -> int:
        """Return the row of an entry.

        Raises
        ------
        UnknownNameError
            If there is no such id; the nearest is given.
        """
        rows = np.flatnonzero(self.raw_ids == entry_id.encode())
        if rows.size == 0:
            head = entry_id.split("-")[0].encode()
            near = self.raw_ids[np.char.startswith(self.raw_ids, head)][:2000]
            known = to_text(near if near.size else self.raw_ids[:2000])
            raise unknown_name("entry", entry_id, known.tolist(), self.path)
        return int(rows[0])

    def find_all(self, entry_ids: Iterable[str]) -> np.ndarray:
        """Return the rows of many entries, i8[n] (one sort instead of a scan each).

        Raises
        ------
        UnknownNameError
            If one of them is not there.
        """
        wanted = np.array([i.encode() for i in entry_ids], dtype="S")
        if wanted.size == 0:
            return np.empty(0, dtype=np.int64)
        order = np.argsort(self.raw_ids)
        at = np.searchsorted(self.raw_ids, wanted, sorter=order)
        at[at == self._n] = 0
        rows = order[at] if self._n else np.full(wanted.shape, -1)
        wrong = np.flatnonzero(self.raw_ids[rows] != wanted) if self._n else np.arange(wanted.size)
        if wrong.size:
            self.find(wanted[wrong[0]].decode())
        return rows

    def entry_column(self, name: str, rows: Rows = None) -> np.ndarray:
        """Return a column of ``/entries``: text as U arrays, UUIDs as u1[n, 16], ``n_sites`` for ``row_size``."""
        name = {"n_sites": "row_size"}.get(name, name)
        group = self.file["entries"]
        if name not in group:
            raise unknown_name("entry column", name, (*ENTRY_COLUMNS, *TEXT_COLUMNS), self.path)
        values = take(group[name], resolve_rows(rows, self._n))
        return to_text(values) if values.dtype.kind == "S" else values

    # -- values -----------------------------------------------------------------------------------------------

    def column(self, name: str, rows: Rows = None) -> np.ndarray:
        """Return the values of a property: [n, ...], for a site property packed [m, ...].

        Raises
        ------
        UnknownNameError
            If the file has no such property; the nearest spelling is given.
        """
        info = self.property_info(name)
        if info.per == "entry":
            return take(self.file["results"][name], resolve_rows(rows, self._n))
        selection, _ = self.site_selection(rows)
        return take(self.file["sites"][name], selection)

    def status(self, name: str, rows: Rows = None) -> np.ndarray:
        """Return the `Status` of a property for each entry, u1[n]."""
        self.property_info(name)
        return take(self.file["results"][f"{name}_status"], resolve_rows(rows, self._n))

    def process(self, name: str, rows: Rows = None) -> np.ndarray:
        """Return the row of `provenance` that gave each value, i4[n]; -1 where unknown."""
        self.property_info(name)
        return take(self.file["results"][f"{name}_process"], resolve_rows(rows, self._n))

    def property_info(self, name: str) -> PropertyInfo:
        """Return unit, shape and definition of a property of this file."""
        if name not in self.properties:
            raise unknown_name("property", name, self.properties, self.path)
        return self.properties[name]

    # -- structures -------------------------------------------------------------------------------------------

    def site_selection(self, rows: Rows) -> tuple[slice | np.ndarray, np.ndarray]:
        """Return which sites the rows own and the offsets of the packed result, i8[n + 1]."""
        chosen = resolve_rows(rows, self._n)
        group = self.file["entries"]
        sizes = take(group["row_size"], chosen).astype(np.int64)
        ptr = np.zeros(sizes.shape[0] + 1, dtype=np.int64)
        np.cumsum(sizes, out=ptr[1:])
        if sizes.shape[0] == 0:
            return slice(0, 0), ptr
        if isinstance(chosen, slice):
            first = int(read(group["site_start"], chosen.start))
            return slice(first, first + int(ptr[-1])), ptr
        return spans(take(group["site_start"], chosen), sizes), ptr

    def batch(self, rows: Rows = None) -> Batch:
        """Return structures as packed arrays; a contiguous slice reads each array in one piece."""
        chosen = resolve_rows(rows, self._n)
        sites, ptr = self.site_selection(rows)
        group = self.file["entries"]
        return Batch(
            numbers=take(self.file["sites/atomic_number"], sites),
            positions=take(self.file["sites/position"], sites),
            cell=take(group["cell"], chosen),
            pbc=take(group["pbc"], chosen).astype(bool),
            ptr=ptr,
        )

    def iter_batches(self, size: int = 4096) -> Iterator[Batch]:
        """Yield all structures in blocks of ``size``."""
        for start in range(0, self._n, size):
            yield self.batch(slice(start, min(start + size, self._n)))

    def atoms(self, row: int) -> Atoms:
        """Return one structure as ASE Atoms."""
        return self.batch(self._one(row)).to_atoms(0)

    def structure(self, row: int) -> Structure:
        """Return one structure as a pymatgen Structure."""
        return self.batch(self._one(row)).to_structure(0)

    def iter_atoms(self) -> Iterator[Atoms]:
        """Yield every structure as ASE Atoms."""
        for batch in self.iter_batches():
            yield from batch.iter_atoms()

    def iter_structures(self) -> Iterator[Structure]:
        """Yield every structure as a pymatgen Structure."""
        for batch in self.iter_batches():
            yield from batch.iter_structures()

    def _one(self, row: int) -> slice:
        at = row + self._n if row < 0 else row
        if not 0 <= at < self._n:
            raise DatasetError(f"{self.path}: no row {row}, the file has {self._n} entries")
        return slice(at, at + 1)

    def __getitem__(self, key: int | str) -> Entry:
        """Return one entry by row or by id, with its values, units and statuses."""
        row = self.find(key) if isinstance(key, str) else self._one(int(key)).start
        return Entry.read(self, row)

    def __iter__(self) -> Iterator[Entry]:
        return (self[row] for row in range(self._n))

    def to_pandas(self, columns: Sequence[str] | None = None, rows: Rows = None) -> pd.DataFrame:
        """Return entry-level columns as a DataFrame; units in ``frame.attrs["units"]``.

        Parameters
        ----------
        columns
            Names of properties, their ``_status``, columns of ``/entries``, ``n_sites`` or selections; by default id,
            formula, n_sites, all properties per entry with their statuses, and all selections. A vector property
            becomes one column per component (``stress_xx`` …).
        rows
            Which entries.
        """
        from matcompute.dataset.frame import to_pandas

        return to_pandas(self, columns, rows)


def _info(dataset: h5py.Dataset, name: str, per: str) -> PropertyInfo:
    kinds = {"f": "f", "i": "i", "u": "u"}
    known = PROPERTIES.get(name.rpartition("__")[2])
    dims = tuple(
        (d[0].name.rsplit("/", 1)[-1] if len(d) else f"{name}_dim{k}")
        for k, d in enumerate(list(dataset.dims)[1:])
    )
    return PropertyInfo(
        name=name,
        units=str(get_attr(dataset, "units", known.units if known else "1")) or "1",
        long_name=str(get_attr(dataset, "long_name")),
        dtype=f"{kinds.get(dataset.dtype.kind, 'f')}{dataset.dtype.itemsize}",
        shape=tuple(dataset.shape[1:]),
        per="site" if per == "site" else "entry",
        definition=str(get_attr(dataset, "property_definition")),
        dims=dims,
    )

"""Write a dataset in other formats: `export_dataset`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset.errors import DatasetError, unknown_name
from matcompute.dataset.export_descriptor import (
    descriptor_frame,
    descriptor_of,
    descriptor_rows,
    write_npz,
)
from matcompute.dataset.provenance import uuid_text
from matcompute.dataset.reader import Dataset
from matcompute.dataset.status import Status
from matcompute.dataset.target import disk_error
from matcompute.errors import did_you_mean

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["FORMATS", "export_dataset", "format_of"]

#: Format → usual suffix.
FORMATS: dict[str, str] = {
    "extxyz": ".extxyz",
    "cif": ".cif",
    "csv": ".csv",
    "parquet": ".parquet",
    "ase-db": ".db",
    "npz": ".npz",
}
_SUFFIXES = {suffix: name for name, suffix in FORMATS.items()} | {".xyz": "extxyz"}
_BLOCK = 4096


def format_of(path: Path, name: str | None) -> str:
    """Return the export format: the one that is named, or that of the suffix.

    Raises
    ------
    DatasetError
        If it is unknown.
    """
    if name is None:
        name = _SUFFIXES.get(path.suffix.lower())
        if name is None:
            raise DatasetError(
                f"cannot tell the format from '{path.name}'", hint=f"give --format: {', '.join(FORMATS)}"
            )
    if name not in FORMATS:
        raise DatasetError(f"unknown export format '{name}'{did_you_mean(name, FORMATS)}")
    return name


def export_dataset(
    dataset: Dataset,
    out: str | Path,
    format: str | None = None,
    *,
    selection: str | None = None,
    descriptor: str | None = None,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write entries to another format.

    ``extxyz`` and ``ase-db`` keep structures, values per entry and per site; ``cif`` keeps structures, one data block
    each; ``csv`` and ``parquet`` are summaries, one row per entry (units in the CSV's header comment and in the
    Parquet metadata); ``npz`` is a descriptor's matrix. Values without status ok or not_converged are left out, never
    written as zeros.

    Parameters
    ----------
    dataset
        An open dataset.
    out
        The file to write; it appears when complete.
    format
        One of `FORMATS`; told from the suffix when not given.
    selection
        Only the entries that passed this gate.
    descriptor
        A descriptor to take along: columns of a table, arrays of Atoms; ``npz`` holds nothing else.
    overwrite
        Replace a file that is there.
    on_progress
        Called with (entries done, entries in all).

    Returns
    -------
    int
        Number of entries written.
    """
    out = Path(out)
    kind = format_of(out, format)
    if out.exists() and not overwrite:
        raise DatasetError(f"{out} exists", hint="pass --overwrite to replace it")
    rows = _rows(dataset, selection)
    if descriptor is not None:
        descriptor_of(dataset, descriptor)
    _check_descriptor(dataset, kind, descriptor)
    # The same suffix: ASE and pandas look at it.
    temporary = out.with_name(f".{out.stem}.writing{FORMATS[kind]}")
    temporary.unlink(missing_ok=True)
    try:
        if kind in ("csv", "parquet"):
            _table(dataset, rows, temporary, kind, descriptor)
        elif kind == "npz":
            assert descriptor is not None
            write_npz(dataset, descriptor, rows, temporary, on_progress or _silent)
        elif kind == "cif":
            _cif(dataset, rows, temporary, on_progress or _silent)
        else:
            writers = {"extxyz": _extxyz, "ase-db": _ase_db}
            writers[kind](dataset, rows, temporary, on_progress or _silent, descriptor)
        temporary.replace(out)
    except OSError as error:
        raise disk_error(out, error) from error
    finally:
        temporary.unlink(missing_ok=True)
        Path(f"{temporary}.lock").unlink(missing_ok=True)  # ASE's own lock of a database
    return int(rows.shape[0])


def _silent(done: int, total: int) -> None:
    """Tell nobody."""


def _check_descriptor(dataset: Dataset, kind: str, name: str | None) -> None:
    if kind == "npz" and name is None:
        known = ", ".join(dataset.descriptors) or "it has none"
        raise DatasetError(
            f"{dataset.path}: .npz takes one descriptor ({known})", hint="give --descriptor NAME"
        )
    if kind == "cif" and name is not None:
        raise DatasetError("CIF holds structures, no descriptors", hint="use npz, csv, parquet or extxyz")


def _rows(dataset: Dataset, selection: str | None) -> np.ndarray:
    if selection is None:
        return np.arange(len(dataset))
    if selection not in dataset.selections:
        raise unknown_name("selection", selection, dataset.selections, dataset.path)
    return np.flatnonzero(dataset.selections[selection].mask)


class _Block:
    """A block of entries with the columns that describe them."""

    def __init__(self, dataset: Dataset, rows: np.ndarray, descriptor: str | None = None) -> None:
        self.batch = dataset.batch(rows)
        self.ids = dataset.entry_column("id", rows)
        self.formulas = dataset.entry_column("formula", rows)
        self.nodes = dataset.entry_column("node_uuid", rows)
        self.info = dataset.properties
        self.values = {name: dataset.column(name, rows) for name in self.info}
        self.status = {name: dataset.status(name, rows) for name in self.info}
        self.described = [] if descriptor is None else descriptor_rows(dataset, descriptor, rows)
        self.descriptor = descriptor

    def __len__(self) -> int:
        return len(self.batch)

    def value(self, name: str, k: int) -> Any:
        """Return one value, None if there is none."""
        if not Status(int(self.status[name][k])).keeps_value:
            return None
        if self.info[name].per == "site":
            return self.values[name][self.batch.ptr[k] : self.batch.ptr[k + 1]]
        value = self.values[name][k]
        return value.item() if value.ndim == 0 else value

    def atoms(self, k: int) -> Atoms:
        """Return ASE Atoms; energy, forces, stress (eV/Å^3) and magmoms as ASE's calculator results."""
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.units import GPa

        atoms = self.batch.to_atoms(k)
        results: dict[str, Any] = {}
        for name in self.info:
            value = self.value(name, k)
            if value is None:
                continue
            if name == "energy":
                results["energy"] = value
            elif name == "forces":
                results["forces"] = value
            elif name == "magmom":
                results["magmoms"] = value
            elif name == "stress":
                results["stress"] = value * GPa
            elif self.info[name].per == "site":
                atoms.arrays[name] = value
            else:
                atoms.info[name] = value
        described = self.described[k] if self.descriptor is not None else None
        if described is not None and self.descriptor is not None:
            place = atoms.info if described.ndim == 1 else atoms.arrays
            place[self.descriptor] = described
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info["entry_id"] = str(self.ids[k])
        return atoms

    def statuses(self, k: int) -> dict[str, str]:
        """Return the statuses that are not ok."""
        labels = {name: Status(int(self.status[name][k])) for name in self.info}
        return {
            f"{name}_status": s.label
            for name, s in labels.items()
            if s not in (Status.OK, Status.NOT_ATTEMPTED)
        }


def _extxyz(
    dataset: Dataset,
    rows: np.ndarray,
    out: Path,
    progress: Callable[[int, int], None],
    descriptor: str | None,
) -> None:
    from ase.io.extxyz import write_extxyz

    with out.open("w") as stream:
        for start in range(0, rows.shape[0], _BLOCK):
            block = _Block(dataset, rows[start : start + _BLOCK], descriptor)
            images = []
            for k in range(len(block)):
                atoms = block.atoms(k)
                atoms.info |= block.statuses(k)
                images.append(atoms)
            write_extxyz(stream, images)
            progress(start + len(block), rows.shape[0])


def _cif(dataset: Dataset, rows: np.ndarray, out: Path, progress: Callable[[int, int], None]) -> None:
    from pymatgen.io.cif import CifWriter

    with out.open("w") as stream:
        for start in range(0, rows.shape[0], _BLOCK):
            chosen = rows[start : start + _BLOCK]
            batch, ids = dataset.batch(chosen), dataset.entry_column("id", chosen)
            for k in range(len(batch)):
                if not batch.pbc[k].any() or abs(np.linalg.det(batch.cell[k])) < 1e-9:
                    raise DatasetError(
                        f"entry {ids[k]} has no cell: CIF holds crystals only", hint="use extxyz"
                    )
                text = str(CifWriter(batch.to_structure(k), significant_figures=10))
                # pymatgen names the block by its formula; the id is unique and leads back to this file.
                body = text.split("\n", 2)[2] if text.startswith("#") else text.split("\n", 1)[1]
                stream.write(f"data_{ids[k]}\n{body}\n")
            progress(start + len(batch), rows.shape[0])


def _ase_db(
    dataset: Dataset,
    rows: np.ndarray,
    out: Path,
    progress: Callable[[int, int], None],
    descriptor: str | None,
) -> None:
    from ase.db import connect

    with connect(out, type="db") as database:
        for start in range(0, rows.shape[0], _BLOCK):
            block = _Block(dataset, rows[start : start + _BLOCK], descriptor)
            for k in range(len(block)):
                atoms = block.atoms(k)
                info = dict(atoms.info)
                entry_id = info.pop("entry_id")
                # ASE keeps scalars as searchable keys, arrays as data.
                # `__` separates stage and property here; ASE's keys are plain words.
                scalars = {
                    n.replace("-", "_"): v for n, v in info.items() if isinstance(v, float | int) and v == v
                }
                arrays = {n: v for n, v in info.items() if isinstance(v, np.ndarray)}
                arrays |= {n: v for n, v in atoms.arrays.items() if n not in ("numbers", "positions")}
                uuid = uuid_text(block.nodes[k])
                extra = {"node_uuid": uuid} if uuid else {}
                database.write(
                    atoms,
                    key_value_pairs={"entry_id": entry_id, **block.statuses(k), **scalars, **extra},
                    data=arrays,
                )
            progress(start + len(block), rows.shape[0])


def _table(dataset: Dataset, rows: np.ndarray, out: Path, kind: str, descriptor: str | None) -> None:
    frame = dataset.to_pandas(rows=rows)
    units = dict(frame.attrs["units"])
    if descriptor is not None:
        import pandas as pd

        more = descriptor_frame(dataset, descriptor, rows)
        units |= more.attrs["units"]
        more.attrs = frame.attrs = {}
        frame = pd.concat([frame.reset_index(drop=True), more], axis=1)
    labels = np.array([s.label for s in Status])
    for name in frame.columns:
        if name.endswith("_status"):
            frame[name] = labels[frame[name].to_numpy()]
    if kind == "csv":
        with out.open("w", newline="") as stream:
            stream.write("# units: " + ", ".join(f"{k} [{v}]" for k, v in units.items()) + "\n")
            frame.to_csv(stream, index=False)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame.attrs = {}
    table = pa.Table.from_pandas(frame, preserve_index=False)
    fields = [f.with_metadata({"units": units[f.name]}) if f.name in units else f for f in table.schema]
    schema = pa.schema(
        fields,
        metadata={**(table.schema.metadata or {}), b"dataset_id": dataset.metadata.dataset_id.encode()},
    )
    pq.write_table(table.cast(schema), out)

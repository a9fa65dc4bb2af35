"""Check a file against the format: `validate_dataset`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from matcompute.dataset.descriptor_rules import check_descriptors
from matcompute.dataset.opening import check_header, missing_parts, open_hdf5
from matcompute.dataset.provenance import Provenance, uuid_text
from matcompute.dataset.schema import check_schema
from matcompute.dataset.status import Quality, Status
from matcompute.dataset.tables import read_provenance
from matcompute.dataset.violations import Report, Violation
from matcompute_kernels import Batch, structure_hash
from matcompute_kernels.elements import MAX_Z
from matcompute_kernels.formula import formula_bytes

__all__ = ["Violation", "validate_dataset"]

_BLOCK = 65536


def validate_dataset(
    path: str | Path,
    *,
    release: bool = False,
    limit: int = 1000,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Violation]:
    """Check a dataset file and name the dataset and row of every violation.

    Parameters
    ----------
    path
        The file.
    release
        Apply also what a release needs: title, domain, licence, campaign, and a chain from every value to a source.
    limit
        Rows reported one by one for each dataset and rule; the rest are counted.
    on_progress
        Called with (steps done, steps in all).

    Returns
    -------
    list of Violation
        Empty if the file is valid.

    Raises
    ------
    DatasetFileError
        If the file cannot be opened, is no dataset, or is of another format version.
    """
    path = Path(path)
    file = open_hdf5(path)
    try:
        check_header(file, path)
        report = Report(limit)
        for name in missing_parts(file):
            report.add(f"/{name}", "schema", "is missing")
        if report.found:
            return report.finish()
        check_schema(file, report, release=release)
        # Damaged chunks first: what cannot be read cannot be checked further.
        datasets: list[h5py.Dataset] = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        datasets = [d for d in datasets if not d.is_scale]
        steps = len(datasets) + 1
        for done, dataset in enumerate(datasets):
            _checksums(dataset, report)
            if on_progress is not None:
                on_progress(done, steps)
        if not any(v.rule in {"checksum", "shape", "dtype"} for v in report.found):
            _values(file, report, release=release)
        if on_progress is not None:
            on_progress(steps, steps)
        return report.finish()
    finally:
        file.close()


def _checksums(dataset: h5py.Dataset, report: Report) -> None:
    """Read every chunk once; HDF5 compares its fletcher32 checksum."""
    step = max(dataset.chunks[0] if dataset.chunks else _BLOCK, 1)
    large = step * 16
    for start in range(0, dataset.shape[0], large):
        try:
            dataset[start : start + large]
        except OSError:
            for row in range(start, min(start + large, dataset.shape[0]), step):
                try:
                    dataset[row : row + step]
                except OSError as error:
                    last = min(row + step, dataset.shape[0]) - 1
                    reason = str(error).strip().splitlines()[0]
                    report.add(dataset.name, "checksum", f"rows {row} to {last} are damaged: {reason}", row)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK))


def _values(file: h5py.File, report: Report, *, release: bool) -> None:
    _ids(file, report)
    if not _ragged(file, report):
        return
    n = file["entries/id"].shape[0]
    sizes = {
        "method_index": file["methods/name"].shape[0],
        "source_index": file["sources/path"].shape[0],
    }
    known_quality = sum(q.value for q in Quality)
    for rows in _blocks(n):
        for name, size in sizes.items():
            index = file[f"entries/{name}"][rows]
            bad = (index < -1) | (index >= size)
            report.rows(
                f"/entries/{name}", "index", bad, f"points outside the {size} rows of its table", rows.start
            )
        unknown = (file["entries/quality"][rows] & ~np.uint32(known_quality)) != 0
        report.rows("/entries/quality", "flags", unknown, "has an unknown flag", rows.start)
        _structures(file, report, rows)
    processes = file["provenance/process_uuid"].shape[0]
    for name in file["results"]:
        if name.endswith("_status"):
            _property(file, report, name.removesuffix("_status"), processes)
    for name, dataset in file["selections"].items():
        for rows in _blocks(n):
            report.rows(f"/selections/{name}", "flags", dataset[rows] > 1, "is neither 0 nor 1", rows.start)
        outside = [row for row in dataset.attrs.get("processes", []) if not 0 <= row < processes]
        if outside:
            text = f"row {outside[0]} lies outside the {processes} rows of /provenance"
            report.add(f"/selections/{name}@processes", "index", text)
    check_descriptors(file, report)
    _provenance(file, report, release=release)


def _ids(file: h5py.File, report: Report) -> None:
    ids = file["entries/id"][:].astype("S")
    report.rows("/entries/id", "ids", ids == b"", "is empty")
    order = np.argsort(ids, kind="stable")
    again = np.zeros(ids.shape[0], dtype=bool)
    again[order[1:][ids[order][1:] == ids[order][:-1]]] = True
    report.rows("/entries/id", "ids", again & (ids != b""), "occurs a second time")


def _ragged(file: h5py.File, report: Report) -> bool:
    """Check that the site ranges follow one another and cover all sites."""
    size = file["entries/row_size"][:].astype(np.int64)
    start = file["entries/site_start"][:]
    m = file["sites/position"].shape[0]
    report.rows("/entries/row_size", "ragged", size < 0, "is negative")
    expected = np.cumsum(size) - size
    wrong = start != expected
    # One wrong row_size shifts all that follow: name the first row only.
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        report.add(
            "/entries/site_start",
            "ragged",
            f"is {start[row]}, the rows before it end at {expected[row]}",
            row,
        )
    if size.sum() != m:
        report.add("/entries/row_size", "ragged", f"sizes add up to {size.sum()}, there are {m} sites")
    return not (wrong.any() or size.sum() != m or (size < 0).any())


def _structures(file: h5py.File, report: Report, rows: slice) -> None:
    entries = file["entries"]
    size = entries["row_size"][rows].astype(np.int64)
    ptr = np.concatenate([[0], np.cumsum(size)])
    first = int(entries["site_start"][rows.start])
    sites = slice(first, first + int(ptr[-1]))
    numbers, positions = file["sites/atomic_number"][sites], file["sites/position"][sites]
    cell, pbc = entries["cell"][rows], entries["pbc"][rows]
    bad_cell = ~np.isfinite(cell).all(axis=(1, 2))
    report.rows("/entries/cell", "finite-cell", bad_cell, "is not finite", rows.start)
    with np.errstate(invalid="ignore"):
        flat = (
            ~bad_cell
            & (np.abs(np.linalg.det(np.where(np.isfinite(cell), cell, 0))) < 1e-9)
            & (pbc == 1).all(axis=1)
        )
    report.rows(
        "/entries/cell", "finite-cell", flat, "is periodic in three directions and has no volume", rows.start
    )
    report.rows("/entries/pbc", "pbc", (pbc > 1).any(axis=1), "is neither 0 nor 1", rows.start)
    report.rows("/entries/row_size", "ragged", size == 0, "has no site", rows.start)
    bad_number = (numbers == 0) | (numbers > MAX_Z)
    report.rows("/sites/atomic_number", "species", bad_number, "is not an element", first)
    bad_position = ~np.isfinite(positions).all(axis=1)
    report.rows("/sites/position", "finite-position", bad_position, "is not finite", first)
    if bad_number.any() and numbers.max() > MAX_Z:
        return
    batch = Batch(numbers, positions, cell, pbc.astype(bool), ptr)
    wrong = structure_hash(batch) != entries["structure_hash"][rows].astype("S32")
    report.rows(
        "/entries/structure_hash", "hash", wrong, "does not belong to the structure in this row", rows.start
    )
    formulas = formula_bytes(numbers, ptr)
    wrong = formulas != entries["formula"][rows].astype("S")
    report.rows(
        "/entries/formula", "formula", wrong, "does not belong to the structure in this row", rows.start
    )


def _property(file: h5py.File, report: Report, name: str, processes: int) -> None:
    results = file["results"]
    per_site = name in file["sites"]
    path = f"sites/{name}" if per_site else f"results/{name}"
    if path not in file or f"{name}_process" not in results:
        return  # reported by the schema
    dataset = file[path]
    for rows in _blocks(file["entries/id"].shape[0]):
        status, process = results[f"{name}_status"][rows], results[f"{name}_process"][rows]
        report.rows(
            f"/results/{name}_status", "flags", status > max(Status), "is no known status", rows.start
        )
        outside = (process < -1) | (process >= processes)
        where = f"/results/{name}_process"
        report.rows(
            where, "index", outside, f"points outside the {processes} rows of /provenance", rows.start
        )
        if processes:
            orphan = (process == -1) & (status == Status.OK)
            report.rows(where, "provenance", orphan, "a value without the process that made it", rows.start)
        keeps = (status == Status.OK) | (status == Status.NOT_CONVERGED)
        first = 0
        if per_site:
            sizes = file["entries/row_size"][rows]
            first = int(file["entries/site_start"][rows.start])
            values = dataset[first : first + int(sizes.sum())]
            ok, keeps = np.repeat(status == Status.OK, sizes), np.repeat(keeps, sizes)
        else:
            values, ok, first = dataset[rows], status == Status.OK, rows.start
        flat = values.reshape(values.shape[0], int(np.prod(values.shape[1:])))
        if flat.dtype.kind == "f":
            report.rows(
                f"/{path}",
                "nan",
                ok & ~np.isfinite(flat).all(axis=1),
                "is not finite and its status is ok",
                first,
            )
            stray = ~keeps & ~np.isnan(flat).all(axis=1)
            report.rows(
                f"/{path}", "status", stray, "has a value, but its status says that there is none", first
            )
        elif flat.dtype.kind == "i":
            stray = ~keeps & (flat != -1).any(axis=1)
            report.rows(
                f"/{path}", "status", stray, "has a value, but its status says that there is none", first
            )


def _provenance(file: h5py.File, report: Report, *, release: bool) -> None:
    group = file["provenance"]
    broken = False
    for side in ("input", "output"):
        size = group[f"{side}_row_size"][:].astype(np.int64)
        edges = group[f"{side}_uuid"].shape[0]
        report.rows(f"/provenance/{side}_row_size", "ragged", size < 0, "is negative")
        if size.sum() != edges:
            report.add(
                f"/provenance/{side}_row_size",
                "ragged",
                f"sizes add up to {size.sum()}, there are {edges} edges",
            )
            broken = True
        zero = ~group[f"{side}_uuid"][:].any(axis=1)
        report.rows(f"/provenance/{side}_uuid", "provenance", zero, "edge without a node UUID")
        broken |= bool(zero.any())
    uuids = group["process_uuid"][:]
    zero = ~uuids.any(axis=1)
    report.rows("/provenance/process_uuid", "provenance", zero, "process without a UUID")
    _, first = np.unique(uuids, axis=0, return_index=True) if len(uuids) else (None, np.empty(0, int))
    again = np.ones(len(uuids), dtype=bool)
    again[first] = False
    report.rows("/provenance/process_uuid", "provenance", again, "process occurs a second time")
    methods = file["methods/name"].shape[0]
    index = group["process_method"][:]
    outside = (index < -1) | (index >= methods)
    report.rows(
        "/provenance/process_method", "index", outside, f"points outside the {methods} rows of /methods"
    )
    if release and not broken and not zero.any():
        _chains(file, report, read_provenance(file))


def _chains(file: h5py.File, report: Report, provenance: Provenance) -> None:
    """Every process that made a value must lead back to a source node."""
    sources = {uuid_text(u) for u in file["sources/node_uuid"][:]} - {""}
    producers = provenance.producers()
    reaches: dict[int, bool] = {}

    def walk(start: int) -> bool:
        seen, stack = {start}, [start]
        while stack:
            for _, node in provenance[stack.pop()].inputs:
                if node in sources:
                    return True
                maker = producers.get(node)
                if maker is not None and maker not in seen:
                    seen.add(maker)
                    stack.append(maker)
        return False

    found = [
        dataset
        for group in ("results", "descriptors")
        for name, dataset in file.get(group, {}).items()
        if name.endswith("_process") and f"{name.removesuffix('_process')}_status" in file[group]
    ]
    for dataset in found:
        status: Any = file[f"{dataset.name.removesuffix('_process')}_status"][:]
        used: np.ndarray = dataset[:]
        if len(provenance) == 0:
            report.rows(
                dataset.name,
                "provenance",
                status == Status.OK,
                "a value without the process that made it",
            )
            continue
        for row in np.unique(used[(status == Status.OK) & (used >= 0)]).tolist():
            if row not in reaches:
                reaches[row] = walk(row)
                if not reaches[row]:
                    report.add(
                        "/provenance/process_uuid",
                        "provenance",
                        "no chain from this process to a source",
                        row,
                    )

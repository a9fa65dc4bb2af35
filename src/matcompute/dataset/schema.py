"""Rules on the shape of a file: groups, types, filters, dimension scales, units, root attributes."""

from __future__ import annotations

import h5py
import numpy as np

from matcompute.dataset.errors import DatasetError
from matcompute.dataset.h5io import FILTERS, MAX_ENTRIES, get_attr
from matcompute.dataset.layout import ENTRY_COLUMNS, TEXT_COLUMNS
from matcompute.dataset.status import Status
from matcompute.dataset.tables import read_metadata
from matcompute.dataset.violations import Report

__all__ = ["check_schema"]

_FLETCHER_ONLY = (h5py.h5z.FILTER_FLETCHER32,)
#: Newest superblock that ``libver`` v110 writes.
_MAX_SUPERBLOCK = 3


def check_schema(file: h5py.File, report: Report, *, release: bool) -> None:
    """Check everything that needs no values."""
    _root(file, report, release)
    file.visititems(lambda name, item: _item(f"/{name}", item, report))
    _links("/", file, report)
    _entries(file, report)
    _sites(file, report)
    _results(file, report)


def _root(file: h5py.File, report: Report, release: bool) -> None:
    _attributes("/", file, report)
    version = file.id.get_create_plist().get_version()[0]
    if version > _MAX_SUPERBLOCK:
        report.add("/", "libver", f"superblock version {version}: readers of HDF5 1.10 cannot open it")
    try:
        metadata = read_metadata(file)
    except (DatasetError, ValueError, TypeError) as error:
        report.add("/", "metadata", str(error).splitlines()[0])
        return
    if release:
        for name in ("title", "domain", "license", "dataset_id", "campaign_uuid", "created"):
            if not getattr(metadata, name):
                report.add(f"/@{name}", "release", f"a release needs {name}")


def _links(path: str, group: h5py.Group, report: Report) -> None:
    """Nothing may live outside the file: an external part that is missing reads as a hole."""
    for name in group:
        link = group.get(name, getlink=True)
        here = f"{path.rstrip('/')}/{name}"
        if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
            report.add(here, "links", "external and soft links are not allowed")
        elif group.get(name, getclass=True) is h5py.Group:
            _links(here, group[name], report)


def _attributes(path: str, item: h5py.HLObject, report: Report) -> None:
    for name in item.attrs:
        if name in {"DIMENSION_LIST", "REFERENCE_LIST"}:  # HDF5's own bookkeeping of the scales
            continue
        kind = h5py.h5a.open(item.id, name.encode()).get_type()
        if isinstance(kind, h5py.h5t.TypeVlenID) or (
            isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
        ):
            report.add(f"{path}@{name}", "no-vlen", "attribute has a variable length")


def _item(path: str, item: h5py.HLObject, report: Report) -> None:
    _attributes(path, item, report)
    if not isinstance(item, h5py.Dataset):
        return
    kind = item.id.get_type()
    if isinstance(kind, h5py.h5t.TypeStringID):
        if kind.is_variable_str():
            report.add(path, "no-vlen", "text has a variable length")
        elif kind.get_cset() != h5py.h5t.CSET_UTF8:
            report.add(path, "utf-8", "text is not marked as UTF-8")
    elif not isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID):
        report.add(
            path, "dtype", f"type {kind.__class__.__name__} is not an integer, a float or fixed-width text"
        )
    plist = item.id.get_create_plist()
    if plist.get_layout() != h5py.h5d.CHUNKED:
        report.add(path, "filters", "is not chunked (a virtual or contiguous dataset has no checksums)")
        return
    filters = tuple(plist.get_filter(k)[0] for k in range(plist.get_nfilters()))
    per_site_descriptor = path.startswith("/descriptors/") and item.dtype == np.float32
    if filters != FILTERS and not (per_site_descriptor and filters == _FLETCHER_ONLY):
        report.add(path, "filters", f"filters {list(filters)} instead of shuffle, gzip, fletcher32")
    if not item.is_scale:
        for axis in range(item.ndim):
            scales = item.dims[axis].values()
            if not scales:
                report.add(path, "dimension-scales", f"dimension {axis} has no scale")
            elif scales[0].shape != (item.shape[axis],):
                size = scales[0].shape[0]
                report.add(
                    path, "dimension-scales", f"dimension {axis} is {item.shape[axis]}, its scale {size}"
                )


def _shape(report: Report, file: h5py.File, path: str, kinds: str, shape: tuple[int, ...]) -> None:
    dataset = file[path]
    if dataset.dtype.kind not in kinds:
        report.add(f"/{path}", "dtype", f"type {dataset.dtype} is not one of kind '{kinds}'")
    if dataset.shape != shape:
        report.add(f"/{path}", "shape", f"shape {dataset.shape}, expected {shape}")


def _entries(file: h5py.File, report: Report) -> None:
    n = file["entries/id"].shape[0]
    if n > MAX_ENTRIES:
        report.add("/entries", "max-entries", f"{n:,} entries, at most {MAX_ENTRIES:,} are allowed")
    for name, info in ENTRY_COLUMNS.items():
        _shape(report, file, f"entries/{name}", info.dtype[0], (n, *info.tail))
        if info.units and not get_attr(file[f"entries/{name}"], "units"):
            report.add(f"/entries/{name}", "units", "has no units")
    for name in TEXT_COLUMNS:
        _shape(report, file, f"entries/{name}", "S", (n,))
    for name in file["selections"]:
        _shape(report, file, f"selections/{name}", "u", (n,))


def _sites(file: h5py.File, report: Report) -> None:
    m = file["sites/position"].shape[0]
    for name, dataset in file["sites"].items():
        _shape(report, file, f"sites/{name}", "ifu", (m, *dataset.shape[1:]))
        if not get_attr(dataset, "units"):
            report.add(f"/sites/{name}", "units", "has no units")
        if name not in ("position", "atomic_number") and f"{name}_status" not in file["results"]:
            report.add(f"/sites/{name}", "status", f"/results/{name}_status is missing")


def _results(file: h5py.File, report: Report) -> None:
    n = file["entries/id"].shape[0]
    results = file["results"]
    meanings = " ".join(s.label for s in Status)
    for name, dataset in results.items():
        path = f"/results/{name}"
        if name.endswith("_status"):
            _shape(report, file, path[1:], "u", (n,))
            if get_attr(dataset, "flag_meanings") != meanings:
                report.add(path, "flags", "flag_meanings are not those of the format")
            base = name.removesuffix("_status")
            if base not in results and base not in file["sites"]:
                report.add(path, "status", f"there is no property '{base}'")
        elif name.endswith("_process"):
            _shape(report, file, path[1:], "i", (n,))
        else:
            _shape(report, file, path[1:], "ifu", (n, *dataset.shape[1:]))
            for companion in (f"{name}_status", f"{name}_process"):
                if companion not in results:
                    report.add(path, "status", f"/results/{companion} is missing")
            for attribute in ("units", "long_name", "property_definition"):
                if not get_attr(dataset, attribute):
                    report.add(path, "units", f"has no {attribute}")

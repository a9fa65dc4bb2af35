"""A dataset at a glance: `summarize`."""

from __future__ import annotations

from typing import Any

import numpy as np

from matcompute.dataset.descriptor_info import read_info
from matcompute.dataset.descriptors import descriptor_names, descriptor_status
from matcompute.dataset.reader import Dataset
from matcompute.dataset.rows import take
from matcompute.dataset.status import Quality, Status
from matcompute_kernels.elements import SYMBOLS

__all__ = ["summarize"]


def summarize(dataset: Dataset) -> dict[str, Any]:
    """Return counts, ranges and the metadata of a dataset, JSON-able.

    Returns
    -------
    dict
        ``metadata``, ``format_version``, ``entries``, ``sites``, ``bytes``, ``elements`` (symbol → entries that hold
        it), ``n_sites`` (smallest, median, largest), ``properties`` (name → units, statuses, min, mean, max),
        ``descriptors`` (name → kernel, parameters, per, layout, features, statuses), ``quality``, ``selections``,
        ``methods``, ``sources``, ``processes``.
    """
    sizes = dataset.entry_column("row_size")
    properties: dict[str, Any] = {}
    for name, info in dataset.properties.items():
        status = dataset.status(name)
        counts = np.bincount(status, minlength=len(Status))
        item: dict[str, Any] = {
            "units": info.units,
            "per": info.per,
            "shape": list(info.shape),
            "long_name": info.long_name,
            "statuses": {s.label: int(counts[s]) for s in Status if counts[s]},
        }
        if info.per == "entry" and not info.shape:
            values = dataset.column(name)[(status == Status.OK) | (status == Status.NOT_CONVERGED)]
            if values.size:
                item |= {"min": values.min().item(), "mean": float(values.mean()), "max": values.max().item()}
        properties[name] = item
    quality = dataset.entry_column("quality")
    return {
        "path": dataset.path.name,
        "format_version": dataset.format_version,
        "bytes": dataset.path.stat().st_size,
        "metadata": {name: getattr(dataset.metadata, name) for name in dataset.metadata.names()},
        "entries": len(dataset),
        "sites": dataset.n_sites,
        "n_sites": [int(sizes.min()), float(np.median(sizes)), int(sizes.max())] if sizes.size else [],
        "elements": _elements(dataset),
        "properties": properties,
        "descriptors": {name: _descriptor(dataset, name) for name in descriptor_names(dataset)},
        "quality": {str(q.name).lower(): int(((quality & q.value) != 0).sum()) for q in Quality},
        "selections": {
            name: {"passed": int(s.mask.sum()), "expression": s.expression}
            for name, s in dataset.selections.items()
        },
        "methods": [m.name for m in dataset.methods],
        "sources": [s.path for s in dataset.sources],
        "processes": len(dataset.provenance),
    }


def _descriptor(dataset: Dataset, name: str) -> dict[str, Any]:
    info = read_info(dataset.file, name)
    counts = np.bincount(descriptor_status(dataset, name), minlength=len(Status))
    return {
        "kernel": info.kernel,
        "parameters": dict(info.parameters),
        "per": info.per,
        "layout": info.layout,
        "n_features": info.n_features,
        "units": info.units,
        "statuses": {s.label: int(counts[s]) for s in Status if counts[s]},
    }


def _elements(dataset: Dataset) -> dict[str, int]:
    """Return for each element the number of entries that hold it."""
    counts = np.zeros(256, dtype=np.int64)
    for start in range(0, len(dataset), 65536):
        rows = slice(start, min(start + 65536, len(dataset)))
        sites, ptr = dataset.site_selection(rows)
        numbers = take(dataset.file["sites/atomic_number"], sites)
        owner = np.repeat(np.arange(ptr.shape[0] - 1), np.diff(ptr))
        pairs = np.unique(owner * 256 + numbers)
        counts += np.bincount(pairs % 256, minlength=256)
    return {SYMBOLS[z]: int(counts[z]) for z in np.flatnonzero(counts) if z < len(SYMBOLS)}

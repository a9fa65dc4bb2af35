"""The small tables of a file: root attributes, ``/methods``, ``/sources``, ``/selections``, ``/provenance``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from matcompute.dataset.h5io import (
    ENTRY_CHUNK,
    FORMAT,
    FORMAT_VERSION,
    TABLE_CHUNK,
    attach,
    get_attr,
    make_dataset,
    read,
    set_attr,
    set_scale,
    text_dtype,
    to_text,
)
from matcompute.dataset.metadata import Metadata, Method, Selection, Source
from matcompute.dataset.provenance import ProcessRecord, Provenance, uuid_array, uuid_text

__all__ = [
    "read_metadata",
    "read_methods",
    "read_provenance",
    "read_selections",
    "read_sources",
    "write_metadata",
    "write_methods",
    "write_provenance",
    "write_selection",
    "write_sources",
]


def write_metadata(file: h5py.File, metadata: Metadata) -> None:
    """Write the root attributes."""
    set_attr(file, "format", FORMAT)
    set_attr(file, "format_version", FORMAT_VERSION)
    set_attr(file, "Conventions", "CF-1.11")
    for name in Metadata.names():
        set_attr(file, name, getattr(metadata, name))


def read_metadata(file: h5py.File) -> Metadata:
    """Read the root attributes."""
    values: dict[str, Any] = {name: get_attr(file, name) for name in Metadata.names()}
    values["contributors"] = tuple(json.loads(values["contributors"] or "[]"))
    values["software"] = json.loads(values["software"] or "{}")
    return Metadata(**values)


def _put(
    group: h5py.Group, name: str, data: np.ndarray, dims: Sequence[str], chunk: int = TABLE_CHUNK
) -> h5py.Dataset:
    dataset = make_dataset(group, name, data.dtype, data.shape[1:], chunk)
    dataset.resize(data.shape[0], axis=0)
    if data.shape[0]:
        dataset[...] = data
    attach(group.file, dataset, dims)
    return dataset


def _text(values: Sequence[str]) -> np.ndarray:
    raw = [v.encode() for v in values]
    width = max((len(r) for r in raw), default=1)
    return np.array(raw, dtype=f"S{max(width, 1)}").astype(text_dtype(width))


def _fresh(file: h5py.File, name: str, dims: dict[str, int]) -> h5py.Group:
    """Remove a table with its scales and make room for it anew."""
    if name in file:
        for item in file[name].values():
            for axis in range(len(item.dims)):
                for scale in list(item.dims[axis].values()):
                    item.dims[axis].detach_scale(scale)
        del file[name]
    for dim, size in dims.items():
        set_scale(file, dim, size)
    return file.create_group(name)


_METHOD_TEXT = ("name", "code", "code_version", "model", "model_sha256", "potential_sha256", "centre")


def write_methods(file: h5py.File, methods: Sequence[Method]) -> None:
    """Write ``/methods``."""
    group = _fresh(file, "methods", {"method": len(methods)})
    for name in _METHOD_TEXT:
        _put(group, name, _text([getattr(m, name) for m in methods]), ["method"])
    _put(group, "parameters", _text([json.dumps(m.parameters, sort_keys=True) for m in methods]), ["method"])
    for name, units, long_name in (
        ("cutoff", "eV", "plane-wave cut-off"),
        ("k_density", "1", "k-points per reciprocal atom"),
    ):
        dataset = _put(group, name, np.array([getattr(m, name) for m in methods], dtype="f8"), ["method"])
        set_attr(dataset, "units", units)
        set_attr(dataset, "long_name", long_name)


def read_methods(file: h5py.File) -> list[Method]:
    """Read ``/methods``."""
    group = file["methods"]
    text = {name: to_text(read(group[name])).tolist() for name in (*_METHOD_TEXT, "parameters")}
    numbers = {name: read(group[name]).tolist() for name in ("cutoff", "k_density")}
    return [
        Method(
            **{name: text[name][row] for name in _METHOD_TEXT},
            **{name: values[row] for name, values in numbers.items()},
            parameters=json.loads(text["parameters"][row] or "{}"),
        )
        for row in range(len(text["name"]))
    ]


def write_sources(file: h5py.File, sources: Sequence[Source]) -> None:
    """Write ``/sources``."""
    group = _fresh(file, "sources", {"source": len(sources), "uuid_byte": 16})
    _put(group, "path", _text([s.path for s in sources]), ["source"])
    _put(group, "sha256", _text([s.sha256 for s in sources]), ["source"])
    _put(group, "node_uuid", uuid_array(s.node_uuid for s in sources), ["source", "uuid_byte"])


def read_sources(file: h5py.File) -> list[Source]:
    """Read ``/sources``."""
    group = file["sources"]
    uuids = read(group["node_uuid"])
    paths, digests = to_text(read(group["path"])).tolist(), to_text(read(group["sha256"])).tolist()
    return [Source(p, d, uuid_text(u) or None) for p, d, u in zip(paths, digests, uuids)]


def write_selection(file: h5py.File, selection: Selection, position: int) -> None:
    """Write one dataset of ``/selections``; ``position`` keeps the order of the gates."""
    group = file.require_group("selections")
    if selection.name in group:
        old = group[selection.name]
        for scale in list(old.dims[0].values()):
            old.dims[0].detach_scale(scale)
        del group[selection.name]
    dataset = _put(
        group, selection.name, np.asarray(selection.mask, dtype=bool).astype("u1"), ["entry"], ENTRY_CHUNK
    )
    set_attr(dataset, "expression", selection.expression)
    set_attr(dataset, "inputs", list(selection.inputs))
    dataset.attrs.create("position", position, dtype="i4")
    if selection.processes:
        dataset.attrs.create("processes", np.array(selection.processes, dtype="i4"))
    dataset.attrs.create("flag_values", np.array([0, 1], dtype="u1"))
    set_attr(dataset, "flag_meanings", "not_selected selected")


def read_selections(file: h5py.File) -> dict[str, Selection]:
    """Read ``/selections``, in the order of the gates."""
    group = file["selections"]
    ordered = sorted(group.items(), key=lambda item: (int(item[1].attrs.get("position", 0)), item[0]))
    return {
        name: Selection(
            name,
            read(item).astype(bool),
            get_attr(item, "expression"),
            tuple(json.loads(get_attr(item, "inputs", "[]"))),
            tuple(int(row) for row in np.atleast_1d(item.attrs.get("processes", []))),
        )
        for name, item in ordered
    }


_PROCESS_TEXT = ("label", "type", "code", "code_version", "computer", "model_sha256")


def write_provenance(file: h5py.File, provenance: Provenance) -> None:
    """Write ``/provenance``: one row a process, its edges as CF contiguous ragged arrays."""
    processes = provenance.processes
    edges = {
        side: [edge for p in processes for edge in getattr(p, f"{side}s")] for side in ("input", "output")
    }
    sizes = {f"{side}_edge": len(found) for side, found in edges.items()}
    group = _fresh(file, "provenance", {"process": len(processes), "uuid_byte": 16, **sizes})
    _put(group, "process_uuid", provenance.process_uuid, ["process", "uuid_byte"])
    for name in _PROCESS_TEXT:
        _put(group, f"process_{name}", _text([getattr(p, name) for p in processes]), ["process"])
    _put(group, "process_method", np.array([p.method_index for p in processes], dtype="i4"), ["process"])
    created = _put(
        group, "process_created", np.array([p.created for p in processes], dtype="i8"), ["process"]
    )
    set_attr(created, "long_name", "creation in microseconds since 1970-01-01 UTC, -1 unknown")
    for side, found in edges.items():
        counts = np.array([len(getattr(p, f"{side}s")) for p in processes], dtype="i4")
        dataset = _put(group, f"{side}_row_size", counts, ["process"])
        set_attr(dataset, "sample_dimension", f"{side}_edge")
        _put(group, f"{side}_label", _text([label for label, _ in found]), [f"{side}_edge"])
        _put(group, f"{side}_uuid", uuid_array(node for _, node in found), [f"{side}_edge", "uuid_byte"])


def read_provenance(file: h5py.File) -> Provenance:
    """Read ``/provenance``."""
    group = file["provenance"]
    uuids = [uuid_text(u) for u in read(group["process_uuid"])]
    text = {name: to_text(read(group[f"process_{name}"])).tolist() for name in _PROCESS_TEXT}
    methods, created = read(group["process_method"]).tolist(), read(group["process_created"]).tolist()
    ragged = {}
    for side in ("input", "output"):
        ends = np.cumsum(read(group[f"{side}_row_size"])).tolist()
        labels = to_text(read(group[f"{side}_label"])).tolist()
        nodes = [uuid_text(u) for u in read(group[f"{side}_uuid"])]
        pairs = list(zip(labels, nodes))
        ragged[side] = [tuple(pairs[a:b]) for a, b in zip([0, *ends], ends)]
    return Provenance(
        tuple(
            ProcessRecord(
                uuid=uuids[row],
                **{name: text[name][row] for name in _PROCESS_TEXT},
                inputs=ragged["input"][row],
                outputs=ragged["output"][row],
                method_index=methods[row],
                created=created[row],
            )
            for row in range(len(uuids))
        )
    )

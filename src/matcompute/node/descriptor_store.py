"""The chunks of a finished describe job, written into ``/descriptors`` of its dataset file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset import Dataset, DatasetWriter, Status
from matcompute.dataset.descriptors import (
    BlockSparse,
    DescriptorInfo,
    remove_descriptor,
    write_descriptor,
    write_status,
)
from matcompute.dataset.h5io import set_attr
from matcompute.node.errors import TaskFileError
from matcompute_kernels import KernelInputError
from matcompute_kernels.drivers import DirectorySink, Ragged, iter_ragged

if TYPE_CHECKING:
    from matcompute.node.descriptors import DescriptorAdapter, DescriptorParameters

__all__ = ["store_chunks"]

#: Messages beyond this are not stored (an attribute of HDF5 has little room).
_TEXT_BYTES = 32_000
_UNDEFINED = "a value is not finite: the descriptor is not defined for this structure"


def store_chunks(
    path: Path,
    name: str,
    adapter: DescriptorAdapter,
    parameters: DescriptorParameters,
    sink: DirectorySink,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the rows, chunk by chunk, and a status per entry into the file.

    Parameters
    ----------
    path
        The dataset that was described.
    name
        Name of the descriptor in it.
    adapter, parameters
        What was computed.
    sink
        The finished job's.
    overwrite
        Replace a descriptor of this name.

    Returns
    -------
    dict
        ``per`` (entry or site), ``layout`` (dense or block-sparse), ``n_features``, ``problems`` (row → text).

    Raises
    ------
    TaskFileError
        If no structure at all could be described.
    """
    per = adapter.per(parameters)
    records = sink.complete()
    problems = sink.problems()
    with Dataset(path) as dataset:
        n_sites = dataset.entry_column("n_sites").astype(np.int64)
    filled = [record for record in records if record.shape[0]]
    if records and not filled:
        row, text = next(iter(problems.items()))
        raise TaskFileError(
            f"{adapter.name} describes none of the {len(n_sites)} structures; structure {row}: {text}"
        )
    sparse = bool(filled) and np.dtype(filled[0].dtype).kind == "V"
    owners = np.repeat(np.arange(len(n_sites)), n_sites) if per == "site" else np.arange(len(n_sites))
    parts: Any
    if sparse:
        shared = Ragged.unpack(sink.read(filled[0])).shared
        width = int(shared["offset"][-1])
        parts = _blocks(sink, shared, n_sites, per == "site")
    else:
        width = int(np.prod(filled[0].shape[1:])) if filled else adapter.width(parameters)
        parts = _rows(sink, owners, width, problems)
    info = DescriptorInfo(
        name=name,
        n_features=width,
        kernel=adapter.name,
        parameters=parameters.keywords(),
        per=per,
        layout="block-sparse" if sparse else "dense",
        dtype="f8" if sparse or not filled else np.dtype(filled[0].dtype).str[1:],
        units=adapter.units,
        long_name=adapter.title,
        definition=adapter.definition,
        labels=_labels(adapter, parameters, width),
    )
    with DatasetWriter.append_to(path) as writer:
        if overwrite:
            remove_descriptor(writer, name)
        write_descriptor(writer, info, parts)
        status = np.full(len(writer), Status.OK, dtype="u1")
        for row, text in problems.items():
            foreign = text.endswith("is not in species")
            status[row] = Status.UNSUPPORTED_SPECIES if foreign else Status.INVALID_INPUT
        write_status(writer, name, status)
        group = writer.file["descriptors"]
        set_attr(group[name], "software", f"{adapter.package} {adapter.version}")
        messages = json.dumps({str(row): text for row, text in sorted(problems.items())})
        if problems and len(messages.encode()) <= _TEXT_BYTES:
            set_attr(group[f"{name}_status"], "messages", messages)
    return {
        "per": per,
        "layout": info.layout,
        "n_features": width,
        "problems": {str(row): text for row, text in sorted(problems.items())},
    }


def _labels(adapter: DescriptorAdapter, parameters: DescriptorParameters, width: int) -> tuple[str, ...]:
    try:
        labels = adapter.labels(parameters)
    except (KernelInputError, TypeError):
        return ()
    return tuple(labels) if len(labels) == width else ()


def _rows(
    sink: DirectorySink, owners: np.ndarray, width: int, problems: dict[int, str]
) -> Iterator[np.ndarray]:
    """The chunks' rows in order, NaN for what has failed; a value that is not finite is a problem too."""
    at = 0
    for _, rows in sink.iter_rows():
        block = rows.reshape(len(rows), width)
        owner = owners[at : at + len(block)]
        at += len(block)
        if block.dtype.kind == "f":
            bad = ~np.isfinite(block).all(axis=1)
            for row in np.unique(owner[bad]).tolist():
                problems.setdefault(row, _UNDEFINED)
            if bad.any():
                block = block.copy()
                block[np.isin(owner, owner[bad])] = np.nan
        yield block


def _blocks(
    sink: DirectorySink, shared: dict[str, np.ndarray], n_sites: np.ndarray, per_site: bool
) -> Iterator[BlockSparse]:
    """The chunks as blocks by species pair, in order; what has failed has none."""
    kinds, offset = shared["kinds"], shared["offset"]
    for record, rows in iter_ragged(sink):
        if rows is None:
            n = int(n_sites[record.start : record.stop].sum()) if per_site else record.stop - record.start
            none = np.zeros((0, 2), "u1"), np.zeros(0, "f4")
            yield BlockSparse(np.zeros(n + 1, np.int64), *none, kinds, offset)
        else:
            ptr, pairs = rows.parts["pairs"]
            yield BlockSparse(ptr, pairs, rows.parts["values"][1], kinds, offset)

"""The result shard: the entries of the input shard, in its order, with final structures, results and reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset import Dataset, DatasetWriter, Method, Quality, Status
from matcompute.dataset.descriptor_info import DescriptorInfo
from matcompute.errors import MatcomputeError
from matcompute.node.errors import NodeError, WriteError
from matcompute_kernels.batch import Batch

if TYPE_CHECKING:
    from matcompute.dataset import PropertyInfo
    from matcompute.dataset.descriptors import BlockSparse
    from matcompute.node.job import Job
    from matcompute.node.records import Record

__all__ = ["method_of", "write_results"]

#: Structures whose descriptors are put together at once.
_PART = 512
#: Columns of ``/entries`` that an entry keeps from the input shard.
_KEPT = ("source_index", "source_line", "node_uuid", "process_uuid")


def write_results(job: Job, records: Mapping[tuple[str, str], Record]) -> None:
    """Write the result shard of a finished job, by replacement.

    Parameters
    ----------
    job
        The job.
    records
        A record of every structure, by key.

    Raises
    ------
    WriteError
        If it cannot be written; the checkpoint holds everything, a rerun writes it.
    """
    ordered = [records[job.key(i)] for i in range(len(job.ids))]
    try:
        _write(job, ordered)
    except NodeError:
        raise
    except (MatcomputeError, OSError) as error:
        text = error.message if isinstance(error, MatcomputeError) else str(error)
        raise WriteError(
            f"cannot write {job.results}: {text}",
            hint="free disk space, then run again: every structure is in the checkpoint",
        ) from error


def _write(job: Job, records: list[Record]) -> None:
    batch = _final_structures(job, records)
    infos = _infos(job, records)
    results, site_results, status = _columns(infos, records, batch)
    statuses = np.array([r.status for r in records], dtype="u1")
    with Dataset(job.folder / job.spec.structures) as shard:
        kept = {name: shard.entry_column(name) for name in _KEPT}
        quality = np.asarray(shard.entry_column("quality")).astype("u4")
        metadata, sources = shard.metadata, shard.sources
    entry = kept | {
        "quality": _quality(quality, statuses, job.spec.task == "relax"),
        "message": [r.message for r in records],
        "attempt": np.array([r.attempt for r in records], dtype="u1"),
    }
    with DatasetWriter(job.results, metadata, overwrite=True) as writer:
        for info in infos.values():
            writer.declare(info)
        for source in sources:
            writer.add_source(source)
        row = writer.add_method(method_of(job))
        entry["method_index"] = np.full(len(records), row, dtype="i4")
        writer.append(
            batch,
            ids=np.asarray(job.ids),
            results=results,
            status=status,
            site_results=site_results,
            entry=entry,
        )
        _write_descriptor(writer, job, records)


def _write_descriptor(writer: DatasetWriter, job: Job, records: list[Record]) -> None:
    """Write the task's descriptor under the name of the stage, if it has one."""
    from matcompute.dataset.descriptors import write_descriptor

    described = job.task.descriptor(job.parameters)
    if described is None:
        return
    given = next((record.descriptor for record in records if record.descriptor), None)
    sparse = given is not None and "kinds" in given
    fields = {
        name: getattr(described, name) for name in ("kernel", "parameters", "per", "units", "long_name")
    }
    info = DescriptorInfo(
        name=job.spec.stage or job.task.default_name(job.parameters),
        n_features=len(described.labels),
        definition=described.definition,
        labels=described.labels,
        layout="block-sparse" if sparse else "dense",
        dtype=described.dtype,
        **fields,
    )
    sites = job.batch.n_sites if info.per == "site" else np.ones(len(records), dtype=np.int64)
    rows: Any = _sparse_rows if sparse else _dense_rows
    parts: Any = (rows(records[a : a + _PART], sites[a : a + _PART], info, given) for a in _starts(records))
    status = np.array([r.status for r in records], dtype="u1")
    write_descriptor(writer, info, parts, status=status)


def _starts(records: list[Record]) -> range:
    return range(0, max(len(records), 1), _PART)


def _dense_rows(records: list[Record], sites: np.ndarray, info: DescriptorInfo, _: Any) -> np.ndarray:
    empty = np.full((int(sites.max(initial=0)), info.n_features), np.nan)
    found = [r.descriptor["values"] if r.descriptor else empty[:n] for r, n in zip(records, sites)]
    return np.concatenate([*found, empty[:0]])


def _sparse_rows(records: list[Record], sites: np.ndarray, _: Any, given: Any) -> BlockSparse:
    """Return the blocks of some structures; one without a descriptor has rows of no block."""
    from matcompute.dataset.descriptors import BlockSparse

    sizes = [
        np.diff(r.descriptor["ptr"]) if r.descriptor else np.zeros(n, "i8") for r, n in zip(records, sites)
    ]
    whole = {
        name: np.concatenate([r.descriptor[name] for r in records if r.descriptor] or [given[name][:0]])
        for name in ("pairs", "values")
    }
    ptr = np.concatenate([[0], np.cumsum(np.concatenate(sizes), dtype=np.int64)])
    return BlockSparse(ptr, whole["pairs"], whole["values"], given["kinds"], given["offset"])


def method_of(job: Job) -> Method:
    """Return the row of ``/methods``: code, version, model, potentials and their SHA-256, functional, parameters."""
    species = job.known_elements(job.batch.numbers)
    described = dict(job.adapter.method_for(job.calculator_parameters, species))
    return Method(
        name=job.adapter.name,
        code=job.adapter.package,
        code_version=job.version,
        model=str(described.pop("model", "")),
        model_sha256=job.model_sha256 or "",
        potential_sha256=job.adapter.potential_sha256(job.calculator_parameters, species),
        cutoff=float(described.pop("cutoff", "nan")),
        parameters={
            "functional": "",
            **described,
            "task": job.spec.task,
            "task_parameters": job.parameters.model_dump(mode="json"),
            "calculator_parameters": job.calculator_parameters,
        },
    )


def _final_structures(job: Job, records: list[Record]) -> Batch:
    start = job.batch
    positions, cell = start.positions.copy(), start.cell.copy()
    for i, record in enumerate(records):
        if record.positions is not None and record.cell is not None:
            positions[start.ptr[i] : start.ptr[i + 1]] = record.positions
            cell[i] = record.cell
    return Batch(start.numbers, positions, cell, start.pbc, start.ptr)


def _infos(job: Job, records: list[Record]) -> dict[str, PropertyInfo]:
    """Return the columns that the task promises, with open lengths taken from the first value."""
    import dataclasses

    infos = {}
    for info in job.task.outputs(job.parameters):
        if -1 in info.shape:
            shapes = (r.values[info.name].shape for r in records if info.name in r.values)
            info = dataclasses.replace(info, shape=next(shapes, (0,)))
        infos[info.name] = info
    return infos


def _columns(
    infos: Mapping[str, PropertyInfo], records: list[Record], batch: Batch
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    results: dict[str, Any] = {}
    site_results: dict[str, Any] = {}
    status: dict[str, Any] = {}
    for name, info in infos.items():
        flags = np.empty(len(records), dtype="u1")
        if info.per == "site":
            data = np.full((len(batch.numbers), *info.shape), info.fill, dtype=info.dtype)
            site_results[name] = data
        else:
            data = np.full((len(records), *info.shape), info.fill, dtype=info.dtype)
            results[name] = data
        for i, record in enumerate(records):
            value: Any
            if name == "cpu_time":
                value = record.cpu_s
            else:
                value = (record.site_values if info.per == "site" else record.values).get(name)
            flags[i] = _flag(record, name, value)
            if value is not None:
                where = slice(batch.ptr[i], batch.ptr[i + 1]) if info.per == "site" else i
                data[where] = value
        status[name] = flags
    return results, site_results, status


def _flag(record: Record, name: str, value: Any) -> int:
    if value is None or not np.all(np.isfinite(value)):
        # Computed, but the calculator does not give this quantity.
        return int(Status.NOT_ATTEMPTED if record.status == Status.OK else record.status)
    if name == "cpu_time" or not Status(record.status).keeps_value:
        # Valid on its own although the task failed: the energies of a fit that failed.
        return int(Status.OK)
    return int(record.status)


def _quality(quality: np.ndarray, statuses: np.ndarray, relaxed: bool) -> np.ndarray:
    ok = statuses == Status.OK
    bits = quality & ~np.uint32(Quality.CONVERGED | Quality.FAILED)
    bits = bits | np.where(ok, np.uint32(Quality.CONVERGED), np.uint32(Quality.FAILED))
    if relaxed:
        bits = np.where(ok, bits | np.uint32(Quality.RELAXED), bits)
    return bits.astype("u4")

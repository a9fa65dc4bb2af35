"""The provenance graph of a set of nodes, gathered by a few set-based queries instead of a walk node by node."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiida.common.links import LinkType
from aiida.orm import CalcJobNode, Computer, Data, Dict, InstalledCode, Node, ProcessNode, QueryBuilder

from matcompute.dataset import ProcessRecord

__all__ = ["Ancestry", "collect_ancestry"]

#: SQLite takes at most 32,766 variables in a statement.
_CHUNK = 5000


@dataclass
class Ancestry:
    """All processes that had a part in making some nodes.

    Attributes
    ----------
    records
        Process UUID → its record, nearest processes first.
    creator
        Data node UUID → UUID of the process that made it (nodes that nothing made are missing).
    """

    records: dict[str, ProcessRecord] = field(default_factory=dict)
    creator: dict[str, str] = field(default_factory=dict)


def collect_ancestry(nodes: Iterable[Node]) -> Ancestry:
    """Return the ancestry of data nodes, by CREATE and INPUT links back to nodes that nothing made."""
    ancestry = Ancestry()
    frontier = {node.pk for node in nodes if node.pk is not None}
    seen_data: set[int] = set()
    seen_processes: set[int] = set()
    while frontier:
        seen_data |= frontier
        makers: set[int] = set()
        for data_uuid, process_pk, process_uuid in _creators(frontier):
            ancestry.creator[data_uuid] = process_uuid
            makers.add(process_pk)
        makers -= seen_processes
        seen_processes |= makers
        frontier = set()
        if makers:
            records, inputs = _records(makers)
            ancestry.records.update(records)
            frontier = inputs - seen_data
    return ancestry


def _chunks(pks: Iterable[int]) -> Iterator[list[int]]:
    ordered = sorted(pks)
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]


def _creators(data: Iterable[int]) -> Iterator[tuple[str, int, str]]:
    for chunk in _chunks(data):
        query = QueryBuilder()
        query.append(ProcessNode, tag="process", project=["id", "uuid"])
        query.append(
            Data,
            with_incoming="process",
            edge_filters={"type": LinkType.CREATE.value},
            filters={"id": {"in": chunk}},
            project=["uuid"],
        )
        for pk, uuid, data_uuid in query.iterall():
            yield data_uuid, pk, uuid


def _records(pks: set[int]) -> tuple[dict[str, ProcessRecord], set[int]]:
    """Return the records of some processes and the pks of their inputs."""
    rows = list(_processes(pks))
    inputs: dict[int, list[tuple[str, str]]] = {}
    outputs: dict[int, list[tuple[str, str]]] = {}
    input_pks: set[int] = set()
    for pk, label, uuid, data_pk in _edges(pks, incoming=True):
        inputs.setdefault(pk, []).append((label, uuid))
        input_pks.add(data_pk)
    for pk, label, uuid, _ in _edges(pks, incoming=False):
        outputs.setdefault(pk, []).append((label, uuid))
    codes = dict(_codes(pks))
    models = dict(_models(pks))
    computers = dict(_computers(pks))
    records = {
        uuid: ProcessRecord(
            uuid=uuid,
            label=label or process_label or "",
            type=str(process_type or "").rpartition(":")[2],
            inputs=tuple(sorted(inputs.get(pk, []))),
            outputs=tuple(sorted(outputs.get(pk, []))),
            code=codes.get(pk, ""),
            code_version=_version(version),
            computer=computers.get(pk, ""),
            model_sha256=models.get(pk, ""),
            created=int(created.timestamp() * 1e6),
        )
        for pk, uuid, label, process_label, process_type, version, created in rows
    }
    return records, input_pks


def _version(version: Any) -> str:
    """Return the version of the package that provides the process (AiiDA notes it on every process node)."""
    return str(version.get("plugin") or "") if isinstance(version, dict) else ""


def _processes(pks: set[int]) -> Iterator[Sequence[Any]]:
    for chunk in _chunks(pks):
        query = QueryBuilder().append(
            ProcessNode,
            filters={"id": {"in": chunk}},
            project=[
                "id",
                "uuid",
                "label",
                "attributes.process_label",
                "process_type",
                "attributes.version",
                "ctime",
            ],
        )
        yield from query.iterall()


def _edges(pks: set[int], *, incoming: bool) -> Iterator[tuple[int, str, str, int]]:
    kind = LinkType.INPUT_CALC if incoming else LinkType.CREATE
    for chunk in _chunks(pks):
        query = QueryBuilder()
        query.append(ProcessNode, tag="process", filters={"id": {"in": chunk}}, project=["id"])
        relation: dict[str, Any] = {"with_outgoing" if incoming else "with_incoming": "process"}
        query.append(
            Data,
            **relation,
            edge_filters={"type": kind.value},
            edge_project=["label"],
            project=["uuid", "id"],
        )
        for pk, uuid, data_pk, label in query.iterall():
            yield pk, label, uuid, data_pk


def _codes(pks: set[int]) -> Iterator[tuple[int, str]]:
    for chunk in _chunks(pks):
        query = QueryBuilder()
        query.append(CalcJobNode, tag="process", filters={"id": {"in": chunk}}, project=["id"])
        query.append(InstalledCode, tag="code", with_outgoing="process", project=["label"])
        query.append(Computer, with_node="code", project=["label"])
        for pk, label, computer in query.iterall():
            yield pk, f"{label}@{computer}"


def _computers(pks: set[int]) -> Iterator[tuple[int, str]]:
    for chunk in _chunks(pks):
        query = QueryBuilder()
        query.append(CalcJobNode, tag="process", filters={"id": {"in": chunk}}, project=["id"])
        query.append(Computer, with_node="process", project=["label"])
        yield from ((pk, label) for pk, label in query.iterall())


def _models(pks: set[int]) -> Iterator[tuple[int, str]]:
    for chunk in _chunks(pks):
        query = QueryBuilder()
        query.append(CalcJobNode, tag="process", filters={"id": {"in": chunk}}, project=["id"])
        query.append(
            Dict,
            with_incoming="process",
            edge_filters={"label": "summary"},
            project=["attributes.model_sha256"],
        )
        yield from ((pk, str(sha256)) for pk, sha256 in query.iterall() if sha256)

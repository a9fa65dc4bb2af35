"""Walk a number back to its source with what the file itself says: `trace_value`. Needs no AiiDA."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from matcompute.dataset.entry import Entry
from matcompute.dataset.metadata import Method
from matcompute.dataset.properties import PropertyInfo
from matcompute.dataset.provenance import ProcessRecord, Provenance
from matcompute.dataset.reader import Dataset
from matcompute.dataset.status import Status

__all__ = ["TraceStep", "trace_value"]


@dataclass(frozen=True)
class TraceStep:
    """One link of the chain, from the number back to the source.

    Parameters
    ----------
    kind
        ``value``, ``process``, ``method``, ``structure`` or ``source``.
    label
        One line for people.
    uuid
        UUID of the process or node, empty if the file has none.
    details
        What else is known, name → text or number.
    """

    kind: str
    label: str
    uuid: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)


def trace_value(dataset: Dataset, entry: str | int, name: str) -> list[TraceStep]:
    """Return the chain of one value: value → process → earlier processes → method → structure → source.

    Parameters
    ----------
    dataset
        An open dataset.
    entry
        Entry id or row.
    name
        Property.

    Raises
    ------
    UnknownNameError
        If the entry or the property is not there.
    """
    info = dataset.property_info(name)
    found = dataset[entry]
    steps = [_value(found, name, info)]
    rows = slice(found.row, found.row + 1)
    row = int(dataset.process(name, rows)[0])
    method = found.method
    if row >= 0:
        chain = _ancestors(dataset.provenance, row)
        steps += [_process(process) for process in chain]
        if chain[0].method_index >= 0:
            method = dataset.methods[chain[0].method_index]
    if method is not None:
        steps.append(_method(method))
    steps.append(
        TraceStep(
            "structure",
            f"{found.formula}, {len(found.atoms)} sites",
            found.node_uuid,
            {"structure_hash": found.structure_hash, "entry": found.id},
        )
    )
    if found.source is not None:
        line = found.source_line
        where = f"{found.source.path}:{line}" if line >= 0 else found.source.path
        details: dict[str, Any] = {"file": found.source.path, "line": line, "sha256": found.source.sha256}
        steps.append(TraceStep("source", where, found.source.node_uuid or "", details))
    return steps


def _value(entry: Entry, name: str, info: PropertyInfo) -> TraceStep:
    status = Status(entry.statuses[name])
    value = entry.values[name]
    text = f"{value:.10g}" if isinstance(value, float) else str(value).replace("\n", " ")
    unit = "" if info.units == "1" else f" {info.units}"
    details = {"entry": entry.id, "property": name, "status": status.label, "definition": info.definition}
    if status is not Status.OK:
        details |= {"cause": status.describe, "message": entry.message}
    plain = value.tolist() if hasattr(value, "tolist") else value
    return TraceStep("value", f"{name} = {text}{unit}", "", {**details, "value": plain, "units": info.units})


def _process(process: ProcessRecord) -> TraceStep:
    details = {
        name: getattr(process, name)
        for name in ("type", "code", "code_version", "computer", "model_sha256")
        if getattr(process, name)
    }
    details["inputs"] = dict(process.inputs)
    return TraceStep("process", process.label or process.type or "process", process.uuid, details)


def _method(method: Method) -> TraceStep:
    details: dict[str, Any] = {
        name: value for name, value in vars(method).items() if value and value == value and name != "name"
    }
    label = " ".join(part for part in (method.code or method.name, method.code_version, method.model) if part)
    return TraceStep("method", label, "", details)


def _ancestors(provenance: Provenance, row: int) -> list[ProcessRecord]:
    """Return the process and all that its inputs came from, nearest first (breadth first, each once)."""
    producers = provenance.producers()
    order, seen, at = [row], {row}, 0
    while at < len(order):
        for _, node in provenance[order[at]].inputs:
            maker = producers.get(node)
            if maker is not None and maker not in seen:
                seen.add(maker)
                order.append(maker)
        at += 1
    return [provenance[r] for r in order]

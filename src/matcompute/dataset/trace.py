"""Walk a number back to its source with what the file itself says: `trace_value`. Needs no AiiDA."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from matcompute.dataset.descriptors import descriptor_process, descriptor_status
from matcompute.dataset.entry import Entry
from matcompute.dataset.errors import unknown_name
from matcompute.dataset.metadata import Method
from matcompute.dataset.properties import PropertyInfo
from matcompute.dataset.provenance import ProcessRecord, Provenance, uuid_text
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
        Property, descriptor or selection.

    Raises
    ------
    UnknownNameError
        If the entry or the name is not there.
    """
    found = dataset[entry]
    rows = slice(found.row, found.row + 1)
    if name in dataset.properties:
        steps = [_value(found, name, dataset.property_info(name))]
        row = int(dataset.process(name, rows)[0])
    elif name in dataset.descriptors:
        steps = [_descriptor(dataset, found, name)]
        row = int(descriptor_process(dataset, name, rows)[0])
    elif name in dataset.selections:
        steps = [_selected(dataset, found, name)]
        row = _decided_by(dataset, found, name)
    else:
        known = [*dataset.properties, *dataset.descriptors, *dataset.selections]
        raise unknown_name("property", name, known, dataset.path)
    method = None if name in dataset.selections else found.method
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


def _descriptor(dataset: Dataset, entry: Entry, name: str) -> TraceStep:
    info = dataset.descriptors[name]
    status = Status(int(descriptor_status(dataset, name, slice(entry.row, entry.row + 1))[0]))
    details: dict[str, Any] = {
        "entry": entry.id,
        "descriptor": name,
        "status": status.label,
        "kernel": info.kernel,
        "parameters": dict(info.parameters),
        "definition": info.definition,
        "columns": info.n_features,
        "per": info.per,
        "units": info.units,
    }
    if status is not Status.OK:
        details |= {"cause": status.describe, "message": entry.message}
    rows = f"{len(entry.atoms)} rows" if info.per == "site" else "a row"
    return TraceStep("value", f"{name}: {rows} of {info.n_features} columns ({info.kernel})", "", details)


def _selected(dataset: Dataset, entry: Entry, name: str) -> TraceStep:
    selection = dataset.selections[name]
    passed = bool(selection.mask[entry.row])
    details = {
        "entry": entry.id,
        "selection": name,
        "passed": passed,
        "expression": selection.expression,
        "inputs": list(selection.inputs),
    }
    return TraceStep(
        "value", f"{'passed' if passed else 'did not pass'} {name}: {selection.expression}", "", details
    )


def _decided_by(dataset: Dataset, entry: Entry, name: str) -> int:
    """Return the row of the process that decided; of several, the one that looked at this entry's structure."""
    rows = dataset.selections[name].processes
    if len(rows) > 1:
        made = dataset.entry_column("process_uuid", slice(entry.row, entry.row + 1))[0]
        uuid = uuid_text(made)
        for row in rows:
            if any(p.uuid == uuid for p in _ancestors(dataset.provenance, row)):
                return row
    return rows[0] if rows else -1


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

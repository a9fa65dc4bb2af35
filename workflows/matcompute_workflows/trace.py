"""Walk a number of a finished dataset back to its source file, by AiiDA links alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiida.common.links import LinkType
from aiida.orm import CalcJobNode, Node, ProcessNode, StructureData, load_node

from matcompute.dataset import Dataset
from matcompute.dataset import trace_value as dataset_trace
from matcompute.errors import MatcomputeError
from matcompute_workflows.shard import ShardData

__all__ = ["TraceError", "TraceStep", "trace_value", "walk_back"]


class TraceError(MatcomputeError):
    """The chain of a value cannot be followed in this AiiDA profile."""


@dataclass(frozen=True)
class TraceStep:
    """One node of the chain.

    Attributes
    ----------
    node
        The AiiDA node.
    label
        One line for people.
    row
        Row of the entry in this shard, None for other nodes.
    """

    node: Node
    label: str
    row: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


def trace_value(path: Path | str, entry: str | int, name: str) -> list[TraceStep]:
    """Return the chain of one value of a finished dataset, from the process that computed it to the source file.

    Parameters
    ----------
    path
        The dataset, made by a campaign in the loaded profile.
    entry
        Entry id or row.
    name
        Property, descriptor or selection.

    Raises
    ------
    TraceError
        If the value has no process, or a node of the chain is not in the profile.
    UnknownNameError
        If the entry or the property is not there.
    """
    with Dataset(path) as dataset:
        row = dataset.find(entry) if isinstance(entry, str) else int(entry)
        entry_id = str(dataset.ids[row])
        # What the file itself says; the first process of its chain is the one that gave the value.
        steps = [step for step in dataset_trace(dataset, row, name) if step.kind == "process"]
        if not steps:
            raise TraceError(f"{path}: '{name}' of entry '{entry_id}' was computed by no process")
        uuid = steps[0].uuid
    try:
        process = load_node(uuid, sub_classes=(ProcessNode,))
    except Exception as error:
        raise TraceError(
            f"process {uuid}, which gave '{name}' of entry '{entry_id}', is not in the loaded AiiDA profile",
            hint="run it in the workspace that made the dataset",
        ) from error
    assert isinstance(process, ProcessNode)
    return walk_back(process, entry_id)


def walk_back(process: ProcessNode, entry_id: str) -> list[TraceStep]:
    """Follow an entry from a process to the source files by CREATE and INPUT links alone.

    At every process the input shard that holds the entry is chosen (of several, as at a gate, the one that was made
    last). A process of a single structure has none: there its structure is followed, or the results that it read. The
    source files are the inputs of the first process.

    Returns
    -------
    list of TraceStep
        Process, shard, process, shard, …, and at the end every source file node.

    Raises
    ------
    TraceError
        If the chain is broken.
    """
    steps: list[TraceStep] = []
    current: ProcessNode = process
    while True:
        steps.append(TraceStep(current, _describe(current), details=_details(current)))
        shards = [
            link.node for link in current.base.links.get_incoming().all() if isinstance(link.node, ShardData)
        ]
        if not shards:
            sources = [
                TraceStep(
                    link.node, f"{link.link_label}: {type(link.node).__name__}", details=_files(link.node)
                )
                for link in current.base.links.get_incoming().all()
                if link.link_label == "campaign_file" or link.link_label.startswith("source")
            ]
            if sources:
                return steps + sources
            before = _made_before(current)
            if before is None:
                raise TraceError(
                    f"{current.process_label}<{current.pk}> has no input shard and no source file"
                )
            steps.append(TraceStep(before, f"{type(before).__name__} {before.uuid}"))
            current = before.creator
            continue
        found = _holding(shards, entry_id)
        if found is None:
            raise TraceError(
                f"no input shard of {current.process_label}<{current.pk}> holds the entry '{entry_id}'"
            )
        shard, row = found
        steps.append(TraceStep(shard, f"shard {shard.uuid}, row {row}", row=row))
        if shard.creator is None:
            raise TraceError(f"nothing made the shard {shard.uuid}")
        current = shard.creator


def _made_before(process: ProcessNode) -> Any:
    """Return the input of a process that leads back: its structure, else the first one that something has made."""
    links = process.base.links.get_incoming(link_type=LinkType.INPUT_CALC).all()
    made = [link for link in links if link.node.creator is not None]
    made.sort(key=lambda link: (not isinstance(link.node, StructureData), link.link_label))
    return made[0].node if made else None


def _holding(shards: list[ShardData], entry_id: str) -> tuple[ShardData, int] | None:
    from matcompute.dataset import UnknownNameError

    for shard in sorted(shards, key=lambda node: node.pk or 0, reverse=True):
        with shard.dataset() as dataset:
            try:
                return shard, dataset.find(entry_id)
            except UnknownNameError:
                continue
    return None


def _describe(process: ProcessNode) -> str:
    where = f" on {process.computer.label}" if isinstance(process, CalcJobNode) and process.computer else ""
    return f"{process.process_label} {process.label}".strip() + where


def _details(process: ProcessNode) -> dict[str, Any]:
    details: dict[str, Any] = {"version": process.base.attributes.get("version", {})}
    if isinstance(process, CalcJobNode):
        details["code"] = process.inputs.code.full_label
        if "summary" in process.outputs:
            summary = process.outputs.summary.get_dict()
            details.update(
                {key: summary.get(key) for key in ("code", "model_sha256", "host") if key in summary}
            )
    return details


def _files(node: Node) -> dict[str, Any]:
    from matcompute_workflows.sources import NAMES

    names = node.base.attributes.get(NAMES, None)
    return {"files": list(names) if names else [node.base.attributes.get("filename", "")]}

"""Gate results as a shard."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from aiida.orm import Data, SinglefileData

from matcompute.dataset import Dataset, DatasetWriter
from matcompute.dataset.errors import DatasetError
from matcompute_workflows.rows import IDENTITY, natural_order
from matcompute_workflows.shard import ShardData

__all__ = ["in_stage_order", "write_gate"]


def in_stage_order(shards: Mapping[str, Data], stages: Sequence[str]) -> list[tuple[str, ShardData]]:
    """Return ``(stage, shard)`` by the order of the stages, then by natural order of the names.

    Raises
    ------
    DatasetError
        If a shard is of a stage that is not listed.
    """
    place = {stage: number for number, stage in enumerate(stages)}
    found = []
    for key in natural_order(shards):
        shard = shards[key]
        if not isinstance(shard, ShardData):
            raise DatasetError(f"input '{key}' is a {type(shard).__name__}, expected a ShardData")
        if shard.stage not in place:
            raise DatasetError(f"input '{key}' is of stage '{shard.stage}', the stages are {list(stages)}")
        found.append((shard.stage, shard))
    return sorted(found, key=lambda item: place[item[0]])


def write_gate(
    settings: Mapping[str, Any],
    structures: ShardData,
    results: Mapping[str, Data],
    references: Data | None,
    path: Path,
) -> None:
    """Evaluate a gate and write its shard; see :func:`matcompute_workflows.functions.apply_gate`."""
    from matcompute.gates import evaluate_gate

    ordered = in_stage_order(results, settings.get("stages", []))
    with ExitStack() as stack:
        everything = stack.enter_context(structures.dataset())
        opened = [(stage, stack.enter_context(shard.dataset())) for stage, shard in ordered]
        gate = evaluate_gate(
            settings["kind"],
            settings["parameters"],
            everything,
            opened,
            references=_as_file(references, stack),
        )
        _write(path, everything, gate, settings["stage"])


def _as_file(references: Data | None, stack: ExitStack) -> Path | None:
    if references is None:
        return None
    if not isinstance(references, SinglefileData):
        raise DatasetError(f"'references' is a {type(references).__name__}, expected a SinglefileData")
    # Under its own name: readers tell the format by the suffix.
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="matcompute-references-")))
    path = folder / references.filename
    path.write_bytes(references.get_content(mode="rb"))
    return path


def _write(path: Path, everything: Dataset, gate: Any, stage: str) -> None:
    rows = gate.rows
    with DatasetWriter(path, everything.metadata) as writer:
        for source in everything.sources:
            writer.add_source(source)
        if len(rows):
            writer.append(
                everything.batch(rows),
                ids=everything.entry_column("id", rows),
                structure_hash=everything.entry_column("structure_hash", rows),
                results={name: values for name, (values, _) in gate.columns.items()},
                status={name: status for name, (_, status) in gate.columns.items()},
                entry={
                    "source_index": everything.entry_column("source_index", rows),
                    **{name: everything.entry_column(name, rows) for name in IDENTITY},
                    "message": list(gate.messages),
                },
            )
        writer.set_selection(stage, gate.passed, expression=gate.expression, inputs=gate.inputs)

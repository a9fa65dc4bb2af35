"""The final dataset of a campaign, written block by block from its shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.dataset import (
    Dataset,
    DatasetWriter,
    Metadata,
    PropertyInfo,
    Provenance,
    Quality,
    Selection,
    Source,
    Status,
    uuid_array,
)
from matcompute.dataset.errors import DatasetError
from matcompute_workflows.columns import FinalColumn, final_columns
from matcompute_workflows.gating import in_stage_order
from matcompute_workflows.merge_block import Block
from matcompute_workflows.merge_descriptors import merge_descriptors
from matcompute_workflows.merge_parts import Index, Part, source_nodes
from matcompute_workflows.provenance import Ancestry, collect_ancestry
from matcompute_workflows.shard import ShardData

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

__all__ = ["write_dataset"]

_BLOCK = 65_536


def write_dataset(
    path: Path,
    metadata: Mapping[str, Any],
    stages: Sequence[str],
    structures: ShardData,
    shards: Mapping[str, ShardData],
    merge_process: ProcessNode | None = None,
) -> None:
    """Write the final dataset.

    Every entry of ``structures`` is in it, in that order. Structures are those of the last stage that changed them.
    Values keep their status; an entry that an earlier gate left out has the status ``not_selected``.

    Parameters
    ----------
    path
        The file to write.
    metadata
        Fields of :class:`matcompute.dataset.Metadata`.
    stages
        Names of the stages, in order.
    structures
        All structures of the campaign.
    shards
        Result shards and outputs of gates.
    merge_process
        The process that does this, for the list of processes.

    Raises
    ------
    DatasetError
        If a shard holds an entry that is not among the structures, or is of an unknown stage.
    """
    merge = _Merge(stages, structures, shards)
    merge.write(path, Metadata(**metadata), merge_process)


class _Merge:
    def __init__(self, stages: Sequence[str], structures: ShardData, shards: Mapping[str, ShardData]) -> None:
        self.stages = list(stages)
        self.structures = structures
        self.ordered = in_stage_order(shards, stages)
        self.ancestry: Ancestry = collect_ancestry([structures, *(node for _, node in self.ordered)])
        self.process_row = {uuid: row for row, uuid in enumerate(self.ancestry.records)}
        self.parts: list[Part] = []
        self.infos: dict[str, dict[str, PropertyInfo]] = {}
        self.selections: dict[str, Selection] = {}

    def write(self, path: Path, metadata: Metadata, merge_process: ProcessNode | None) -> None:
        with self.structures.dataset() as base, DatasetWriter(path, metadata) as writer:
            methods = self._read_headers(base, writer)
            columns = final_columns(self.stages, self.infos)
            for column in columns:
                writer.declare(column.info)
            alive = self._alive(len(base))
            sources = self._sources(base, writer)
            for start in range(0, len(base), _BLOCK):
                self._write_block(
                    base, writer, columns, sources, alive, start, min(start + _BLOCK, len(base))
                )
            merge_descriptors(writer, self.parts, base, alive)
            for selection in self.selections.values():
                writer.add_selection(selection)
            writer.set_provenance(self._provenance(methods, merge_process))

    # ------------------------------------------------------------------ headers
    def _read_headers(self, base: Dataset, writer: DatasetWriter) -> dict[int, int]:
        """Fill parts, infos and selections; return process row → method row."""
        index = Index(base.raw_ids)
        methods: dict[int, int] = {}
        for stage, node in self.ordered:
            with node.dataset() as dataset:
                rows = index.rows(dataset.raw_ids, stage)
                is_gate = stage in dataset.selections
                creator = self.ancestry.creator.get(node.uuid, "")
                process = self.process_row.get(creator, -1)
                method = -1
                computer = self._computer_of(creator)
                for described in dataset.methods:
                    method = writer.add_method(replace(described, centre=described.centre or computer))
                if method >= 0 and process >= 0:
                    methods[process] = method
                makers = self._makers_of(dataset)
                if makers is not None and method >= 0:
                    methods.update(dict.fromkeys(makers.tolist(), method))
                if is_gate:
                    self._take_selection(stage, dataset, rows, len(base), process)
                self._take_infos(stage, dataset)
                self.parts.append(
                    Part(stage, node, rows, is_gate, process, method, dict(dataset.descriptors), makers)
                )
        return methods

    def _computer_of(self, process_uuid: str, depth: int = 3) -> str:
        """Return the centre of a process; for a function, of what made its inputs, the structures aside."""
        record = self.ancestry.records.get(process_uuid)
        if record is None or record.computer or depth == 0:
            return "" if record is None else record.computer
        for label, node in record.inputs:
            if not label.startswith("parent_"):
                found = self._computer_of(self.ancestry.creator.get(node, ""), depth - 1)
                if found:
                    return found
        return ""

    def _take_selection(self, stage: str, dataset: Dataset, rows: np.ndarray, n: int, process: int) -> None:
        selection = dataset.selections[stage]
        mask = np.zeros(n, dtype=bool)
        mask[rows] = selection.mask
        self.selections[stage] = replace(selection, mask=mask, processes=(process,) if process >= 0 else ())

    def _take_infos(self, stage: str, dataset: Dataset) -> None:
        known = self.infos.setdefault(stage, {})
        for name, info in dataset.properties.items():
            before = known.get(name)
            if before is None or 0 in before.shape:
                known[name] = info
            elif before.units != info.units:
                raise DatasetError(
                    f"stage '{stage}': '{name}' is in {before.units} in one shard and {info.units} in another"
                )
            elif 0 not in info.shape and before.shape != info.shape:
                raise DatasetError(
                    f"stage '{stage}': '{name}' has shape {before.shape} in one shard and {info.shape} in another"
                )

    def _makers_of(self, dataset: Dataset) -> np.ndarray | None:
        """Return shard's process row → process row here; None where the shard says nothing of processes."""
        records = dataset.provenance.processes
        if not records:
            return None
        return np.array([self.process_row.get(record.uuid, -1) for record in records], dtype=np.int32)

    def _alive(self, n: int) -> dict[str, np.ndarray]:
        """Return for each stage which entries had passed all gates before it."""
        alive = np.ones(n, dtype=bool)
        found = {}
        for stage in self.stages:
            found[stage] = alive.copy()
            if stage in self.selections:
                alive &= self.selections[stage].mask
        found[""] = alive
        return found

    def _sources(self, base: Dataset, writer: DatasetWriter) -> np.ndarray:
        """Add the source files with the nodes that hold them; return the new row of each."""
        nodes = source_nodes(self.structures)
        return np.array(
            [
                writer.add_source(
                    Source(source.path, source.sha256, source.node_uuid or nodes.get(source.path))
                )
                for source in base.sources
            ]
            or [-1],
            dtype=np.int32,
        )

    def _provenance(self, methods: Mapping[int, int], merge_process: ProcessNode | None) -> Provenance:
        records = [
            replace(record, method_index=methods.get(row, -1))
            for row, record in enumerate(self.ancestry.records.values())
        ]
        if merge_process is not None:
            from matcompute.dataset import ProcessRecord

            inputs = [
                ("structures", self.structures.uuid),
                *((part.stage, part.node.uuid) for part in self.parts),
            ]
            records.append(
                ProcessRecord(
                    uuid=str(merge_process.uuid),
                    label=merge_process.process_label or "merge_campaign",
                    type=str(merge_process.process_type or "").rpartition(":")[2],
                    inputs=tuple(inputs),
                    code_version=str(
                        (merge_process.base.attributes.get("version", {}) or {}).get("plugin", "")
                    ),
                    created=int(merge_process.ctime.timestamp() * 1e6),
                )
            )
        return Provenance(tuple(records))

    # ------------------------------------------------------------------ rows
    def _write_block(
        self,
        base: Dataset,
        writer: DatasetWriter,
        columns: Sequence[FinalColumn],
        sources: np.ndarray,
        alive: Mapping[str, np.ndarray],
        start: int,
        stop: int,
    ) -> None:
        rows = slice(start, stop)
        n = stop - start
        batch = base.batch(rows)
        block = Block(batch, columns, base, rows)
        for column in columns:
            left_out = ~alive[column.stage][rows]
            block.status[column.info.name][left_out] = Status.NOT_SELECTED
        block.entry["node_uuid"] = np.broadcast_to(uuid_array([self.structures.uuid]), (n, 16)).copy()
        maker = self.ancestry.creator.get(self.structures.uuid)
        block.entry["process_uuid"] = np.broadcast_to(uuid_array([maker]), (n, 16)).copy()
        for part in self.parts:
            mine = np.flatnonzero((part.rows >= start) & (part.rows < stop))
            if mine.size:
                block.take(part, mine, part.rows[mine] - start, self.ancestry.creator.get(part.node.uuid))
        index = block.entry["source_index"]
        block.entry["source_index"] = np.where(index >= 0, sources[np.maximum(index, 0)], -1)
        if self.selections:
            selected = alive[""][rows]
            block.entry["quality"] |= np.where(selected, np.uint32(Quality.SELECTED), np.uint32(0))
        block.append_to(writer)

"""The final dataset of a campaign, written block by block from its shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
    Source,
    Status,
    uuid_array,
)
from matcompute.dataset.errors import DatasetError
from matcompute.dataset.rows import spans
from matcompute_kernels import Batch, structure_hash
from matcompute_workflows.columns import FinalColumn, final_columns
from matcompute_workflows.gating import in_stage_order
from matcompute_workflows.provenance import Ancestry, collect_ancestry
from matcompute_workflows.shard import ShardData

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

__all__ = ["write_dataset"]

_BLOCK = 65_536


@dataclass
class _Part:
    """One shard: its stage, and the row of each of its entries in the final dataset."""

    stage: str
    node: ShardData
    rows: np.ndarray
    is_gate: bool
    process: int
    method: int


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
        self.parts: list[_Part] = []
        self.infos: dict[str, dict[str, PropertyInfo]] = {}
        self.selections: dict[str, tuple[np.ndarray, str, tuple[str, ...]]] = {}
        self.expected: dict[str, np.ndarray] = {}

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
            for name, (mask, expression, inputs) in self.selections.items():
                writer.set_selection(name, mask, expression=expression, inputs=inputs)
            writer.set_provenance(self._provenance(methods, merge_process))

    # ------------------------------------------------------------------ headers
    def _read_headers(self, base: Dataset, writer: DatasetWriter) -> dict[int, int]:
        """Fill parts, infos and selections; return process row → method row."""
        index = _Index(base.raw_ids)
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
                if is_gate:
                    self._take_selection(stage, dataset, rows, len(base))
                self._take_infos(stage, dataset)
                self.parts.append(_Part(stage, node, rows, is_gate, process, method))
        return methods

    def _computer_of(self, process_uuid: str) -> str:
        """Return the centre of a process; of what it salvaged, for a function."""
        record = self.ancestry.records.get(process_uuid)
        if record is None or record.computer:
            return "" if record is None else record.computer
        makers = (self.ancestry.creator.get(node, "") for _, node in record.inputs)
        return next((self.ancestry.records[m].computer for m in makers if m in self.ancestry.records), "")

    def _take_selection(self, stage: str, dataset: Dataset, rows: np.ndarray, n: int) -> None:
        selection = dataset.selections[stage]
        mask = np.zeros(n, dtype=bool)
        mask[rows] = selection.mask
        self.selections[stage] = (mask, selection.expression, selection.inputs)

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

    def _alive(self, n: int) -> dict[str, np.ndarray]:
        """Return for each stage which entries had passed all gates before it."""
        alive = np.ones(n, dtype=bool)
        found = {}
        for stage in self.stages:
            found[stage] = alive.copy()
            if stage in self.selections:
                alive &= self.selections[stage][0]
        found[""] = alive
        return found

    def _sources(self, base: Dataset, writer: DatasetWriter) -> np.ndarray:
        """Add the source files with the nodes that hold them; return the new row of each."""
        nodes = _source_nodes(self.structures)
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
        block = _Block(batch, columns, base, rows)
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


class _Block:
    """Some consecutive entries of the final dataset, filled from the shards in stage order."""

    def __init__(self, batch: Batch, columns: Sequence[FinalColumn], base: Dataset, rows: slice) -> None:
        n = len(batch)
        self.batch = batch
        self.columns = list(columns)
        self.ptr = np.asarray(batch.ptr)
        self.positions = np.array(batch.positions)
        self.cell = np.array(batch.cell)
        self.changed = np.zeros(n, dtype=bool)
        self.ids = base.entry_column("id", rows)
        self.hash = base.entry_column("structure_hash", rows)
        self.values: dict[str, np.ndarray] = {}
        self.status: dict[str, np.ndarray] = {}
        self.process: dict[str, np.ndarray] = {}
        for column in columns:
            info = column.info
            length = n if info.per == "entry" else int(self.ptr[-1])
            self.values[info.name] = np.full((length, *info.shape), info.fill, dtype=info.dtype)
            self.status[info.name] = np.full(n, int(Status.NOT_ATTEMPTED), dtype="u1")
            self.process[info.name] = np.full(n, -1, dtype="i4")
        self.entry: dict[str, Any] = {
            name: np.array(base.entry_column(name, rows))
            for name in ("source_index", "source_line", "quality", "last_modified")
        }
        self.entry["method_index"] = np.full(n, -1, dtype="i4")
        self.entry["attempt"] = np.zeros(n, dtype="u1")
        self.label = base.entry_column("label", rows).tolist()
        self.message = np.asarray(base.entry_column("message", rows)).astype(object)

    def take(self, part: _Part, mine: np.ndarray, at: np.ndarray, maker: str | None) -> None:
        """Take rows ``mine`` of a shard for the entries ``at`` of this block."""
        with ExitStack() as stack:
            dataset = stack.enter_context(part.node.dataset())
            attempted = np.zeros(mine.size, dtype=bool)
            for column in self.columns:
                if column.stage == part.stage and column.name in dataset.properties:
                    attempted |= self._take_column(column, part, dataset, mine, at)
            if part.is_gate:
                self._take_messages(dataset, mine, at)
                return
            mine, at = mine[attempted], at[attempted]
            if not mine.size:
                return
            self._take_entries(part, dataset, mine, at)
            self._take_structures(part, dataset, mine, at, maker)

    def _take_column(
        self, column: FinalColumn, part: _Part, dataset: Dataset, mine: np.ndarray, at: np.ndarray
    ) -> np.ndarray:
        name, info = column.info.name, column.info
        status = dataset.status(column.name, mine)
        # A later shard that has not come to an entry leaves what an earlier one found.
        here = (status != Status.NOT_ATTEMPTED) | (self.status[name][at] == Status.NOT_ATTEMPTED)
        chosen, to = mine[here], at[here]
        self.status[name][to] = status[here]
        self.process[name][to] = part.process
        if 0 not in dataset.properties[column.name].shape and chosen.size:
            values = dataset.column(column.name, chosen)
            if info.per == "entry":
                self.values[name][to] = values
            else:
                self.values[name][self._sites(to)] = values
        return np.asarray(status != Status.NOT_ATTEMPTED)

    def _take_messages(self, dataset: Dataset, mine: np.ndarray, at: np.ndarray) -> None:
        message = np.asarray(dataset.entry_column("message", mine)).astype(object)
        said = message != ""
        self.message[at[said]] = message[said]

    def _take_entries(self, part: _Part, dataset: Dataset, mine: np.ndarray, at: np.ndarray) -> None:
        self.message[at] = np.asarray(dataset.entry_column("message", mine)).astype(object)
        kept = np.uint32(Quality.ELEMENTAL_REFERENCE | Quality.DECORATED_PROTOTYPE | Quality.RELAXED)
        quality = np.asarray(dataset.entry_column("quality", mine)).astype("u4")
        self.entry["quality"][at] = (self.entry["quality"][at] & kept) | quality
        self.entry["last_modified"][at] = dataset.entry_column("last_modified", mine)
        self.entry["attempt"][at] = dataset.entry_column("attempt", mine)
        self.entry["method_index"][at] = part.method

    def _take_structures(
        self, part: _Part, dataset: Dataset, mine: np.ndarray, at: np.ndarray, maker: str | None
    ) -> None:
        """Take the structures that this stage has changed: they are the process's, the others stay what they were."""
        new = dataset.batch(mine)
        sites = self._sites(at)
        owner = np.repeat(np.arange(at.size), self.ptr[at + 1] - self.ptr[at])
        moved = np.zeros(at.size, dtype=bool)
        moved[owner[np.any(new.positions != self.positions[sites], axis=1)]] = True
        moved |= np.any(new.cell != self.cell[at], axis=(1, 2))
        if not moved.any():
            return
        self.positions[sites] = new.positions
        self.cell[at] = new.cell
        self.changed[at[moved]] = True
        self.entry["node_uuid"][at[moved]] = uuid_array([part.node.uuid])
        self.entry["process_uuid"][at[moved]] = uuid_array([maker])

    def _sites(self, at: np.ndarray) -> np.ndarray:
        return spans(self.ptr[at], self.ptr[at + 1] - self.ptr[at])

    def append_to(self, writer: DatasetWriter) -> None:
        """Write the block."""
        batch = Batch(self.batch.numbers, self.positions, self.cell, self.batch.pbc, self.ptr)
        hashes = np.asarray(self.hash).astype("S32")
        rows = np.flatnonzero(self.changed)
        if rows.size:
            hashes[rows] = np.asarray(structure_hash(batch[rows])).astype("S32")
        per = {column.info.name: column.info.per for column in self.columns}
        writer.append(
            batch,
            ids=self.ids,
            structure_hash=hashes,
            results={name: values for name, values in self.values.items() if per[name] == "entry"},
            site_results={name: values for name, values in self.values.items() if per[name] == "site"},
            status=self.status,
            process=self.process,
            entry={**self.entry, "label": self.label, "message": self.message.tolist()},
        )


class _Index:
    """Entry id → row of the final dataset, for many ids at once."""

    def __init__(self, raw_ids: np.ndarray) -> None:
        self.raw_ids = raw_ids
        self.order = np.argsort(raw_ids, kind="stable")

    def rows(self, raw_ids: np.ndarray, stage: str) -> np.ndarray:
        """Return the rows of ids; an id that is not there is an error."""
        if raw_ids.size == 0 or self.raw_ids.size == 0:
            return np.empty(0, dtype=np.int64)
        at = np.searchsorted(self.raw_ids, raw_ids, sorter=self.order)
        rows = self.order[np.minimum(at, self.raw_ids.size - 1)]
        wrong = np.flatnonzero(self.raw_ids[rows] != raw_ids)
        if wrong.size:
            missing = raw_ids[wrong[0]].decode()
            raise DatasetError(f"entry '{missing}' of stage '{stage}' is not among the campaign's structures")
        return np.asarray(rows)


def _source_nodes(structures: ShardData) -> dict[str, str]:
    """Return the name of each source file → UUID of the node that holds it."""
    from aiida.orm import FolderData, SinglefileData

    from matcompute_workflows.sources import NAMES

    creator = structures.creator
    if creator is None:
        return {}
    nodes: dict[str, str] = {}
    for link in creator.base.links.get_incoming().all():
        node = link.node
        if isinstance(node, FolderData):
            nodes.update(dict.fromkeys(node.base.attributes.get(NAMES, []), str(node.uuid)))
        elif isinstance(node, SinglefileData):
            nodes[node.filename] = str(node.uuid)
    return nodes

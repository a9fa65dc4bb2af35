"""Some consecutive entries of a final dataset, filled from the shards in stage order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from matcompute.dataset import Dataset, DatasetWriter, Quality, Status, uuid_array
from matcompute.dataset.descriptors import descriptor_status
from matcompute.dataset.rows import spans
from matcompute_kernels import Batch, structure_hash
from matcompute_workflows.columns import FinalColumn
from matcompute_workflows.merge_parts import Part

__all__ = ["Block"]


class Block:
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

    def take(self, part: Part, mine: np.ndarray, at: np.ndarray, maker: str | None) -> None:
        """Take rows ``mine`` of a shard for the entries ``at`` of this block."""
        with ExitStack() as stack:
            dataset = stack.enter_context(part.node.dataset())
            attempted = np.zeros(mine.size, dtype=bool)
            for column in self.columns:
                if column.stage == part.stage and column.name in dataset.properties:
                    attempted |= self._take_column(column, part, dataset, mine, at)
            for name in part.descriptors:
                attempted |= descriptor_status(dataset, name, mine) != Status.NOT_ATTEMPTED
            if part.is_gate:
                self._take_messages(dataset, mine, at)
                return
            mine, at = mine[attempted], at[attempted]
            if not mine.size:
                return
            self._take_entries(part, dataset, mine, at)
            self._take_structures(part, dataset, mine, at, maker)

    def _take_column(
        self, column: FinalColumn, part: Part, dataset: Dataset, mine: np.ndarray, at: np.ndarray
    ) -> np.ndarray:
        name, info = column.info.name, column.info
        status = dataset.status(column.name, mine)
        # A later shard that has not come to an entry leaves what an earlier one found.
        here = (status != Status.NOT_ATTEMPTED) | (self.status[name][at] == Status.NOT_ATTEMPTED)
        chosen, to = mine[here], at[here]
        self.status[name][to] = status[here]
        self.process[name][to] = part.process
        if part.makers is not None:
            own = dataset.process(column.name, chosen)
            self.process[name][to] = np.where(own >= 0, part.makers[own], part.process)
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

    def _take_entries(self, part: Part, dataset: Dataset, mine: np.ndarray, at: np.ndarray) -> None:
        self.message[at] = np.asarray(dataset.entry_column("message", mine)).astype(object)
        kept = np.uint32(Quality.ELEMENTAL_REFERENCE | Quality.DECORATED_PROTOTYPE | Quality.RELAXED)
        quality = np.asarray(dataset.entry_column("quality", mine)).astype("u4")
        self.entry["quality"][at] = (self.entry["quality"][at] & kept) | quality
        self.entry["last_modified"][at] = dataset.entry_column("last_modified", mine)
        self.entry["attempt"][at] = dataset.entry_column("attempt", mine)
        # A descriptor says nothing about how the entry's numbers came about, unless there are no others.
        bare = self.entry["method_index"][at] < 0
        self.entry["method_index"][at[bare] if part.descriptors else at] = part.method

    def _take_structures(
        self, part: Part, dataset: Dataset, mine: np.ndarray, at: np.ndarray, maker: str | None
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

"""Descriptors of a campaign's shards in its final dataset, part by part: memory does not grow with the entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from matcompute.dataset import Dataset, DatasetWriter, Status
from matcompute.dataset.descriptors import (
    BlockSparse,
    DescriptorInfo,
    descriptor_status,
    read_descriptor,
    write_descriptor,
)
from matcompute.dataset.errors import DatasetError
from matcompute.dataset.rows import spans

if TYPE_CHECKING:
    from matcompute_workflows.merge_parts import Part

__all__ = ["merge_descriptors"]

#: Bytes of a descriptor that are put together at once (of its dense rows, whatever the layout).
_BYTES = 64e6


def merge_descriptors(
    writer: DatasetWriter, parts: Sequence[Part], base: Dataset, alive: Mapping[str, np.ndarray]
) -> None:
    """Write every descriptor that the shards hold.

    Parameters
    ----------
    writer
        The final dataset; all entries are appended already.
    parts
        The shards, in stage order. Of two that say something about an entry, the later one counts.
    base
        The structures of the campaign: entries and their sites.
    alive
        Stage → ``bool[N]``: entries that had passed all gates before it.

    Raises
    ------
    DatasetError
        If two shards of a descriptor do not fit together.
    """
    found: dict[str, list[Part]] = {}
    for part in parts:
        for name in part.descriptors:
            found.setdefault(name, []).append(part)
    for name, mine in found.items():
        _Merged(name, mine, base, alive[mine[0].stage]).write(writer)


class _Merged:
    """One descriptor: who owns the rows of each entry, and what became of it."""

    def __init__(self, name: str, parts: Sequence[Part], base: Dataset, alive: np.ndarray) -> None:
        self.parts, self.name = parts, name
        n = len(base)
        self.sites = np.asarray(base.entry_column("row_size"), dtype=np.int64)
        self.owner = np.full(n, -1, dtype=np.int64)
        self.place = np.zeros(n, dtype=np.int64)
        self.status = np.where(alive, int(Status.NOT_ATTEMPTED), int(Status.NOT_SELECTED)).astype("u1")
        self.process = np.full(n, -1, dtype="i4")
        self.info = self._common_info()
        for number, part in enumerate(parts):
            with part.node.dataset() as dataset:
                status = descriptor_status(dataset, name)
            # A later shard that has not come to an entry leaves what an earlier one found.
            said = status != Status.NOT_ATTEMPTED
            rows = part.rows[said]
            self.owner[rows], self.place[rows] = number, np.flatnonzero(said)
            self.status[rows], self.process[rows] = status[said], part.process

    def _common_info(self) -> DescriptorInfo:
        # A shard in which nothing could be described does not know how its rows would have been stored.
        infos = [part.descriptors[self.name] for part in self.parts]
        common = next((info for info in infos if info.layout == "block-sparse"), infos[0])
        for info in infos:
            wrong = common.differs_from(info)
            if wrong is not None and not wrong.startswith("different layout"):
                raise DatasetError(f"descriptor '{self.name}': two shards have {wrong}")
        return common

    def write(self, writer: DatasetWriter) -> None:
        """Write rows, statuses and processes."""
        write_descriptor(writer, self.info, self._parts(), status=self.status, process=self.process)  # type: ignore[arg-type]

    def _parts(self) -> Iterator[np.ndarray | BlockSparse]:
        rows = self.sites if self.info.per == "site" else np.ones(len(self.sites), dtype=np.int64)
        limit = max(1, int(_BYTES / (8 * max(self.info.n_features, 1))))
        ends = np.concatenate([[0], np.cumsum(rows)])
        start, n = 0, len(rows)
        with ExitStack() as stack:
            opened: dict[int, Dataset] = {}
            while start < n or (n == 0 and start == 0):
                stop = max(int(np.searchsorted(ends, ends[start] + limit, side="right")) - 1, start + 1)
                block = slice(start, min(stop, n))
                numbers = np.unique(self.owner[block])
                for number in numbers[numbers >= 0].tolist():
                    if number not in opened:
                        opened[number] = stack.enter_context(self.parts[number].node.dataset())
                yield self._block(block, rows[block], opened)
                start = stop

    def _block(
        self, block: slice, rows: np.ndarray, opened: Mapping[int, Dataset]
    ) -> np.ndarray | BlockSparse:
        """Return the rows of some consecutive entries; those of an entry without any are NaN, or hold no block."""
        owner, place = self.owner[block], self.place[block]
        ptr = np.concatenate([[0], np.cumsum(rows)])
        pieces: list[tuple[np.ndarray, BlockSparse]] = []
        dense = np.full((int(ptr[-1]), self.info.n_features), np.nan, dtype=self.info.dtype)
        for number in np.unique(owner[owner >= 0]).tolist():
            mine = np.flatnonzero(owner == number)
            # Rows in rising order read the file from front to back.
            mine = mine[np.argsort(place[mine], kind="stable")]
            values = read_descriptor(opened[number], self.name, entries=place[mine])
            where = spans(ptr[mine], rows[mine])
            if isinstance(values, BlockSparse):
                pieces.append((where, values))
            elif self.info.layout == "dense":
                dense[where] = values
        return dense if self.info.layout == "dense" else _joined(pieces, int(ptr[-1]), self._columns(opened))

    def _columns(self, opened: Mapping[int, Dataset]) -> BlockSparse:
        """Return no rows of the descriptor, with its columns."""
        number = next(k for k, part in enumerate(self.parts) if part.descriptors[self.name] is self.info)
        if number in opened:
            return _empty(opened[number], self.name)
        with self.parts[number].node.dataset() as dataset:
            return _empty(dataset, self.name)


def _empty(dataset: Dataset, name: str) -> BlockSparse:
    found = read_descriptor(dataset, name, rows=slice(0, 0))
    assert isinstance(found, BlockSparse)
    return found


def _joined(pieces: Sequence[tuple[np.ndarray, BlockSparse]], n: int, columns: BlockSparse) -> BlockSparse:
    """Return rows that come in pieces (their places, their blocks) in one, in order."""
    blocks_of = np.zeros(n, dtype=np.int64)
    for where, piece in pieces:
        blocks_of[where] = np.diff(piece.ptr)
    ptr = np.concatenate([[0], np.cumsum(blocks_of)])
    pairs = np.zeros((int(ptr[-1]), 2), dtype="u1")
    lengths = np.zeros(len(pairs), dtype=np.int64)
    for where, piece in pieces:
        to = spans(ptr[where], np.diff(piece.ptr))
        pairs[to], lengths[to] = piece.pairs, np.diff(piece.value_ptr)
    value_ptr = np.concatenate([[0], np.cumsum(lengths)])
    values = np.zeros(int(value_ptr[-1]), dtype="f4")
    for where, piece in pieces:
        to = spans(ptr[where], np.diff(piece.ptr))
        values[spans(value_ptr[to], lengths[to])] = piece.values
    return BlockSparse(ptr, pairs, values, columns.kinds, columns.offset)

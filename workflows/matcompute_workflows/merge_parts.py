"""The shards that a merge reads: where their entries are in the final dataset."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from matcompute.dataset.descriptors import DescriptorInfo
from matcompute.dataset.errors import DatasetError
from matcompute_workflows.shard import ShardData

__all__ = ["Index", "Part", "source_nodes"]


@dataclass
class Part:
    """One shard: its stage, the row of each of its entries in the final dataset, and what it says beside values.

    A shard of structures that were computed one by one says of each value which process gave it.
    """

    stage: str
    node: ShardData
    rows: np.ndarray
    is_gate: bool
    process: int
    method: int
    descriptors: dict[str, DescriptorInfo] = field(default_factory=dict)
    #: Process row in the shard → process row in the final dataset; None where one process made all of it.
    makers: np.ndarray | None = None


class Index:
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


def source_nodes(structures: ShardData) -> dict[str, str]:
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

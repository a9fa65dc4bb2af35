"""Several nodes as one: ``catalogue.json`` of datasets and ``structures.parquet`` of structures.

Two datasets are duplicates if they have exactly the same structures (``structures_sha256`` of their manifests), two
entries if they have the same structure hash. Of duplicates the one of the highest grade wins, then the one with more
entries, then the smallest (dataset id, node): nothing depends on the order in which nodes were pulled. What is merged
bears the highest grade and the highest tier of its duplicates: data found twice is not less protected.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matcompute.dataset import GRADES, TIERS
from matcompute.publish.blobs import write_whole
from matcompute.publish.canonical import dump, sha256
from matcompute.publish.ocfl import object_path
from matcompute.publish.pull.state import State
from matcompute.publish.store import Store

__all__ = ["CATALOGUE", "STRUCTURES", "write_catalogue"]

CATALOGUE, STRUCTURES = "catalogue.json", "structures.parquet"
_TABLE = "summary.parquet"
_BLOCK = 65536


@dataclass(frozen=True)
class _Current:
    """The newest available version of a dataset that the store holds."""

    object_id: str
    ocfl: int
    dataset_id: str
    root: str
    version: int
    grade: str
    tier: str
    entries: int
    structures_sha256: str

    @property
    def precedence(self) -> tuple[int, int, str, str]:
        """Smallest wins."""
        return (-_rank(GRADES, self.grade), -self.entries, self.dataset_id, self.root)


def write_catalogue(folder: Path, state: State, store: Store) -> None:
    """Write the catalogue, and the table of structures if it is not that of these versions yet.

    Parameters
    ----------
    folder
        The copy.
    state
        What the feeds said, and what was stored.
    store
        The store.
    """
    documents, current = [], []
    for dataset in state.datasets():
        name = f"{dataset.root}/{dataset.dataset_id}"
        versions = state.versions(dataset.root, dataset.dataset_id)
        there = [v for v in versions if v["status"] == "stored"]
        if not there:
            continue
        available = [v for v in there if not v["withdrawn"]]
        newest = (available or there)[-1]
        documents.append(
            {
                "dataset_id": dataset.dataset_id,
                "node": dataset.root,
                "object_id": name,
                "title": newest["title"],
                "grade": dataset.grade,
                "tier": dataset.tier,
                "withdrawn": not available,
                "versions": [
                    {
                        "version": v["version"],
                        "manifest_sha256": v["manifest_sha256"],
                        "ocfl_version": v["ocfl"],
                        "withdrawn": bool(v["withdrawn"]),
                    }
                    for v in there
                ],
            }
        )
        if available:
            current.append(
                _Current(
                    name,
                    newest["ocfl"],
                    dataset.dataset_id,
                    dataset.root,
                    newest["version"],
                    dataset.grade,
                    dataset.tier,
                    newest["entries"],
                    newest["structures_sha256"],
                )
            )
    catalogue = {
        "schema": "matcompute.catalogue/v1",
        "nodes": [
            {"key_id": node.root, "id": node.name, "current_key_id": node.keyring.current.key_id}
            for node in state.nodes()
        ],
        "datasets": documents,
        "duplicates": _duplicates(current),
    }
    _write(folder / CATALOGUE, json.dumps(catalogue, indent=1, ensure_ascii=False).encode() + b"\n")
    mark = sha256(dump([[c.object_id, c.ocfl, c.version, c.grade, c.tier] for c in current]))
    if state.mark("structures") != mark or not (folder / STRUCTURES).exists():
        _write_structures(folder, store, sorted(current, key=lambda c: c.precedence))
        state.set_mark("structures", mark)


def _rank(vocabulary: tuple[str, ...], word: str) -> int:
    """Return the place of a word; one that we do not know is above all others."""
    return vocabulary.index(word) if word in vocabulary else len(vocabulary)


def _duplicates(current: list[_Current]) -> list[dict[str, Any]]:
    groups: dict[str, list[_Current]] = {}
    for item in current:
        groups.setdefault(item.structures_sha256, []).append(item)
    found = []
    for digest, group in sorted(groups.items()):
        if len(group) < 2:
            continue
        group.sort(key=lambda c: c.precedence)
        found.append(
            {
                "structures_sha256": digest,
                "winner": group[0].object_id,
                "others": [c.object_id for c in group[1:]],
                "grade": group[0].grade,
                "tier": _highest_tier(group),
            }
        )
    return found


def _highest_tier(group: list[_Current]) -> str:
    return max(group, key=lambda c: _rank(TIERS, c.tier)).tier


def _write(path: Path, raw: bytes) -> None:
    if not path.exists() or path.read_bytes() != raw:
        write_whole(path, raw, path.with_name(f".{path.name}.writing"))


# -- structures -----------------------------------------------------------------------------------------------------


def _write_structures(folder: Path, store: Store, current: list[_Current]) -> None:
    """Write one row per entry: its hash, where it is, whether it wins, and the grade and tier of all that share it.

    Rows are ordered by precedence of their datasets, then as in the dataset, so the first of a hash is the winner.
    Memory: 42 bytes for each entry.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    lengths, hashes, readable = [0], [np.empty(0, "S32")], []
    for item in current:
        try:
            parts = [
                np.asarray(t["structure_hash"].to_numpy(), "S32")
                for t in _tables(store, item, ["structure_hash", "id"])
            ]
        except (pa.ArrowException, OSError, ValueError):
            continue  # one node's strange table must not keep the others' out
        readable.append(item)
        hashes += parts
        lengths.append(sum(map(len, parts)))
    current = readable
    every = np.concatenate(hashes)
    offsets = np.cumsum(lengths)
    _, first, inverse = np.unique(every, return_index=True, return_inverse=True)
    wins = np.zeros(len(every), bool)
    wins[first] = True
    grade, tier = (np.zeros(len(first), np.int8) for _ in range(2))
    for position, item in enumerate(current):
        rows = inverse[offsets[position] : offsets[position + 1]]
        grade[rows] = np.maximum(grade[rows], _rank(GRADES, item.grade))
        tier[rows] = np.maximum(tier[rows], _rank(TIERS, item.tier))
    grades, tiers = (np.array([*words, "unknown"]) for words in (GRADES, TIERS))
    schema = pa.schema(
        [(n, pa.string()) for n in ("structure_hash", "node", "dataset_id")]
        + [("version", pa.int64()), ("id", pa.string()), ("wins", pa.bool_())]
        + [(n, pa.string()) for n in ("grade", "tier")]
    )
    path = folder / STRUCTURES
    part = path.with_name(f".{path.name}.writing")
    with pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for position, item in enumerate(current):
            start = int(offsets[position])
            for table in _tables(store, item, ["structure_hash", "id"]):
                n = len(table)
                span = slice(start, start + n)
                writer.write_table(
                    pa.Table.from_arrays(
                        [
                            table["structure_hash"].combine_chunks(),
                            pa.array([item.root] * n),
                            pa.array([item.dataset_id] * n),
                            pa.array(np.full(n, item.version)),
                            table["id"].combine_chunks(),
                            pa.array(wins[span]),
                            pa.array(grades[grade[inverse[span]]]),
                            pa.array(tiers[tier[inverse[span]]]),
                        ],
                        schema=schema,
                    )
                )
                start += n
    part.replace(path)


def _tables(store: Store, item: _Current, columns: list[str]) -> Iterator[Any]:
    """Yield the rows of a version's summary, block by block; nothing if the version has none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    inventory = store.inventory(item.object_id)
    state = inventory.version(item.ocfl).state
    if _TABLE not in state:
        return
    path = Path(store.root) / object_path(item.object_id) / inventory.content[state[_TABLE]]
    with pq.ParquetFile(path) as file:
        if not set(columns) <= set(file.schema_arrow.names):
            return
        for batch in file.iter_batches(_BLOCK, columns=columns):
            yield pa.Table.from_batches([batch]).cast(pa.schema([(name, pa.string()) for name in columns]))

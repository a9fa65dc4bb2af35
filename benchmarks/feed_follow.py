"""How fast `matcompute pull` follows a feed of 100,000 changes of a real server (SQLite, plain uvicorn).

A node with 200 small datasets is pulled once; then 100,000 changes are written (datasets are regraded in turn), and
the second pull reads them all: pages of 1000, each checked and written in one transaction with the position after it.
The server brings its index up to the events before; that time is given apart.

Prints one JSON line; ``ratios["60 s"]`` is the time asked for (60 s) divided by ours: larger is better, no peer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _machine import machine

ASKED_S = 60.0


def publish(folder: Path, datasets: int) -> list[str]:
    """Release small datasets, signed and stored as any other; return their ids."""
    from matcompute.publish import keys
    from matcompute.publish.manifest import MANIFEST, SIGNATURE, Manifest
    from matcompute.publish.release import Publication
    from matcompute.publish.signing import sign

    publication, scratch = Publication(folder / "publication"), folder / "scratch"
    key = keys.generate(publication.keys)
    scratch.mkdir()
    names = []
    for k in range(datasets):
        dataset_id = f"{k:08x}-0000-4000-8000-000000000000"
        content = f"shard {k}".encode()
        digest = hashlib.sha256(content).hexdigest()
        file = {
            "path": "data/shard.h5",
            "size": len(content),
            "sha256": digest,
            "media_type": "application/x-hdf5",
            "role": "data",
        }
        manifest = Manifest.model_validate(
            {
                "schema": "matcompute.manifest/v1",
                "dataset_id": dataset_id,
                "version": 1,
                "title": f"Dataset {k}",
                "created": "2026-01-31T12:00:00Z",
                "node": "benchmark",
                "domain": "advanced-nonferrous-metals",
                "node_class": "computation",
                "grade": "general",
                "tier": "public",
                "licence": "CC0-1.0",
                "counts": {"entries": 1, "sites": 1, "shards": 1, "failed": 0},
                "files": [file],
                "structures_sha256": digest,
            }
        )
        paths = {"data/shard.h5": scratch / "shard.h5", MANIFEST: scratch / "m", SIGNATURE: scratch / "s"}
        for path, raw in zip(
            paths.values(), (content, manifest.to_bytes(), sign(manifest.to_bytes(), key).to_bytes())
        ):
            path.write_bytes(raw)
        publication.store.commit(dataset_id, paths, version=1)
        publication.events.published(manifest)
        names.append(dataset_id)
    return names


def change(folder: Path, names: list[str], count: int) -> None:
    """Write many regrades at once, as `Events.regrade` would one by one."""
    rows = [
        (
            "regrade",
            names[k % len(names)],
            "general",
            ("member-1", "public")[k // len(names) % 2],
            "benchmark",
        )
        for k in range(count)
    ]
    with sqlite3.connect(folder / "publication" / "events.sqlite") as db:
        db.executemany(
            "INSERT INTO events (op, dataset_id, grade, tier, at, reason) "
            "VALUES (?, ?, ?, ?, '2026-01-31T12:00:00Z', ?)",
            rows,
        )


@contextmanager
def serving(publication: Path, port: int = 0) -> Iterator[str]:
    """Run ``matcompute serve``; yield its address."""
    command = [str(Path(sys.executable).parent / "matcompute"), "serve", "--port", str(port), "-d"]
    server = subprocess.Popen(
        [*command, str(publication)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1]
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--changes", type=int, default=100_000)
    parser.add_argument("--datasets", type=int, default=200)
    given = parser.parse_args()

    from matcompute.publish.pull import Options, pull
    from matcompute.server.node import Node
    from matcompute.server.tokens import create

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = publish(folder, given.datasets)
        node = Node(folder / "publication")
        node.create_tables()
        options = Options(
            token=create(node.engine, "benchmark", tier="member-1", scopes=("read",)), receipts=False
        )
        with serving(folder / "publication") as url:
            begun = time.perf_counter()
            first = pull(url, folder / "copy", options)
            first_s = time.perf_counter() - begun
        assert len(first.stored) == given.datasets, first
        change(folder, names, given.changes)
        begun = time.perf_counter()
        node.refresh()
        index_s = time.perf_counter() - begun
        with serving(folder / "publication", int(url.rsplit(":", 1)[1])) as url:
            begun = time.perf_counter()
            second = pull(url, folder / "copy", options)
            follow_s = time.perf_counter() - begun
        assert second.changes == given.changes, second
    result = {
        "benchmark": "feed_follow",
        "ratios": {"60 s": round(ASKED_S / follow_s, 2)},
        "rates": {"60 s": {"ours": given.changes / follow_s, "unit": "changes/s"}},
        "peers": {},
        "changes": given.changes,
        "seconds": {
            "follow": round(follow_s, 2),
            "index": round(index_s, 1),
            "first_pull": round(first_s, 2),
        },
        "datasets": given.datasets,
        "machine": machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

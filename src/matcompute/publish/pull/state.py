"""What the puller knows, in an SQLite file: nodes, position in each feed, versions and their fate, receipts to send.

The position and what the events before it say are written in one transaction: a kill loses neither.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matcompute.publish.errors import StoreError
from matcompute.publish.keys import Keyring

__all__ = ["Dataset", "Letter", "Node", "State", "Wanted"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS nodes (
    root TEXT PRIMARY KEY, url TEXT NOT NULL, name TEXT NOT NULL, keyring BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS positions (
    root TEXT NOT NULL, view TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (root, view)
);
CREATE TABLE IF NOT EXISTS datasets (
    root TEXT NOT NULL, dataset_id TEXT NOT NULL, grade TEXT NOT NULL, tier TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (root, dataset_id)
);
CREATE TABLE IF NOT EXISTS versions (
    root TEXT NOT NULL, dataset_id TEXT NOT NULL, version INTEGER NOT NULL,
    manifest_sha256 TEXT, withdrawn INTEGER NOT NULL DEFAULT 0,
    status TEXT NOT NULL DEFAULT 'wanted' CHECK (status IN ('wanted', 'stored', 'absent')),
    code TEXT, reason TEXT,
    title TEXT, structures_sha256 TEXT, entries INTEGER, ocfl INTEGER,
    PRIMARY KEY (root, dataset_id, version)
);
CREATE INDEX IF NOT EXISTS versions_wanted ON versions (root, dataset_id) WHERE status = 'wanted';
CREATE TABLE IF NOT EXISTS contents (sha256 TEXT PRIMARY KEY, object_id TEXT NOT NULL, path TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS receipts (
    id INTEGER PRIMARY KEY, root TEXT NOT NULL, subject TEXT NOT NULL, body BLOB NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0, UNIQUE (root, subject)
);
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
#: Of a version: withdrawn by an event of its own; hidden with its whole dataset; hidden before, perhaps no more.
_WITHDRAWN, _HIDDEN, _DOUBTFUL = 1, 2, 3


@dataclass(frozen=True)
class Node:
    """A node that was met: its first key is what it is known by."""

    root: str
    url: str
    name: str
    keyring: Keyring


@dataclass(frozen=True)
class Letter:
    """A signed receipt, and what it is about (each subject gets one)."""

    subject: str
    body: bytes


@dataclass(frozen=True)
class Wanted:
    """A version that should be in the store and is not."""

    root: str
    dataset_id: str
    version: int
    manifest_sha256: str | None


@dataclass(frozen=True)
class Dataset:
    """What holds of a dataset, for the catalogue."""

    root: str
    dataset_id: str
    grade: str
    tier: str


class State:
    """The file; made at the first use.

    Raises
    ------
    StoreError
        If it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.db = sqlite3.connect(path, timeout=60, isolation_level=None)
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=NORMAL")
            self.db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    # -- nodes ------------------------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        """Return all nodes, in the order of their first keys."""
        rows = self.db.execute("SELECT root, url, name, keyring FROM nodes ORDER BY root").fetchall()
        return [Node(r[0], r[1], r[2], Keyring.from_bytes(r[3])) for r in rows]

    def node_at(self, url: str) -> Node | None:
        """Return the node that was met at an address."""
        return next((node for node in self.nodes() if node.url == url), None)

    def node(self, root: str) -> Node | None:
        """Return the node of a first key."""
        return next((node for node in self.nodes() if node.root == root), None)

    def met(self, root: str, url: str, name: str, keyring: Keyring) -> None:
        """Note a node's address, name and keyring."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO nodes (root, url, name, keyring) VALUES (?, ?, ?, ?) ON CONFLICT (root) DO UPDATE "
                "SET url = excluded.url, name = excluded.name, keyring = excluded.keyring",
                (root, url, name, keyring.to_bytes()),
            )

    # -- the feed ---------------------------------------------------------------------------------------------

    def position(self, root: str, view: str) -> int:
        """Return the last change that was read; each view (public, or a token's) is a feed of its own."""
        row = self.db.execute(
            "SELECT seq FROM positions WHERE root = ? AND view = ?", (root, view)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def apply(self, root: str, view: str, events: Iterable[dict[str, Any]], seq: int) -> int:
        """Note what a page of events says, and the position after it; return how many there were."""
        count = 0
        with self.transaction() as db:
            for event in events:
                count += 1
                _apply(db, root, event)
            db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (root, view, seq))
        return count

    # -- versions ---------------------------------------------------------------------------------------------

    def wanted(self, root: str, tiers: tuple[str, ...], datasets: tuple[str, ...]) -> list[Wanted]:
        """Return what is to be fetched: by dataset in the order of the feed, each from its oldest version on."""
        query = (
            "SELECT v.root, v.dataset_id, v.version, v.manifest_sha256 FROM versions v JOIN datasets d "
            "USING (root, dataset_id) WHERE v.root = ? AND v.status = 'wanted' AND NOT v.withdrawn"
        )
        values: list[str] = [root]
        for column, chosen in (("d.tier", tiers), ("v.dataset_id", datasets)):
            if chosen:
                query += f" AND {column} IN ({', '.join('?' * len(chosen))})"
                values += chosen
        rows = self.db.execute(f"{query} ORDER BY d.seq, v.dataset_id, v.version", values)
        return [Wanted(*row) for row in rows]

    def is_wanted(self, item: Wanted) -> bool:
        """Whether a version is wanted still."""
        row = self.db.execute(
            "SELECT 1 FROM versions WHERE root = ? AND dataset_id = ? AND version = ? AND status = 'wanted' "
            "AND NOT withdrawn",
            (item.root, item.dataset_id, item.version),
        ).fetchone()
        return row is not None

    def idle(self) -> bool:
        """Whether nothing is wanted of any node."""
        query = "SELECT 1 FROM versions WHERE status = 'wanted' AND NOT withdrawn LIMIT 1"
        return self.db.execute(query).fetchone() is None

    def doubtful(self, root: str) -> list[str]:
        """Return the datasets with versions of which the feed did not say whether they are to be had."""
        rows = self.db.execute(
            "SELECT DISTINCT dataset_id FROM versions WHERE root = ? AND (withdrawn = ? OR "
            "(status = 'wanted' AND manifest_sha256 IS NULL AND NOT withdrawn)) ORDER BY dataset_id",
            (root, _DOUBTFUL),
        )
        return [row[0] for row in rows]

    def settle(self, root: str, dataset_id: str, withdrawn: dict[int, bool]) -> None:
        """Note which versions the node says are withdrawn; one that it does not name is not to be had."""
        with self.transaction() as db:
            for version in self.digests(root, dataset_id):
                flag = 0 if withdrawn.get(version) is False else _WITHDRAWN
                _set(db, Wanted(root, dataset_id, version, None), withdrawn=flag)

    def digests(self, root: str, dataset_id: str) -> dict[int, str | None]:
        """Return the known digests of the manifests of a dataset by version."""
        rows = self.db.execute(
            "SELECT version, manifest_sha256 FROM versions WHERE root = ? AND dataset_id = ? ORDER BY version",
            (root, dataset_id),
        )
        return dict(rows.fetchall())

    def stored(
        self, item: Wanted, contents: Iterable[tuple[str, str, str]], receipt: Letter, **facts: Any
    ) -> None:
        """Note that a version is in the store, where its contents lie, and the receipt that is due."""
        with self.transaction() as db:
            _set(db, item, status="stored", code=None, reason=None, **facts)
            db.executemany("INSERT OR IGNORE INTO contents VALUES (?, ?, ?)", contents)
            _keep(db, item.root, receipt)

    def absent(self, item: Wanted) -> None:
        """Note that an old version is not to be had."""
        with self.transaction() as db:
            _set(db, item, status="absent", code=None, reason=None)

    def refuse(self, item: Wanted, code: str, reason: str, receipt: Letter) -> None:
        """Note why a version is not taken; it stays wanted."""
        with self.transaction() as db:
            _set(db, item, code=code, reason=reason)
            _keep(db, item.root, receipt)

    def learn(self, item: Wanted, digest: str) -> None:
        """Note the digest of a version that the feed did not tell."""
        with self.transaction() as db:
            _set(db, item, manifest_sha256=digest)

    def refusals(self, root: str) -> list[tuple[str, int, str, str]]:
        """Return dataset id, version, code and reason of all that was refused and is not withdrawn."""
        return self.db.execute(
            "SELECT dataset_id, version, code, reason FROM versions WHERE root = ? AND code IS NOT NULL "
            "AND NOT withdrawn ORDER BY dataset_id, version",
            (root,),
        ).fetchall()

    def where(self, digest: str) -> tuple[str, str] | None:
        """Return object id and path of a content that the store holds."""
        return self.db.execute("SELECT object_id, path FROM contents WHERE sha256 = ?", (digest,)).fetchone()

    # -- receipts ---------------------------------------------------------------------------------------------

    def unsent(self, root: str) -> list[tuple[int, bytes]]:
        """Return the receipts that the node does not have, oldest first."""
        return self.db.execute(
            "SELECT id, body FROM receipts WHERE root = ? AND NOT sent ORDER BY id", (root,)
        ).fetchall()

    def sent(self, number: int) -> None:
        """Note that the node has a receipt."""
        with self.transaction() as db:
            db.execute("UPDATE receipts SET sent = 1 WHERE id = ?", (number,))

    # -- for the catalogue ------------------------------------------------------------------------------------

    def datasets(self) -> list[Dataset]:
        """Return all datasets of all nodes in a fixed order."""
        rows = self.db.execute("SELECT root, dataset_id, grade, tier FROM datasets ORDER BY dataset_id, root")
        return [Dataset(*row) for row in rows]

    def versions(self, root: str, dataset_id: str) -> list[dict[str, Any]]:
        """Return what is known of the versions of a dataset."""
        columns = (
            "version",
            "manifest_sha256",
            "withdrawn",
            "status",
            "title",
            "structures_sha256",
            "entries",
            "ocfl",
        )
        rows = self.db.execute(
            f"SELECT {', '.join(columns)} FROM versions WHERE root = ? AND dataset_id = ? ORDER BY version",
            (root, dataset_id),
        )
        return [dict(zip(columns, row)) for row in rows]

    def mark(self, name: str) -> str | None:
        """Return a remembered text."""
        row = self.db.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_mark(self, name: str, value: str) -> None:
        """Remember a text."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, value))


def _keep(db: sqlite3.Connection, root: str, receipt: Letter) -> None:
    """Keep a receipt until it is sent; one about the same thing is kept once."""
    db.execute(
        "INSERT OR IGNORE INTO receipts (root, subject, body) VALUES (?, ?, ?)",
        (root, receipt.subject, receipt.body),
    )


def _set(db: sqlite3.Connection, item: Wanted, **values: Any) -> None:
    columns = ", ".join(f"{name} = ?" for name in values)
    db.execute(
        f"UPDATE versions SET {columns} WHERE root = ? AND dataset_id = ? AND version = ?",
        (*values.values(), item.root, item.dataset_id, item.version),
    )


def _apply(db: sqlite3.Connection, root: str, event: dict[str, Any]) -> None:
    dataset_id, version, digest = event["dataset_id"], event["version"], event.get("manifest_sha256")
    what = (root, dataset_id)
    if event["op"] == "withdraw":
        if version is None:
            db.execute(
                "UPDATE versions SET withdrawn = ? WHERE root = ? AND dataset_id = ? AND withdrawn <> ?",
                (_HIDDEN, *what, _WITHDRAWN),
            )
        else:
            db.execute(
                "UPDATE versions SET withdrawn = ? WHERE root = ? AND dataset_id = ? AND version = ?",
                (_WITHDRAWN, *what, version),
            )
        return
    db.execute(
        "INSERT INTO datasets VALUES (?, ?, ?, ?, ?) ON CONFLICT (root, dataset_id) DO UPDATE SET "
        "grade = excluded.grade, tier = excluded.tier",
        (*what, event["grade"], event["tier"], event["seq"]),
    )
    if event["op"] not in ("publish", "revise"):
        return
    if version > 1 and event["op"] == "publish":
        # Back in sight after a change of grade or tier; the older versions may be so too, the feed does not say.
        db.execute(
            "UPDATE versions SET withdrawn = ? WHERE root = ? AND dataset_id = ? AND version < ? AND withdrawn = ?",
            (_DOUBTFUL, *what, version, _HIDDEN),
        )
    # Versions before this one that the feed did not name: wanted too, if only for the chain.
    for number in range(version - 1, 0, -1):
        cursor = db.execute(
            "INSERT OR IGNORE INTO versions (root, dataset_id, version) VALUES (?, ?, ?)", (*what, number)
        )
        if cursor.rowcount == 0:
            break
    db.execute(
        "INSERT INTO versions (root, dataset_id, version, manifest_sha256) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (root, dataset_id, version) DO UPDATE SET withdrawn = 0, "
        "manifest_sha256 = coalesce(manifest_sha256, excluded.manifest_sha256), "
        "status = CASE status WHEN 'absent' THEN 'wanted' ELSE status END, "
        "code = CASE WHEN manifest_sha256 <> excluded.manifest_sha256 THEN 'rollback' ELSE code END, "
        "reason = CASE WHEN manifest_sha256 <> excluded.manifest_sha256 THEN "
        "'the feed now names manifest ' || substr(excluded.manifest_sha256, 1, 12) || '…, before it was ' || "
        "substr(manifest_sha256, 1, 12) || '…' ELSE reason END",
        (*what, version, digest),
    )

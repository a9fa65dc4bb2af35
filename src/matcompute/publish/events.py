"""What happened to the node's datasets, in order: an append-only table with a sequence that only grows.

The feed that the platform follows is read from here; so is what holds now of a dataset: grade, tier, what is withdrawn.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any, Literal

from matcompute.publish.errors import PublishError
from matcompute.publish.manifest import Manifest
from matcompute.times import utc_now

__all__ = ["Event", "Events", "Known", "Standing"]

Op = Literal["publish", "revise", "withdraw", "regrade"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    op TEXT NOT NULL CHECK (op IN ('publish', 'revise', 'withdraw', 'regrade')),
    dataset_id TEXT NOT NULL,
    version INTEGER,
    manifest_sha256 TEXT,
    grade TEXT NOT NULL,
    tier TEXT NOT NULL,
    at TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS events_of ON events (dataset_id, seq);
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER IF NOT EXISTS events_remain BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
CREATE TABLE IF NOT EXISTS releases (
    dataset_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    title TEXT NOT NULL,
    entries INTEGER NOT NULL,
    manifest_sha256 TEXT NOT NULL,
    structures_sha256 TEXT NOT NULL,
    PRIMARY KEY (dataset_id, version)
);
CREATE INDEX IF NOT EXISTS releases_by_structures ON releases (structures_sha256);
CREATE TABLE IF NOT EXISTS files (
    sha256 TEXT NOT NULL,
    dataset_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    path TEXT NOT NULL,
    size INTEGER NOT NULL,
    role TEXT NOT NULL,
    PRIMARY KEY (sha256, dataset_id, version, path)
);
"""
_COLUMNS = "seq, op, dataset_id, version, manifest_sha256, grade, tier, at, reason"


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Parameters
    ----------
    seq
        Position in the feed.
    op
        publish (version 1), revise (a later version), withdraw (a tombstone) or regrade.
    dataset_id, version, manifest_sha256
        What it concerns; version None: the whole dataset.
    grade, tier
        What holds from here on.
    at, reason
        UTC; for people.
    """

    seq: int
    op: Op
    dataset_id: str
    version: int | None
    manifest_sha256: str | None
    grade: str
    tier: str
    at: str
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return asdict(self)


@dataclass(frozen=True)
class Known:
    """A released version, as the duplicate gate and listings see it."""

    dataset_id: str
    version: int
    title: str
    entries: int
    manifest_sha256: str
    structures_sha256: str


@dataclass(frozen=True)
class Standing:
    """What holds now of a dataset."""

    dataset_id: str
    title: str
    versions: tuple[int, ...]
    withdrawn: frozenset[int]
    grade: str
    tier: str
    seq: int

    @property
    def available(self) -> tuple[int, ...]:
        """The versions that are not withdrawn."""
        return tuple(v for v in self.versions if v not in self.withdrawn)


class Events:
    """The table of events in an SQLite file.

    Parameters
    ----------
    path
        The file; made at the first use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            try:
                connection.execute("PRAGMA synchronous=FULL")
                connection.executescript(_SCHEMA)
                # One writer from its first read to its commit, so that numbers are given in the order of commits.
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                yield connection
                connection.execute("COMMIT")
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise PublishError(f"{self.path}: {error}") from error

    # -- writing ----------------------------------------------------------------------------------------------

    def published(self, manifest: Manifest, reason: str = "") -> Event:
        """Note that a version stands in the store; noting it again changes nothing."""
        with self._open(write=True) as db:
            row = db.execute(
                f"SELECT {_COLUMNS} FROM events WHERE dataset_id = ? AND version = ? AND op IN ('publish', 'revise')",
                (manifest.dataset_id, manifest.version),
            ).fetchone()
            if row is not None:
                return Event(*row)
            _note(db, manifest)
            op: Op = "publish" if manifest.version == 1 else "revise"
            what = (manifest.dataset_id, manifest.version, manifest.sha256)
            return _append(db, op, *what, manifest.grade, manifest.tier, reason)

    def restore(self, events: Sequence[Event], manifests: Iterable[Manifest]) -> None:
        """Write the events of another copy of the node, with their numbers and times, into an empty table.

        Raises
        ------
        PublishError
            If there are events here already, or the numbers do not grow.
        """
        numbers = [event.seq for event in events]
        if numbers != sorted(set(numbers)):
            raise PublishError(f"{self.path}: the numbers of the events do not grow")
        with self._open(write=True) as db:
            if db.execute("SELECT count(*) FROM events").fetchone()[0]:
                raise PublishError(f"{self.path} has events already")
            for manifest in manifests:
                _note(db, manifest)
            db.executemany(
                f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [astuple(event) for event in events],
            )

    def withdraw(self, dataset_id: str, version: int | None, reason: str) -> Event:
        """Note that a version, or the whole dataset, is withdrawn.

        Raises
        ------
        PublishError
            If it was never released, or is withdrawn already.
        """
        with self._open(write=True) as db:
            standing = _standing(db, dataset_id)
            wanted = set(standing.versions) if version is None else {version}
            if not wanted <= set(standing.versions):
                raise PublishError(f"{dataset_id} has no released version {version}")
            if wanted <= standing.withdrawn:
                raise PublishError(f"{dataset_id}: {_name(version)} is withdrawn already")
            digest = None if version is None else _digest(db, dataset_id, version)
            return _append(db, "withdraw", dataset_id, version, digest, standing.grade, standing.tier, reason)

    def regrade(self, dataset_id: str, reason: str, *, grade: str | None, tier: str | None) -> Event:
        """Note a new grade or tier of a dataset; it holds for all its versions from here on.

        Raises
        ------
        PublishError
            If it was never released, or nothing changes.
        """
        with self._open(write=True) as db:
            standing = _standing(db, dataset_id)
            new = (grade or standing.grade, tier or standing.tier)
            if new == (standing.grade, standing.tier):
                raise PublishError(f"{dataset_id} has grade '{new[0]}' and tier '{new[1]}' already")
            return _append(db, "regrade", dataset_id, None, None, *new, reason)

    # -- reading ----------------------------------------------------------------------------------------------

    def after(self, seq: int = 0, limit: int = 1000) -> list[Event]:
        """Return the events that follow a position, oldest first."""
        with self._open() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
            )
            return [Event(*row) for row in rows]

    def standing(self, dataset_id: str) -> Standing:
        """Return what holds now of a dataset.

        Raises
        ------
        PublishError
            If it was never released.
        """
        with self._open() as db:
            return _standing(db, dataset_id)

    def all(self) -> list[Standing]:
        """Return what holds now of every dataset, in the order of their first release."""
        with self._open() as db:
            ids = db.execute("SELECT dataset_id FROM events GROUP BY dataset_id ORDER BY min(seq)").fetchall()
            return [_standing(db, row[0]) for row in ids]

    def same_structures(self, digest: str) -> list[Known]:
        """Return the released versions whose entries have exactly these structures."""
        with self._open() as db:
            rows = db.execute(
                "SELECT * FROM releases WHERE structures_sha256 = ? ORDER BY rowid", (digest,)
            ).fetchall()
            return [Known(*row) for row in rows]

    def with_file(self, digest: str, role: str) -> list[tuple[str, int]]:
        """Return dataset id and version of the releases that hold a file of this content and role."""
        with self._open() as db:
            return db.execute(
                "SELECT dataset_id, version FROM files WHERE sha256 = ? AND role = ? ORDER BY rowid",
                (digest, role),
            ).fetchall()


def _note(db: sqlite3.Connection, manifest: Manifest) -> None:
    db.execute(
        "INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?)",
        (
            manifest.dataset_id,
            manifest.version,
            manifest.title,
            manifest.counts.entries,
            manifest.sha256,
            manifest.structures_sha256,
        ),
    )
    db.executemany(
        "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)",
        [(f.sha256, manifest.dataset_id, manifest.version, f.path, f.size, f.role) for f in manifest.files],
    )


def _append(
    db: sqlite3.Connection,
    op: Op,
    dataset_id: str,
    version: int | None,
    digest: str | None,
    grade: str,
    tier: str,
    reason: str,
) -> Event:
    at = utc_now()
    values = (op, dataset_id, version, digest, grade, tier, at, reason)
    columns = _COLUMNS.removeprefix("seq, ")
    cursor = db.execute(f"INSERT INTO events ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
    assert cursor.lastrowid is not None
    return Event(cursor.lastrowid, op, dataset_id, version, digest, grade, tier, at, reason)


def _name(version: int | None) -> str:
    return "the dataset" if version is None else f"version {version}"


def _digest(db: sqlite3.Connection, dataset_id: str, version: int) -> str:
    query = "SELECT manifest_sha256 FROM releases WHERE dataset_id = ? AND version = ?"
    return str(db.execute(query, (dataset_id, version)).fetchone()[0])


def _standing(db: sqlite3.Connection, dataset_id: str) -> Standing:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM events WHERE dataset_id = ? ORDER BY seq", (dataset_id,)
    ).fetchall()
    if not rows:
        raise PublishError(f"no dataset '{dataset_id}' was released", hint="see `matcompute publish list`")
    versions: list[int] = []
    withdrawn: set[int] = set()
    for event in (Event(*row) for row in rows):
        if event.op in ("publish", "revise") and event.version is not None:
            versions.append(event.version)
        elif event.op == "withdraw":
            withdrawn |= set(versions) if event.version is None else {event.version}
    title = db.execute(
        "SELECT title FROM releases WHERE dataset_id = ? ORDER BY version DESC", (dataset_id,)
    ).fetchone()[0]
    last = Event(*rows[-1])
    return Standing(dataset_id, title, tuple(versions), frozenset(withdrawn), last.grade, last.tier, last.seq)

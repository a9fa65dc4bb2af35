"""The audit: who asked for what, and what the node did, in a table that only grows and whose records are chained.

Record n has the hash ``SHA-256("matcompute.audit/v1\\n" || hash(n−1) || SHA-256(record n))`` over the record's exact
bytes, so that a record which is changed, removed or put in between breaks every hash behind it. Because the digest of
the record goes in, not the record, a part of the audit can be handed out with other people's records left out (digest
only), and its reader can still check the chain.

A chain cannot show that its newest records were cut off by somebody who may write the file. For that the head (number
and hash) is told to others: it stands in every KPI report, evidence, incident and exit export, and `AuditLog.verify`
takes any head that was seen before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matcompute.errors import InputError, MatcomputeError

__all__ = ["FIRST", "AuditError", "AuditLog", "Entry", "Head", "Problem", "link", "now", "period_of"]

#: What stands before the first record.
FIRST = "0" * 64
_CONTEXT = b"matcompute.audit/v1\n"

_GENERATED = (
    ("at", "TEXT"),
    ("kind", "TEXT"),
    ("principal", "TEXT"),
    ("address", "TEXT"),
    ("status", "INTEGER"),
    ("bytes", "INTEGER"),
    ("dataset_id", "TEXT"),
)
# What is searched for is computed from the record, so that it can never say something else than what is chained.
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY,
    record TEXT NOT NULL,
    hash TEXT NOT NULL,
    {", ".join(f"{n} {t} GENERATED ALWAYS AS (json_extract(record, '$.{n}')) VIRTUAL" for n, t in _GENERATED)}
);
CREATE INDEX IF NOT EXISTS audit_at ON audit (at);
CREATE TRIGGER IF NOT EXISTS audit_stays BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit is never changed'); END;
CREATE TRIGGER IF NOT EXISTS audit_remains BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit is never deleted'); END;
CREATE TABLE IF NOT EXISTS head (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS usage (
    principal TEXT NOT NULL, period TEXT NOT NULL, tier TEXT NOT NULL,
    requests INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (principal, period, tier)
);
CREATE TABLE IF NOT EXISTS uptime (run TEXT PRIMARY KEY, started TEXT NOT NULL, seen TEXT NOT NULL, ended TEXT);
"""
_SELECT = "SELECT seq, record, hash FROM audit"


class AuditError(MatcomputeError):
    """The audit cannot be written, or is not whole."""


@dataclass(frozen=True)
class Head:
    """Number and hash of a record; number 0: before the first."""

    seq: int
    hash: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {"seq": self.seq, "hash": self.hash}

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read ``<seq>:<hash>``.

        Raises
        ------
        InputError
            If it has another form.
        """
        number, _, digest = text.partition(":")
        if not number.isdigit() or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise InputError(
                f"'{text}' is not a head of the audit", hint="a head is <number>:<64 hexadecimal digits>"
            )
        return cls(int(number), digest)


@dataclass(frozen=True)
class Entry:
    """One record with its place in the chain."""

    seq: int
    record: str
    hash: str

    @property
    def data(self) -> dict[str, Any]:
        """The record's fields."""
        found: dict[str, Any] = json.loads(self.record)
        return found


@dataclass(frozen=True)
class Problem:
    """What `AuditLog.verify` found."""

    seq: int
    message: str


def now() -> str:
    """Return the time now, UTC, ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def link(before: str, digest: str) -> str:
    """Return the hash of a record, from the hash before it and the SHA-256 of its bytes (all hexadecimal)."""
    return hashlib.sha256(_CONTEXT + bytes.fromhex(before) + bytes.fromhex(digest)).hexdigest()


def digest_of(record: str) -> str:
    """Return the SHA-256 of a record, hexadecimal."""
    return hashlib.sha256(record.encode()).hexdigest()


def encode(fields: Mapping[str, Any]) -> str:
    """Return a record's text: JSON in ASCII (nothing in it can steer a terminal), sorted keys."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def period_of(at: str) -> str:
    """Return the period of metering that a time belongs to: the month, UTC."""
    return at[:7]


class AuditLog:
    """The audit of a node in an SQLite file of its own: it is not rebuilt from anything, as the index is.

    Parameters
    ----------
    path
        The file; made at the first use.

    Notes
    -----
    WAL with ``synchronous=FULL``: a committed batch survives a crash of the process, of the system and of the power.
    A batch is one transaction that takes the write lock before it reads the head, so several processes write one chain
    without a gap, and a killed process leaves a whole batch or none of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self) -> sqlite3.Connection:
        """Return a connection to keep; used by one thread at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """Open the file, with a snapshot for all reads."""
        try:
            with contextlib.closing(self.connect()) as db:
                db.execute("BEGIN")
                yield db
                db.execute("COMMIT")
        except sqlite3.Error as error:
            raise AuditError(f"{self.path}: {error}") from error

    # -- writing ----------------------------------------------------------------------------------------------

    def append(self, records: Iterable[Mapping[str, Any]], db: sqlite3.Connection | None = None) -> list[int]:
        """Add records, all or none, and meter them; they are durable when this returns.

        Parameters
        ----------
        records
            Fields of each; ``at`` and ``kind`` are needed.
        db
            A kept connection.

        Returns
        -------
        list of int
            Their numbers.

        Raises
        ------
        AuditError
            If they cannot be written.
        """
        try:
            if db is None:
                with contextlib.closing(self.connect()) as own:
                    return self._append(own, records)
            return self._append(db, records)
        except sqlite3.Error as error:
            raise AuditError(
                f"{self.path}: {error}", hint="without its audit the node serves nothing: free the disk"
            ) from error

    def _append(self, db: sqlite3.Connection, records: Iterable[Mapping[str, Any]]) -> list[int]:
        db.execute("BEGIN IMMEDIATE")
        try:
            head = _head(db)
            seq, before = head.seq, head.hash
            rows = []
            usage: dict[tuple[str, str, str], tuple[int, int]] = {}
            for given in records:
                fields = {name: value for name, value in given.items() if value is not None}
                record = encode(fields)
                seq, before = seq + 1, link(before, digest_of(record))
                rows.append((seq, record, before))
                if key := _metered(fields):
                    requests, size = usage.get(key, (0, 0))
                    usage[key] = (requests + _counts(fields), size + int(fields.get("bytes") or 0))
            db.executemany("INSERT INTO audit (seq, record, hash) VALUES (?, ?, ?)", rows)
            db.execute("INSERT OR REPLACE INTO head VALUES (1, ?, ?)", (seq, before))
            db.executemany(
                "INSERT INTO usage VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "requests = requests + excluded.requests, bytes = bytes + excluded.bytes",
                [(*key, *counts) for key, counts in usage.items()],
            )
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        return [row[0] for row in rows]

    def beat(self, run: str, db: sqlite3.Connection, *, ended: bool = False) -> None:
        """Note that a run of the server is alive, for the uptime."""
        at = now()
        db.execute(
            "INSERT INTO uptime VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET seen = excluded.seen, ended = excluded.ended",
            (run, at, at, at if ended else None),
        )

    # -- reading ----------------------------------------------------------------------------------------------

    def head(self) -> Head:
        """Return the newest record's number and hash."""
        with self.open() as db:
            return _head(db)

    def entries(
        self,
        *,
        since: str = "",
        until: str = "~",
        after: int = 0,
        kinds: Iterable[str] = (),
        block: int = 10_000,
    ) -> Iterator[Entry]:
        """Yield records in order, read in blocks.

        Parameters
        ----------
        since, until
            Times (UTC, ISO 8601): from the first, before the second.
        after
            Only records behind this number.
        kinds
            Only these kinds.
        block
            Records read at a time.
        """
        wanted = tuple(kinds)
        marks = f" AND kind IN ({', '.join('?' * len(wanted))})" if wanted else ""
        with self.open() as db:
            while True:
                rows = db.execute(
                    f"{_SELECT} WHERE seq > ? AND at >= ? AND at < ?{marks} ORDER BY seq LIMIT ?",
                    (after, since, until, *wanted, block),
                ).fetchall()
                if not rows:
                    return
                for row in rows:
                    yield Entry(*row)
                after = rows[-1][0]

    def usage(self, principal: str | None = None, period: str | None = None) -> list[dict[str, Any]]:
        """Return what was metered, by principal, month and tier."""
        with self.open() as db:
            rows = db.execute(
                "SELECT principal, period, tier, requests, bytes FROM usage "
                "WHERE (?1 IS NULL OR principal = ?1) AND (?2 IS NULL OR period = ?2) ORDER BY 2, 1, 3",
                (principal, period),
            ).fetchall()
        names = ("principal", "period", "tier", "requests", "bytes")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def runs(self) -> list[tuple[str, str]]:
        """Return begin and last sign of life of every run of the server, oldest first."""
        with self.open() as db:
            return db.execute("SELECT started, coalesce(ended, seen) FROM uptime ORDER BY started").fetchall()

    def verify(self, known: Iterable[Head] = ()) -> list[Problem]:
        """Check every record, the numbering, the head, the metering and heads that were seen before.

        Parameters
        ----------
        known
            Heads that a report, or another person, holds.

        Returns
        -------
        list of Problem
            Empty if all is well.
        """
        wanted = {h.seq: h.hash for h in known}
        found: list[Problem] = []
        before, seq = FIRST, 0
        usage: dict[tuple[str, str, str], tuple[int, int]] = {}
        with self.open() as db:
            for number, record, digest in db.execute(f"{_SELECT} ORDER BY seq"):
                if number != seq + 1:
                    found.append(Problem(seq + 1, f"records {seq + 1} to {number - 1} are missing"))
                elif link(before, digest_of(record)) != digest:
                    found.append(
                        Problem(number, "the record or one before it was changed: its hash is another one")
                    )
                seq, before = number, digest
                if wanted.pop(number, digest) != digest:
                    found.append(Problem(number, "its hash is not the one that was seen before"))
                fields = json.loads(record)  # its indexed columns are computed from it: it is JSON
                if key := _metered(fields):
                    requests, size = usage.get(key, (0, 0))
                    usage[key] = (requests + _counts(fields), size + int(fields.get("bytes") or 0))
            head = _head(db)
            metered = {
                (p, m, t): (r, b)
                for p, m, t, r, b in db.execute("SELECT principal, period, tier, requests, bytes FROM usage")
            }
        if head.seq != seq or head.hash != before:
            found.append(
                Problem(seq, f"the head is record {head.seq}: the newest records were removed or added")
            )
        gone = [n for n in sorted(wanted) if (n, wanted[n]) != (0, FIRST)]
        found += [Problem(n, "the record was seen before, and is gone") for n in gone]
        if metered != usage:
            found.append(Problem(seq, "the metering is not the sum of the records"))
        return found


def _head(db: sqlite3.Connection) -> Head:
    row = db.execute("SELECT seq, hash FROM head").fetchone()
    return Head(*row) if row else Head(0, FIRST)


def _metered(fields: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return principal, period and tier that a record is metered for."""
    if "at" not in fields or fields.get("kind") not in ("request", "open", "close"):
        return None
    return (str(fields.get("principal", "")), period_of(str(fields["at"])), str(fields.get("tier", "public")))


def _counts(fields: Mapping[str, Any]) -> int:
    return 0 if fields.get("kind") == "close" else 1  # a long answer has an open and a close

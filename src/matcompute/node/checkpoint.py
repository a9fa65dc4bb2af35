"""The checkpoint: every finished structure is in a small SQLite file of its worker before the next one is begun.

One file per worker and one writer per file, so that workers never wait for each other. Write-ahead log without a sync
per commit: a transaction that was committed survives the death of the process by any signal (the pages are the
kernel's by then), and the file stays consistent, at worst short of its last rows, when the machine loses power.
Exclusive locking keeps the log's index in memory, so that no shared memory on a network file system is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from matcompute.node.errors import WriteError
from matcompute.node.records import Record

__all__ = ["CheckpointWriter", "Journal", "checkpoint_writable", "count_journal", "read_checkpoint"]

_SCHEMA_VERSION = 1
_TABLE = """CREATE TABLE IF NOT EXISTS result (
    entry_id TEXT NOT NULL, digest TEXT NOT NULL, status INTEGER NOT NULL, message TEXT NOT NULL,
    attempt INTEGER NOT NULL, cpu_s REAL NOT NULL, wall_s REAL NOT NULL, finished REAL NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (entry_id, digest)) WITHOUT ROWID"""
_RANK_FILE = re.compile(r"rank-(\d+)\.sqlite")


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30.0, isolation_level=None)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


class CheckpointWriter:
    """Appends the records of one worker.

    Parameters
    ----------
    folder
        The checkpoint folder; made if missing.
    worker
        Number of the worker; it is the only writer of ``rank-<worker>.sqlite``.

    Raises
    ------
    WriteError
        If the folder or the file cannot be written. A damaged file is moved aside, its structures are recomputed.
    """

    def __init__(self, folder: Path, worker: int) -> None:
        self.path = Path(folder) / f"rank-{worker}.sqlite"
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            try:
                self._connection = self._prepare()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self.path.replace(self.path.with_suffix(".damaged"))
                Path(f"{self.path}-wal").unlink(missing_ok=True)
                self._connection = self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise _write_error(self.path, error) from error

    def _prepare(self) -> sqlite3.Connection:
        connection = _open(self.path)
        try:
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
        except BaseException:
            connection.close()
            raise
        return connection

    def add(self, record: Record) -> None:
        """Commit one record; it is on disk for every later run when this returns.

        Raises
        ------
        WriteError
            If it cannot be written; what was committed before stays valid.
        """
        row = (
            record.entry_id,
            record.digest,
            int(record.status),
            record.message,
            record.attempt,
            record.cpu_s,
            record.wall_s,
            time.time(),
            record.payload(),
        )
        try:
            self._connection.execute("INSERT OR REPLACE INTO result VALUES (?,?,?,?,?,?,?,?,?)", row)
        except sqlite3.Error as error:
            raise _write_error(self.path, error) from error

    def close(self) -> None:
        """Fold the log into the file, so that copying ``*.sqlite`` alone takes everything along."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()


def read_checkpoint(
    folder: Path, wanted: Iterable[tuple[str, str]] | None = None
) -> dict[tuple[str, str], Record]:
    """Read the records of all workers of all earlier runs that left files in a folder.

    Parameters
    ----------
    folder
        The checkpoint folder; may be absent.
    wanted
        Pairs of entry id and digest; others (another shard's, or results of other parameters) are passed over.

    Returns
    -------
    dict
        The latest record of each pair.
    """
    keys = None if wanted is None else set(wanted)
    found: dict[tuple[str, str], tuple[float, Record]] = {}
    for path in sorted(Path(folder).glob("rank-*.sqlite")):
        if _RANK_FILE.fullmatch(path.name) is None:
            continue
        for finished, record in _rows(path, keys):
            key = (record.entry_id, record.digest)
            if key not in found or finished >= found[key][0]:
                found[key] = (finished, record)
    return {key: record for key, (_, record) in found.items()}


def _rows(path: Path, keys: set[tuple[str, str]] | None) -> Iterator[tuple[float, Record]]:
    # A damaged file costs its structures a second computation, never the job; but a log that cannot be replayed for
    # want of space must not pass for an empty checkpoint.
    try:
        with contextlib.closing(_open(path)) as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA_VERSION:
                return
            for row in connection.execute("SELECT * FROM result"):
                entry_id, digest, status, message, attempt, cpu_s, wall_s, finished, payload = row
                if keys is not None and (entry_id, digest) not in keys:
                    continue
                record = Record(entry_id, digest, status, message, attempt, cpu_s, wall_s)
                with contextlib.suppress(ValueError):
                    yield finished, record.load_payload(payload)
    except sqlite3.OperationalError as error:
        raise _write_error(path, error) from error
    except sqlite3.DatabaseError:
        return


class Journal:
    """Append-only lines ``start``, ``done``, ``stopped``, ``lost``: who was computed when, by which process.

    It is for people and for tests that count; what is finished is told by the checkpoint alone.

    Parameters
    ----------
    folder
        The checkpoint folder.
    worker
        Number of the worker, -1 for the supervisor.
    """

    def __init__(self, folder: Path, worker: int) -> None:
        name = "journal-supervisor.jsonl" if worker < 0 else f"journal-{worker}.jsonl"
        self.path = Path(folder) / name
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _write_error(self.path, error) from error
        self._pid = os.getpid()

    def write(self, event: str, entry_id: str, attempt: int = 1, **more: object) -> None:
        """Append one line by a single write, so that a kill never leaves half of two lines mixed."""
        line = {
            "event": event,
            "id": entry_id,
            "time": round(time.time(), 6),
            "pid": self._pid,
            "attempt": attempt,
        }
        try:
            os.write(self._file, json.dumps(line | more, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            raise _write_error(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def count_journal(folder: Path, event: str = "done") -> dict[str, int]:
    """Return how often each entry id has an event in the journals of a checkpoint folder."""
    counts: dict[str, int] = {}
    for path in sorted(Path(folder).glob("journal-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                item = json.loads(line)
                if item.get("event") == event:
                    counts[item["id"]] = counts.get(item["id"], 0) + 1
    return counts


def checkpoint_writable(folder: Path) -> None:
    """Raise :class:`WriteError` now rather than after the first structure if the folder cannot be written."""
    probe = Path(folder) / f".probe-{os.getpid()}"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"matcompute")
        probe.unlink()
    except OSError as error:
        raise _write_error(probe, error) from error


def _write_error(path: Path, error: Exception) -> WriteError:
    return WriteError(
        f"cannot write {path}: {getattr(error, 'strerror', None) or error}",
        hint="free disk space or make the folder writable, then run again: finished structures are kept",
    )

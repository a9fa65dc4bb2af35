"""SQLite connections of the embedded storage: patience instead of "database is locked"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["BUSY_TIMEOUT_MS", "tune_connections"]

#: How long a writer waits for another one. Python's default of 5 s is too short on a busy disk.
BUSY_TIMEOUT_MS = 60_000

_tuned: set[str] = set()


def tune_connections(database: Path) -> None:
    """Tune every connection that SQLAlchemy opens to ``database`` in this process from now on.

    AiiDA opens its SQLite file with no options of its own. The file is in write-ahead mode (set when the
    workspace is made), under which ``synchronous=NORMAL`` can lose the last commits in a power cut but never
    corrupts, and costs no fsync per commit.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    path = str(database.resolve())
    if path in _tuned:
        return
    if not _tuned:
        event.listen(Engine, "connect", _on_connect)
    _tuned.add(path)


def _on_connect(connection: Any, _record: Any) -> None:
    if type(connection).__module__ not in ("sqlite3", "_sqlite3"):
        return
    cursor = connection.cursor()
    try:
        files = {row[2] for row in cursor.execute("PRAGMA database_list")}
        if any(name and str(Path(name).resolve()) in _tuned for name in files):
            cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            cursor.execute("PRAGMA synchronous=NORMAL")
    finally:
        cursor.close()

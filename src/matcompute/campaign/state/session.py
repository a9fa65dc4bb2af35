"""Opening the state database: write-ahead log, busy time-out, transactions that say whether they write, migrations."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError

from matcompute.errors import MatcomputeError

__all__ = ["HEAD", "SchemaError", "State", "StateError"]

#: Revision of the newest migration in :mod:`matcompute.campaign.state.migrations`; a test keeps them equal.
HEAD = "0003"
#: Seconds that a writer waits for another one.
BUSY_TIMEOUT = 60.0


class StateError(MatcomputeError):
    """The state database cannot be read or written."""


class SchemaError(StateError):
    """The state database was made by a newer matcompute."""


class State:
    """The state database of a workspace.

    Opening brings the schema up to date. Many processes may hold it open: readers never wait, writers wait for each
    other.

    Parameters
    ----------
    path
        The SQLite file; made if it does not exist.

    Raises
    ------
    SchemaError
        If the file's schema is newer than this program.
    StateError
        If the file cannot be opened, read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.read_only = _on_read_only_disk(self.path)
        try:
            revision = _revision(self.path, self.read_only)
        except sqlite3.Error as error:
            raise _explain(error, self.path) from error
        if revision != HEAD:
            self._migrate(revision)
        self.engine = _engine(self.path, self.read_only)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one consistent snapshot."""
        with self._explained(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection in a transaction that holds the write lock from its start; commits at the end."""
        with self._explained(), self.engine.connect() as connection:
            connection = connection.execution_options(matcompute_write=True)
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise _explain(error, self.path) from error

    def _migrate(self, revision: str | None) -> None:
        from filelock import FileLock

        from matcompute.campaign.state.migrate import known_revisions, upgrade

        if revision is not None and revision not in known_revisions():
            raise SchemaError(
                f"{self.path}: its schema '{revision}' is newer than this matcompute knows (up to '{HEAD}')",
                hint="use the matcompute version that last worked in this workspace, or a later one",
            )
        try:
            with FileLock(self.path.with_name(self.path.name + ".lock"), timeout=BUSY_TIMEOUT):
                if _revision(self.path) != HEAD:
                    upgrade(self.path)
        except (OSError, sqlite3.Error, OperationalError) as error:
            raise _explain(error, self.path) from error


def _on_read_only_disk(path: Path) -> bool:
    """Whether nobody can write here: then SQLite may, and must, do without its companion files."""
    try:
        return path.exists() and bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _url(path: Path, read_only: bool) -> str:
    return f"file:{quote(str(path))}?mode=ro&immutable=1" if read_only else f"file:{quote(str(path))}"


def _engine(path: Path, read_only: bool = False) -> Engine:
    url = f"sqlite:///{_url(path, read_only)}{'&' if read_only else '?'}uri=true"
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT})

    @event.listens_for(engine, "connect")
    def _connect(dbapi: Any, _record: Any) -> None:
        # The driver's own BEGIN comes too late (at the first write): a transaction that reads and then writes
        # would fail with "database is locked" when another process wrote in between. We begin ourselves.
        dbapi.isolation_level = None
        if read_only:
            return
        dbapi.execute("PRAGMA journal_mode=WAL")
        # NORMAL: a commit survives kill -9 of any process; after a power cut the newest may be gone, and
        # reconciliation with AiiDA finds them again.
        dbapi.execute("PRAGMA synchronous=NORMAL")
        dbapi.execute("PRAGMA foreign_keys=ON")
        dbapi.execute("PRAGMA cache_size=-65536")
        dbapi.execute("PRAGMA temp_store=MEMORY")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("matcompute_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _revision(path: Path, read_only: bool = False) -> str | None:
    """Read the schema revision with the bare driver: opening must not cost an import of Alembic."""
    if not path.exists() or path.stat().st_size == 0:
        return None
    connection = sqlite3.connect(_url(path, read_only), timeout=BUSY_TIMEOUT, uri=True)
    try:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name='alembic_version'").fetchone():
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])
    finally:
        connection.close()


def _explain(error: BaseException, path: Path) -> StateError:
    text = str(getattr(error, "orig", None) or error)
    if "locked" in text:
        return StateError(
            f"{path}: another process has kept the state database locked for {BUSY_TIMEOUT:.0f} s",
            hint="look for a hanging matcompute process in this workspace (matcompute workspace status)",
        )
    if "full" in text or "No space" in text:
        return StateError(
            f"{path}: no space left on the disk",
            hint="free some space, then: matcompute campaign resume NAME",
        )
    if "readonly" in text or "read-only" in text.lower() or "Read-only" in text:
        return StateError(
            f"{path}: cannot be written (read-only)",
            hint="make the workspace writable, or choose another one with --workspace",
        )
    if "Permission" in text or "unable to open" in text:
        return StateError(
            f"{path}: cannot be opened: {text}",
            hint="check that the workspace exists and is writable, or choose another one with --workspace",
        )
    if "malformed" in text or "not a database" in text:
        return StateError(
            f"{path}: is damaged ({text})",
            hint="restore it from a copy; the AiiDA profile holds every result that was finished",
        )
    return StateError(f"{path}: {text}")

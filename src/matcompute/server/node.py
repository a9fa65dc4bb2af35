"""`Node`: a publication, the settings of its server, and the index that follows its events."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from matcompute.publish.errors import PublishError
from matcompute.publish.events import Standing
from matcompute.publish.keys import KEYRING, Keyring
from matcompute.publish.release import Publication
from matcompute.server.errors import ServerError
from matcompute.server.index import add_missing, apply_events, lock_head
from matcompute.server.settings import NodeSettings
from matcompute.server.tables import DERIVED, indexed, metadata, versions

__all__ = ["Indexer", "Node"]

_log = logging.getLogger("matcompute.server")

#: Loads one version into tables of its own: ``indexer(connection, node, dataset_id, version)``. It begins by removing
#: what an interrupted run left. If it is a generator, what it did is committed at each ``yield``, so that others
#: can write in between; its version counts as indexed when it ends.
Indexer = Callable[[Connection, "Node", str, int], Iterator[Any] | None]


class Node:
    """What the doors of the server share.

    Parameters
    ----------
    publication
        Folder of the publication, or the publication.
    settings
        Read from the folder's ``node.yaml`` by default.
    """

    def __init__(self, publication: Path | Publication, settings: NodeSettings | None = None) -> None:
        self.publication = publication if isinstance(publication, Publication) else Publication(publication)
        self.settings = settings or NodeSettings.load(self.publication.folder)
        url = self.settings.database or f"sqlite:///{self.publication.folder / 'server.sqlite'}"
        self.engine = _engine(url)
        self._indexers: dict[str, Indexer] = {}
        self._lock = threading.RLock()
        self._indexing = threading.Lock()
        self._head = self._synced = -1
        self._events = _EventsHead(self.publication.events.path)
        self._keyring: tuple[int, Keyring] | None = None

    # -- what stands now --------------------------------------------------------------------------------------

    @property
    def head(self) -> int:
        """The last event that was written, read from the table of events itself (some microseconds)."""
        return self._events.read()

    @property
    def keyring(self) -> Keyring:
        """The node's public keys, read again when the file changes."""
        path = self.publication.keys / KEYRING
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            stamp = 0
        if self._keyring is None or self._keyring[0] != stamp:
            self._keyring = (stamp, Keyring.read(path))
        return self._keyring[1]

    def standing(self, dataset_id: str) -> Standing:
        """Return what holds now of a dataset, from the events."""
        return self.publication.events.standing(dataset_id)

    # -- the index --------------------------------------------------------------------------------------------

    def register(self, name: str, indexer: Indexer) -> None:
        """Have every available version loaded by an indexer; the name is remembered for ever."""
        self._indexers[name] = indexer

    def refresh(self) -> int:
        """Bring the index up to the events, without the indexers; every request begins with this.

        Returns
        -------
        int
            The last event in the index.

        Raises
        ------
        ServerError
            If the index cannot be written now: then nothing may be served from it.
        """
        head = self.head
        if head == self._head:
            return head
        with self._lock:
            try:
                self._catch_up()
            except OperationalError as error:
                raise ServerError(
                    f"the index is busy: {error.orig}", hint="try again in a few seconds"
                ) from error
            return self._head

    def _catch_up(self) -> None:
        while True:
            with self.engine.begin() as connection:
                # The head is read again under the lock: another process may have been faster.
                head = lock_head(connection)
                events = self.publication.events.after(head, 1000)
                if not events:
                    if head > self.head:
                        raise ServerError(
                            f"the index is at event {head}, but the last one is {self.head}: the events were replaced",
                            hint="make the index again: matcompute serve --rebuild",
                        )
                    self._head = head
                    return
                apply_events(connection, self.publication, events)

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that writes, one at a time in this process; commits at the end."""
        with self._lock, self.engine.begin() as connection:
            # The lock first, then the reads: SQLite cannot turn a reader into a writer once somebody else has written.
            lock_head(connection)
            yield connection

    @property
    def behind(self) -> bool:
        """Whether there are events that `sync` has not seen."""
        return self.head != self._synced

    def pending(self) -> list[tuple[str, str, int]]:
        """Return (indexer, dataset id, version) of what is still to be loaded."""
        done = indexed.alias()
        found = []
        with self.engine.connect() as connection:
            for name in self._indexers:
                matches = (
                    (done.c.indexer == name)
                    & (done.c.dataset_id == versions.c.dataset_id)
                    & (done.c.version == versions.c.version)
                )
                rows = connection.execute(
                    select(versions.c.dataset_id, versions.c.version)
                    .select_from(versions.outerjoin(done, matches))
                    .where(done.c.indexer.is_(None), ~versions.c.withdrawn)
                    .order_by(versions.c.created, versions.c.dataset_id, versions.c.version)
                )
                found += [(name, row.dataset_id, row.version) for row in rows]
        return found

    def sync(self) -> int:
        """Bring the index up to the events, and let the indexers load what is new; may be stopped at any point.

        Returns
        -------
        int
            The last event in the index.
        """
        head = self.refresh()
        with self._indexing:
            for name, dataset_id, version in self.pending():
                try:
                    self._load(name, dataset_id, version)
                except OperationalError:
                    raise  # the database is busy or gone: later, all of it
                except Exception:
                    # One damaged version must not keep the others out; it is tried again with the next event.
                    _log.exception("%s version %d cannot be loaded by '%s'", dataset_id, version, name)
            self._synced = head
        return head

    def _load(self, name: str, dataset_id: str, version: int) -> None:
        steps: Iterator[Any] | None = None
        with self.engine.connect() as connection:
            while True:
                with self._lock, connection.begin():
                    lock_head(connection)
                    if steps is None:
                        steps = iter(self._indexers[name](connection, self, dataset_id, version) or ())
                    try:
                        next(steps)
                    except StopIteration:
                        connection.execute(
                            insert(indexed).values(indexer=name, dataset_id=dataset_id, version=version)
                        )
                        return
                time.sleep(0.02)  # the turn of other processes that write

    def rebuild(self) -> None:
        """Empty the index (tokens and receipts stay) and make it again from the events and the store."""
        with self._lock, self.engine.begin() as connection:
            for table in DERIVED:
                connection.execute(table.delete())
            self._head = self._synced = -1
        self.sync()

    def create_tables(self) -> None:
        """Make the tables that are missing; parts that bring tables of their own are imported before.

        Raises
        ------
        ServerError
            If the database cannot be opened.
        """
        try:
            with self.engine.begin() as connection:
                metadata.create_all(connection)
                add_missing(connection)
        except SQLAlchemyError as error:
            raise ServerError(f"the index {self.engine.url!r} cannot be opened: {error}") from error


class _EventsHead:
    """Read the last sequence number through a connection that stays open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._inode = 0
        self._db: sqlite3.Connection | None = None

    def read(self) -> int:
        with self._lock:
            try:
                inode = os.stat(self.path).st_ino  # noqa: PTH116 - on the way of every request and every chunk
                if self._db is None or inode != self._inode:
                    if self._db is not None:
                        self._db.close()
                    # Not read-only: after a crash of the writer somebody must be able to roll its journal back.
                    self._db = sqlite3.connect(
                        f"{self.path.absolute().as_uri()}?mode=rw",
                        uri=True,
                        check_same_thread=False,
                        timeout=60,
                    )
                    self._inode = inode
                return int(self._db.execute("SELECT max(seq) FROM events").fetchone()[0] or 0)
            except FileNotFoundError:
                return 0
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return 0
                raise PublishError(f"{self.path}: {error}") from error


def _engine(url: str) -> Engine:
    try:
        # As many connections as there are threads that answer.
        options: dict[str, Any] = {"pool_size": 10, "max_overflow": 40}
        engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"), **options)
    except (SQLAlchemyError, ImportError, TypeError) as error:
        raise ServerError(
            f"database: {error}", hint="a URL such as postgresql+psycopg://user@host/name"
        ) from error
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def _connect(connection: sqlite3.Connection, _: Any) -> None:
            # SQLAlchemy says BEGIN itself, so that several reads of a transaction see one state.
            connection.isolation_level = None
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "cache_size=-65536"):
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN")

    return engine

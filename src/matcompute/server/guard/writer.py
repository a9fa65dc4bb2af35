"""The thread that writes the audit: what waits is committed together, and each waiter hears when it is durable.

Why batches with a wait, and not a queue that is written later: a record that may be lost in a crash is none, and the
records that matter most are those of the last seconds before one. So an answer leaves the node after its record is on
the disk. The price is one commit (0.2 ms on a good disk, some ms on a slow one) on top of the answer's time, not one
commit per request: all requests that arrive while one commit runs share the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from typing import Any

from matcompute.server.guard.audit import AuditError, AuditLog, now

__all__ = ["AuditWriter"]

_LOG = logging.getLogger(__name__)
#: Records in one transaction, and seconds between signs of life.
_BATCH, _BEAT = 1000, 15.0

Record = Mapping[str, Any]


class AuditWriter:
    """Write records from any thread or task.

    Parameters
    ----------
    log
        The audit.
    watch
        Called in the writer's thread with the records of each batch; what it returns (alerts) is written next.
    beat
        Seconds between signs of life.
    """

    def __init__(
        self,
        log: AuditLog,
        watch: Callable[[list[Record]], list[dict[str, Any]]] | None = None,
        beat: float = _BEAT,
    ) -> None:
        self.log = log
        self.run_id = str(uuid.uuid4())
        self.failed: str | None = None
        self._watch = watch
        self._beat = beat
        self._seen = 0.0
        self._queue: queue.SimpleQueue[tuple[Record, Future[int]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    @property
    def waiting(self) -> int:
        """Records that wait."""
        return self._queue.qsize()

    def start(self) -> None:
        """Start the thread; once it runs, this does nothing."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="matcompute-audit", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def submit(self, record: Record) -> Future[int]:
        """Hand in a record; the future's result is its number, once it is durable."""
        self.start()
        future: Future[int] = Future()
        self._queue.put((record, future))
        return future

    async def write(self, record: Record) -> int:
        """Write a record from a task and wait until it is durable.

        Raises
        ------
        AuditError
            If it cannot be written: then the caller must not answer.
        """
        return await asyncio.wrap_future(self.submit(record))

    # -- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._commit([({"at": now(), "kind": "start", "run": self.run_id}, Future())])
        self._sign_of_life()
        ended = False
        while not ended:
            batch: list[tuple[Record, Future[int]]] = []
            try:
                item = self._queue.get(timeout=self._beat)
                while True:
                    if item is None:
                        ended = True
                        break
                    batch.append(item)
                    if len(batch) >= _BATCH:
                        break
                    item = self._queue.get_nowait()
            except queue.Empty:
                pass
            if batch:
                self._commit(batch)
            if time.monotonic() - self._seen >= self._beat:
                self._sign_of_life()
        self._commit([({"at": now(), "kind": "stop", "run": self.run_id}, Future())])
        self._sign_of_life(ended=True)
        if self._db is not None:
            self._db.close()
            self._db = None

    def _commit(self, batch: list[tuple[Record, Future[int]]]) -> None:
        records = [record for record, _ in batch]
        try:
            if self._db is None:
                self._db = self.log.connect()
            numbers = self.log.append(records, self._db)
            self.failed = None
        except (AuditError, sqlite3.Error, OSError) as error:
            self._fail(error)
            told = error if isinstance(error, AuditError) else AuditError(f"{self.log.path}: {error}")
            for _, future in batch:
                with contextlib.suppress(InvalidStateError):
                    future.set_exception(told)
            return
        for number, (_, future) in zip(numbers, batch, strict=True):
            # A request that was cancelled meanwhile waits no more.
            with contextlib.suppress(InvalidStateError):
                future.set_result(number)
        alerts = self._watch(records) if self._watch is not None else []
        if alerts:
            for alert in alerts:
                _LOG.warning("alert: %s", alert.get("message"))
            self._commit([(alert, Future()) for alert in alerts])

    def _sign_of_life(self, *, ended: bool = False) -> None:
        self._seen = time.monotonic()
        try:
            if self._db is None:
                self._db = self.log.connect()
            self.log.beat(self.run_id, self._db, ended=ended)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failed = str(error)
        _LOG.error("the audit cannot be written: %s", error)
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

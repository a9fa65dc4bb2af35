"""Whether the node can serve: ``/healthz``."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matcompute.server.errors import ServerError

if TYPE_CHECKING:
    from matcompute.server.cutting import Cutter
    from matcompute.server.guard.writer import AuditWriter
    from matcompute.server.node import Node

__all__ = ["Health", "State"]

#: With less than this the audit will soon have no room.
_FREE = 64 << 20


@dataclass(frozen=True)
class State:
    """What was found: part → what is wrong, None if nothing."""

    checks: dict[str, str | None]

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not any(self.checks.values())


class Health:
    """Look at index, store, keys, audit and disk; at most once a second, whoever asks.

    Parameters
    ----------
    node, writer, cutter
        What is looked at.
    """

    def __init__(self, node: Node, writer: AuditWriter, cutter: Cutter | None = None) -> None:
        self._node, self._writer, self._cutter = node, writer, cutter
        self._lock = threading.Lock()
        self._known: tuple[float, State] | None = None

    def check(self) -> State:
        """Return what holds now."""
        with self._lock:
            at = time.monotonic()
            if self._known is None or at - self._known[0] > 1.0:
                parts: dict[str, Callable[[], str | None]] = {
                    "index": self._index,
                    "store": self._store,
                    "keys": self._keys,
                    "audit": lambda: self._writer.failed,
                    "disk": self._disk,
                    "downloads": lambda: self._cutter.failed if self._cutter else None,
                }
                self._known = (at, State({name: _try(look) for name, look in parts.items()}))
            return self._known[1]

    def _index(self) -> str | None:
        with self._node.engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM state")
        self._node.refresh()
        return None

    def _store(self) -> str | None:
        store = self._node.publication.store
        if self._node.head and not store.is_there():
            raise ServerError("there is no store, but there are events")
        return None

    def _keys(self) -> str | None:
        if self._node.head:
            self._node.keyring.check()
        return None

    def _disk(self) -> str | None:
        folder: Path = self._node.publication.folder
        free = shutil.disk_usage(folder).free
        return None if free > _FREE else f"{free >> 20} MiB are free"


def _try(look: Callable[[], str | None]) -> str | None:
    try:
        return look()
    except Exception as error:
        return str(error) or type(error).__name__

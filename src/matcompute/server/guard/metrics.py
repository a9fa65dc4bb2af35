"""Numbers for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from sqlalchemy import func, select

from matcompute.server.tables import datasets

if TYPE_CHECKING:
    from matcompute.server.guard.middleware import Watchman

__all__ = ["Metrics", "door_of"]

_DOORS = ("blobs", "changes", "datasets", "healthz", "metrics", "node", "oai", "optimade", "receipts")


def door_of(path: str) -> str:
    """Return the door that a path leads to: a fixed set, so that clients cannot make new series."""
    first = path.strip("/").partition("/")[0]
    return first if first in _DOORS else "portal"


class Metrics:
    """The counters of one server process.

    Parameters
    ----------
    watchman
        Where the gauges are read when somebody asks.
    """

    def __init__(self, watchman: Watchman) -> None:
        self._watchman = watchman
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "matcompute_requests", "Answers.", ["door", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "matcompute_first_byte_seconds",
            "Time to the first byte, the audit's commit included.",
            ["door"],
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1, 3, 10, 30),
            registry=self.registry,
        )
        self.sent = Counter(
            "matcompute_sent_bytes", "Content that was sent.", ["door", "tier"], registry=self.registry
        )
        self.refused = Counter(
            "matcompute_refused", "Requests over a rate limit or a quota.", ["why"], registry=self.registry
        )
        self.alerts = Counter(
            "matcompute_alerts", "Alerts that were raised.", ["rule"], registry=self.registry
        )
        self.open = Gauge("matcompute_open_answers", "Answers that are being sent.", registry=self.registry)
        gauges = {
            "matcompute_audit_waiting": ("Records that wait to be written.", lambda: watchman.writer.waiting),
            "matcompute_audit_records": ("Records of the audit.", lambda: watchman.log.head().seq),
            "matcompute_healthy": ("1 if /healthz says ok.", lambda: float(watchman.health.check().ok)),
            "matcompute_events": ("Number of the last event.", lambda: watchman.node.head),
        }
        for name, (text, read) in gauges.items():
            Gauge(name, text, registry=self.registry).set_function(read)
        self._datasets = Gauge(
            "matcompute_datasets", "Available datasets.", ["tier", "grade"], registry=self.registry
        )
        self._entries = Gauge(
            "matcompute_entries", "Entries of available datasets.", ["tier", "grade"], registry=self.registry
        )

    def expose(self) -> bytes:
        """Return the text that Prometheus reads."""
        self._datasets.clear()
        self._entries.clear()
        c = datasets.c
        query = select(c.tier, c.grade, func.count(), func.sum(c.entries)).where(~c.withdrawn)
        with self._watchman.node.engine.connect() as connection:
            for tier, grade, count, entries in connection.execute(query.group_by(c.tier, c.grade)):
                self._datasets.labels(tier, grade).set(count)
                self._entries.labels(tier, grade).set(entries)
        return generate_latest(self.registry)

"""How fast one reader may ask: token buckets, kept in memory, one set per server process."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Bucket", "RateLimits", "reader_of"]

_READERS = 50_000


@dataclass
class Bucket:
    """What one reader has left."""

    tokens: float
    at: float


@dataclass(frozen=True)
class Verdict:
    """Whether a request may pass; ``limit`` per minute, requests left, seconds until the next one may come."""

    allowed: bool
    limit: int
    left: int
    wait: float


class RateLimits:
    """A bucket per reader, as large as one minute's requests and refilled evenly.

    Parameters
    ----------
    clock
        Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, reader: str, per_minute: int) -> Verdict:
        """Take one request out of a reader's bucket."""
        with self._lock:
            at = self._clock()
            bucket = self._buckets.get(reader)
            if bucket is None:
                bucket = self._buckets[reader] = Bucket(float(per_minute), at)
                while len(self._buckets) > _READERS:
                    self._buckets.popitem(last=False)  # the one that asked least recently: its bucket is full
            self._buckets.move_to_end(reader)
            rate = per_minute / 60
            bucket.tokens = min(float(per_minute), bucket.tokens + (at - bucket.at) * rate)
            bucket.at = at
            if bucket.tokens < 1:
                return Verdict(False, per_minute, 0, (1 - bucket.tokens) / rate)
            bucket.tokens -= 1
            return Verdict(True, per_minute, int(bucket.tokens), 0.0)


def reader_of(address: str) -> str:
    """Return whom an address counts as: itself, or its /64 network (what one household of IPv6 gets)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)

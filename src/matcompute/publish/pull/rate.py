"""A limit of bandwidth that several threads share."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from matcompute.errors import InputError

__all__ = ["Limiter", "parse_rate"]

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMG]?)(i?)B?(?:/s)?", re.IGNORECASE)


def parse_rate(text: str) -> float:
    """Return bytes per second of ``500k``, ``5M``, ``1.5 GB/s``, ``20MiB``.

    Raises
    ------
    InputError
        If it is none.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None or float(found[1]) == 0:
        raise InputError(
            f"'{text}' is not a rate", hint="write for example 500k, 5M or 1G (bytes per second)"
        )
    base = 1024 if found[3] else 1000
    return float(float(found[1]) * base ** ["", "k", "m", "g"].index(found[2].lower()))


class Limiter:
    """Let threads take bytes no faster than a rate on the average; at most a quarter of a second ahead.

    Parameters
    ----------
    rate
        Bytes per second; None: no limit.
    sleep
        How to wait.
    """

    def __init__(self, rate: float | None, sleep: Callable[[float], object] = time.sleep) -> None:
        self.rate = rate
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free = time.monotonic()

    @property
    def block(self) -> int:
        """How many bytes to read at once, so that a slow limit is kept smoothly."""
        return 1 << 18 if self.rate is None else max(1024, min(1 << 18, int(self.rate / 8)))

    def take(self, size: int) -> None:
        """Wait until these bytes are within the rate."""
        if self.rate is None:
            return
        with self._lock:
            now = time.monotonic()
            # Each byte has its place on a line of time that nobody may run ahead of.
            self._free = max(self._free, now - 0.25) + size / self.rate
            wait = self._free - now
        if wait > 0:
            self._sleep(wait)

"""When the work has to stop: signals, the job's walltime, a structure's own time-out."""

from __future__ import annotations

import contextlib
import signal
import time
from types import FrameType

__all__ = ["STOP_SIGNALS", "StopRequest", "Stopped", "StructureDeadline", "TimedOut"]

#: Signals that end a job cleanly: the scheduler's warning, Ctrl-C, and the usual early notice of Slurm and SGE.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(Exception):
    """The job ends before this structure is finished."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TimedOut(Exception):
    """One structure took longer than its time-out."""


class StopRequest:
    """Remembers that the job was asked to stop.

    Parameters
    ----------
    stop_at
        Time of ``time.monotonic()`` at which the walltime is used up, or None.
    """

    def __init__(self, stop_at: float | None = None) -> None:
        self.stop_at = stop_at
        self.signal: int | None = None
        self._asked: str | None = None

    @classmethod
    def within(cls, walltime_s: float | None, margin_s: float = 60.0) -> StopRequest:
        """Return a request that comes ``margin_s`` (at most a fifth of the walltime) before its end, from now on."""
        if walltime_s is None:
            return cls()
        return cls(time.monotonic() + walltime_s - min(margin_s, 0.2 * walltime_s))

    def install(self) -> None:
        """Catch the stop signals in this process."""
        for number in STOP_SIGNALS:
            # Fails outside of the main thread, where the caller asks for no signal handling anyway.
            with contextlib.suppress(ValueError):
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    def ask(self, reason: str | None) -> None:
        """Stop for a reason that another process gave."""
        self._asked = reason or "asked to stop"

    @property
    def reason(self) -> str | None:
        """``walltime``, a signal's name, or None while the work may go on."""
        # The walltime first: at its end the supervisor signals the workers as well.
        if self.stop_at is not None and time.monotonic() >= self.stop_at:
            return "walltime"
        if self.signal is not None:
            return signal.Signals(self.signal).name
        return self._asked


class StructureDeadline:
    """What tasks ask between evaluations.

    Parameters
    ----------
    request
        The job's stop request.
    timeout_s
        Time-out of this structure, or None.
    """

    def __init__(self, request: StopRequest, timeout_s: float | None = None) -> None:
        self.request = request
        self.timeout_s = timeout_s
        self.started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Time since the structure was begun, in s."""
        return time.monotonic() - self.started

    def check(self) -> None:
        """Return, or raise :class:`Stopped` or :class:`TimedOut`."""
        reason = self.request.reason
        if reason is not None:
            raise Stopped(reason)
        if self.timeout_s is not None and self.elapsed > self.timeout_s:
            raise TimedOut(f"took longer than {self.timeout_s:g} s")

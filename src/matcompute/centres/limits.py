"""How many more jobs a centre may get now: its window, its rate, the user's whole queue, the cap over all centres."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matcompute.centres.model import Centre

__all__ = ["MINUTE_S", "Load", "Room", "backoff_s", "partition_room", "room"]

#: Span over which submissions are counted for ``submit_per_min``.
MINUTE_S = 60.0


@dataclass(frozen=True)
class Load:
    """What we have at a centre.

    Attributes
    ----------
    in_flight
        Our batches there that have not ended.
    recent
        Times of our submissions there within the last minute, in s since the epoch.
    user_jobs
        Jobs of the user that the scheduler listed when it was asked last, ours among them; None if unknown.
    in_flight_then
        Our batches in flight when the scheduler was asked.
    singles
        Those of ``in_flight`` that are jobs of per-structure stages.
    """

    in_flight: int = 0
    recent: Sequence[float] = ()
    user_jobs: int | None = None
    in_flight_then: int = 0
    singles: int = 0

    @property
    def foreign(self) -> int:
        """Jobs of the user that are not ours."""
        return 0 if self.user_jobs is None else max(0, self.user_jobs - self.in_flight_then)


@dataclass(frozen=True)
class Room:
    """How many more jobs may be submitted, and what the limit is.

    Attributes
    ----------
    count
        Jobs.
    limit
        The limit that allows so few, in words.
    wait_s
        Seconds after which it may allow more without a job ending; None if only an end helps.
    """

    count: int
    limit: str
    wait_s: float | None = None


def room(
    centre: Centre,
    load: Load,
    *,
    now: float,
    everywhere: int = 0,
    max_jobs: int | None = None,
    single: bool = False,
) -> Room:
    """Return how many more jobs a centre may get.

    Parameters
    ----------
    centre
        With its limits.
    load
        What is there.
    now
        In s since the epoch.
    everywhere
        Our batches in flight at all centres.
    max_jobs
        One limit over all centres; None is none.
    single
        Whether jobs of per-structure stages are asked for. On this machine they have a window of their own: they wait
        for a core like all others, but what surrounds each of them in AiiDA takes longer than many of them.
    """
    scheduler = centre.scheduler
    here, limit = load.in_flight, scheduler.max_submitted
    if centre.is_local:
        here = load.singles if single else load.in_flight - load.singles
        limit = centre.window_singles if single else limit
    rooms = [Room(limit - here, f"scheduler.max_submitted: {here} of {limit} batches in flight")]
    if scheduler.max_user_jobs is not None:
        used = load.in_flight + load.foreign
        rooms.append(
            Room(
                scheduler.max_user_jobs - used,
                f"scheduler.max_user_jobs: you have {used} of {scheduler.max_user_jobs} jobs there, "
                f"{load.foreign} not from here",
            )
        )
    if scheduler.submit_per_min is not None:
        rooms.append(_rate(scheduler.submit_per_min, load.recent, now))
    if max_jobs is not None:
        rooms.append(
            Room(max_jobs - everywhere, f"limits.max_jobs: {everywhere} of {max_jobs} at all centres")
        )
    least = min(rooms, key=lambda item: item.count)
    return Room(max(0, least.count), least.limit, least.wait_s)


def _rate(per_minute: float, recent: Sequence[float], now: float) -> Room:
    # Less than one a minute is one in a longer time.
    allowed, span = (int(per_minute), MINUTE_S) if per_minute >= 1 else (1, MINUTE_S / per_minute)
    inside = sorted(t for t in recent if t > now - span)
    left = allowed - len(inside)
    wait = None if left > 0 else inside[len(inside) - allowed] + span - now
    return Room(left, f"scheduler.submit_per_min: {len(inside)} submitted within {span:.0f} s", wait)


def partition_room(centre: Centre, partition: str, in_flight: int) -> int | None:
    """Return how many more jobs a partition may get by its ``max_jobs``; None is no limit."""
    limit = centre.partition(partition).max_jobs
    return None if limit is None else max(0, limit - in_flight)


def backoff_s(failures: int, *, first: float = 15.0, longest: float = 900.0, jitter: float = 0.2) -> float:
    """Return how long to wait after so many failures in a row: doubled each time, bounded, spread by ``jitter``.

    Spread, so that many clients of a login host that comes back do not all call at the same moment.
    """
    if failures <= 0:
        return 0.0
    wait = min(longest, first * 2.0 ** min(failures - 1, 32))
    return wait * (1.0 + random.uniform(-jitter, jitter))

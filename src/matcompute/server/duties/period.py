"""Spans of time of reports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from matcompute.errors import InputError
from matcompute.times import utc_text

__all__ = ["Period"]

_SHAPES = re.compile(r"(?P<year>\d{4})(?:-(?:(?P<month>\d\d)|Q(?P<quarter>[1-4])))?")


@dataclass(frozen=True)
class Period:
    """From a time on, up to (and without) another; UTC, ISO 8601 with Z, so that text order is time order."""

    begin: str
    end: str

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read a year (2026), a quarter (2026-Q3), a month (2026-03) or a span (2026-03-01..2026-03-15).

        Raises
        ------
        InputError
            If it is none of these.
        """
        first, dots, last = text.partition("..")
        try:
            if dots:
                period = cls(utc_text(datetime.fromisoformat(first)), utc_text(datetime.fromisoformat(last)))
                if period.begin >= period.end:
                    raise ValueError
                return period
            match = _SHAPES.fullmatch(text)
            if match is None:
                raise ValueError
            year = int(match["year"])
            if match["month"]:
                month, length = int(match["month"]), 1
            elif match["quarter"]:
                month, length = 3 * int(match["quarter"]) - 2, 3
            else:
                month, length = 1, 12
            begin = datetime(year, month, 1, tzinfo=UTC)
            end = (begin + timedelta(days=31 * length)).replace(day=1)
            if length == 12:
                end = begin.replace(year=year + 1)
            return cls(utc_text(begin), utc_text(end))
        except ValueError as error:
            raise InputError(
                f"'{text}' is no period", hint="such as 2026, 2026-Q3, 2026-03 or 2026-03-01..2026-03-15"
            ) from error

    @classmethod
    def this_month(cls) -> Period:
        """Return the month that runs now (UTC)."""
        return cls.parse(datetime.now(UTC).strftime("%Y-%m"))

    def holds(self, at: str) -> bool:
        """Whether a time is in it."""
        return self.begin <= at < self.end

    def seconds_of(self, spans: list[tuple[str, str]], now: datetime | None = None) -> tuple[float, float]:
        """Return the seconds that spans cover, each counted once, and those of the period that have passed."""
        begin, end = _time(self.begin), min(_time(self.end), now or datetime.now(UTC))
        covered, reached = 0.0, begin
        for first, last in sorted(spans):
            start, stop = max(_time(first), reached), min(_time(last), end)
            if stop > start:
                covered += (stop - start).total_seconds()
                reached = stop
        return covered, max(0.0, (end - begin).total_seconds())


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))

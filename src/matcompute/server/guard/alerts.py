"""Rules that look at the audit as it is written, and raise alerts: bulk pulls, odd hours, failures, server errors.

An alert is itself a record of the audit (kind ``alert``), so it cannot be made to vanish; it is counted in
``/metrics``, logged, told by webhook or e-mail if there is one, and listed by ``matcompute node alerts``.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator

from matcompute.delivery import EmailOptions
from matcompute.server.guard.audit import now

__all__ = ["AlertRules", "Watch"]

#: Subjects that a rule remembers at most: an attacker with many addresses cannot fill the memory.
_SUBJECTS = 20_000


class AlertRules(BaseModel):
    """When to raise an alert: the part ``alerts`` of ``node.yaml``.

    Parameters
    ----------
    bulk_bytes, bulk_files, bulk_minutes
        A bulk pull: more than so many bytes, or answers with content, to one reader within the window.
    failures, failure_minutes
        So many refusals (401, 403, 404, 416, 429) of one address within the window: somebody tries doors.
    errors, error_minutes
        So many answers of 500 and above within the window, from everybody.
    working_hours, time_zone
        Restricted data that a token reads outside of these hours is odd; an empty string switches the rule off.
    trusted
        Names of tokens whose bulk pulls and night work are expected: the platform's own harvester.
    webhook, webhook_token
        Where alerts are told (`matcompute.server.guard.tell`): an address, or ``$NAME`` of the environment variable
        that holds it; and ``$NAME`` of the one that holds a bearer token.
    email
        Where alerts are told by mail (`EmailOptions`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bulk_bytes: int = Field(100 << 30, ge=1)
    bulk_files: int = Field(20_000, ge=1)
    bulk_minutes: int = Field(60, ge=1)
    failures: int = Field(50, ge=1)
    failure_minutes: int = Field(10, ge=1)
    errors: int = Field(10, ge=1)
    error_minutes: int = Field(5, ge=1)
    working_hours: str = "07:00-22:00"
    time_zone: str = "Asia/Shanghai"
    trusted: tuple[str, ...] = ()
    webhook: str = Field("", pattern=r"^(https?://\S+|\$[A-Za-z_][A-Za-z0-9_]*)?$")
    webhook_token: str = Field("", pattern=r"^(\$[A-Za-z_][A-Za-z0-9_]*)?$")
    email: EmailOptions | None = None

    @field_validator("working_hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        if value:
            begin, _, end = value.partition("-")
            try:
                time.fromisoformat(begin.strip()), time.fromisoformat(end.strip())
            except ValueError as error:
                raise ValueError(f"'{value}' is not a span of hours such as 07:00-22:00") from error
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"'{value}' is not a time zone such as Asia/Shanghai") from error
        return value

    def odd(self, at: datetime) -> bool:
        """Whether a time is outside of the working hours."""
        if not self.working_hours:
            return False
        begin, _, end = self.working_hours.partition("-")
        first, last = time.fromisoformat(begin.strip()), time.fromisoformat(end.strip())
        local = at.astimezone(ZoneInfo(self.time_zone)).time()
        inside = first <= local < last if first <= last else local >= first or local < last
        return not inside


@dataclass
class _Window:
    """Sums over a sliding window, in 60 bins: a flood does not fill the memory."""

    items: deque[tuple[float, int]] = field(default_factory=deque)
    total: int = 0

    def add(self, at: float, value: int, length: float) -> None:
        if self.items and at - self.items[-1][0] < length / 60:
            first, before = self.items.pop()
            self.items.append((first, before + value))
        else:
            self.items.append((at, value))
        self.total += value
        while self.items and self.items[0][0] <= at - length:
            self.total -= self.items.popleft()[1]


class Watch:
    """Look at records and return alerts.

    Parameters
    ----------
    rules
        The limits.
    """

    def __init__(self, rules: AlertRules) -> None:
        self.rules = rules
        self._windows: OrderedDict[tuple[str, str], _Window] = OrderedDict()
        self._quiet: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.raised: dict[str, int] = {}

    def __call__(self, records: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the alerts, as records to be written, that these records raise."""
        return [alert for record in records for alert in self._look(record)]

    def _look(self, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if record.get("kind") not in ("request", "open", "close"):
            return
        r = self.rules
        moment = datetime.fromisoformat(str(record["at"]).replace("Z", "+00:00"))
        at = moment.astimezone(UTC).timestamp()
        name, address = str(record.get("principal") or ""), str(record.get("address") or "")
        reader = name or address
        status, trusted = int(record.get("status") or 0), name in r.trusted
        size = int(record.get("bytes") or 0)
        if size and record.get("sha256") and not trusted:
            length = 60.0 * r.bulk_minutes
            pulled = self._sum(("bytes", reader), at, size, length)
            if pulled > r.bulk_bytes:
                text = f"{pulled:,} bytes within {r.bulk_minutes} min"
                yield from self._raise("bulk-pull", reader, at, length, record, text)
            files = self._sum(("files", reader), at, 1, length)
            if files > r.bulk_files:
                text = f"{files:,} files within {r.bulk_minutes} min"
                yield from self._raise("bulk-pull", reader, at, length, record, text)
        if record.get("kind") == "close":
            return
        if status in (401, 403, 404, 416, 429):
            length = 60.0 * r.failure_minutes
            count = self._sum(("failures", address), at, 1 + int(record.get("unrecorded") or 0), length)
            if count >= r.failures:
                text = f"{count} refusals within {r.failure_minutes} min"
                yield from self._raise("failures", address, at, length, record, text)
        if status >= 500:
            length = 60.0 * r.error_minutes
            count = self._sum(("errors", ""), at, 1, length)
            if count >= r.errors:
                text = f"{count} server errors within {r.error_minutes} min"
                yield from self._raise("errors", "the node", at, length, record, text)
        restricted = record.get("tier", "public") != "public" and status < 400
        if name and restricted and not trusted and r.odd(moment):
            text = f"restricted data read outside of {r.working_hours} ({r.time_zone})"
            yield from self._raise("odd-hours", name, at, 12 * 3600.0, record, text)

    def _sum(self, key: tuple[str, str], at: float, value: int, length: float) -> int:
        window = self._windows.setdefault(key, _Window())
        self._windows.move_to_end(key)
        while len(self._windows) > _SUBJECTS:
            self._windows.popitem(last=False)
        window.add(at, value, length)
        return window.total

    def _raise(
        self, rule: str, subject: str, at: float, quiet: float, record: Mapping[str, Any], text: str
    ) -> Iterator[dict[str, Any]]:
        key = (rule, subject)
        if at - self._quiet.get(key, float("-inf")) < quiet:
            return  # told already; the audit has every request
        self._quiet[key] = at
        self._quiet.move_to_end(key)
        while len(self._quiet) > _SUBJECTS:
            self._quiet.popitem(last=False)
        self.raised[rule] = self.raised.get(rule, 0) + 1
        yield {
            "at": now(),
            "kind": "alert",
            "rule": rule,
            "subject": subject,
            "principal": record.get("principal"),
            "address": record.get("address"),
            "dataset_id": record.get("dataset_id"),
            "message": f"{rule}: {subject}: {text}",
        }

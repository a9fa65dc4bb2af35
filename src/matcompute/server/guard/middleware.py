"""The guard as ASGI middleware: limits before a request, its record before the answer, metering after it."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matcompute.server.access import ANONYMOUS, Principal, authenticate
from matcompute.server.errors import problem
from matcompute.server.guard.alerts import Watch
from matcompute.server.guard.audit import AuditError, AuditLog, now
from matcompute.server.guard.health import Health
from matcompute.server.guard.limits import RateLimits, Verdict, reader_of
from matcompute.server.guard.metering import exceeded
from matcompute.server.guard.metrics import Metrics, door_of
from matcompute.server.guard.tell import Teller
from matcompute.server.guard.writer import AuditWriter

if TYPE_CHECKING:
    from matcompute.server.cutting import Cutter
    from matcompute.server.node import Node

__all__ = ["FILE", "Guard", "Watchman"]

_LOG = logging.getLogger(__name__)
FILE = "audit.sqlite"
#: Seconds for which limits and records believe a token without looking again; doors look each time.
_REMEMBER, _TOKENS = 5.0, 10_000
#: Seconds for which a reader that is refused for its rate gets no second record.
_FLOOD = 60.0
#: Not in the audit and not limited: what asks every few seconds, and files that are the same for everybody.
_UNWATCHED, _STATIC = "/healthz", "/static/"


class Watchman:
    """What the guard keeps for one server process.

    Parameters
    ----------
    node
        Whose doors are guarded; the audit is ``audit.sqlite`` in its publication's folder.
    cutter
        What ends downloads that nginx sends; its failures make the node unhealthy.
    """

    def __init__(self, node: Node, cutter: Cutter | None = None) -> None:
        self.node = node
        self.log = AuditLog(node.publication.folder / FILE)
        rules = node.settings.alerts
        self.watch = Watch(rules)
        self.teller = Teller(rules, node.settings.id)
        self.writer = AuditWriter(self.log, self._look)
        self.limits = RateLimits()
        self.health = Health(node, self.writer, cutter)
        self.metrics = Metrics(self)
        self._tokens: OrderedDict[str, tuple[float, Principal | None]] = OrderedDict()
        self._floods: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def _look(self, records: list[Any]) -> list[dict[str, Any]]:
        alerts = self.watch(records)
        for alert in alerts:
            self.metrics.alerts.labels(alert["rule"]).inc()
            self.teller.tell(alert)
        return alerts

    async def who(self, header: str | None) -> Principal | None:
        """Return whom limits and records are for; None for a token that does not hold."""
        if header is None:
            return ANONYMOUS
        at = time.monotonic()
        known = self._tokens.get(header)
        if known is None or at - known[0] > _REMEMBER:
            try:
                found = await anyio.to_thread.run_sync(authenticate, self.node, header)
            except HTTPException:
                found = None
            known = self._tokens[header] = (at, found)
            self._tokens.move_to_end(header)
            while len(self._tokens) > _TOKENS:
                self._tokens.popitem(last=False)
        return known[1]

    def admit(self, who: Principal | None, address: str) -> Verdict:
        """Take one request out of the reader's bucket."""
        limits = self.node.settings.limits
        member = who is not None and who.token_id is not None
        per_minute = limits.member_per_minute if member else limits.anonymous_per_minute
        return self.limits.take(_reader(who, address), per_minute)

    def flood(self, who: Principal | None, address: str) -> int | None:
        """Return how many refusals of a reader had no record since its last one; None if this one gets none either.

        One record a minute: a flood that is refused shall not fill the disk that the audit needs.
        """
        reader, at = _reader(who, address), time.monotonic()
        begun, more = self._floods.get(reader, (at - _FLOOD, 0))
        if at - begun < _FLOOD:
            self._floods[reader] = (begun, more + 1)
            return None
        self._floods[reader] = (at, 0)
        self._floods.move_to_end(reader)
        while len(self._floods) > _TOKENS:
            self._floods.popitem(last=False)
        return more


@dataclass
class _Answer:
    """An answer on its way out."""

    start: Message | None = None
    number: int | None = None  # of the open record, when the answer has several pieces
    sent: int = 0
    done: bool = False
    refused: bool = False
    gone: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


class Guard:
    """ASGI middleware.

    An answer in one piece has one record, written before the answer's first byte leaves. An answer in pieces has two:
    ``open``, written before the first byte, and ``close`` with what was really sent. So no content leaves without a
    durable record, whatever kills the process.
    """

    def __init__(self, app: ASGIApp, watchman: Watchman) -> None:
        self.app, self.watchman = app, watchman

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._life(scope, receive, send)
            return
        path = scope.get("path", "")
        if scope["type"] != "http" or path == _UNWATCHED or path.startswith(_STATIC):
            await self.app(scope, receive, send)
            return
        await self._guard(scope, receive, send)

    async def _life(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.watchman.writer.start()
        try:
            await self.app(scope, receive, send)
        finally:
            await anyio.to_thread.run_sync(self.watchman.writer.stop)
            await anyio.to_thread.run_sync(self.watchman.teller.stop)

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        man, begin = self.watchman, time.perf_counter()
        headers = {k: v.decode("latin-1") for k, v in scope["headers"]}
        address = scope["client"][0] if scope.get("client") else ""
        answer = _Answer()
        scope.setdefault("state", {})["audit"] = answer.notes
        who = await man.who(headers.get(b"authorization"))
        request = _record(scope, headers, address, who)
        verdict = man.admit(who, address)
        if not verdict.allowed:
            man.metrics.refused.labels("rate").inc()
            detail = f"more than {verdict.limit} requests in a minute"
            refusal = problem(429, detail, {"Retry-After": str(int(verdict.wait) + 1)})
            more = man.flood(who, address)
            if more is None:
                man.metrics.requests.labels(door_of(scope["path"]), _method(scope["method"]), 429).inc()
                await refusal(scope, receive, send)
                return
            answer.notes.update({"refused": "rate", "unrecorded": more or None})
            await refusal(scope, receive, self._sender(scope, request, answer, begin, send, None))
            return
        sender = self._sender(scope, request, answer, begin, send, who)

        async def receiver() -> Message:
            message = await receive()
            answer.gone = answer.gone or message["type"] == "http.disconnect"
            return message

        try:
            await self.app(scope, receiver, sender)
            if answer.start is not None:
                # Access ended before the first piece: the head goes out, and the server breaks the connection.
                start = answer.start
                await self._first(request, answer, start["status"], begin, more=True)
                await send(start)
        except Exception:
            if not answer.refused:
                if answer.number is None and not answer.done:
                    # What stands around us answers with 500.
                    await self._first(request, answer, 500, begin, more=False)
                raise
        finally:
            if answer.number is not None:
                man.metrics.open.dec()
                if not answer.done:
                    # The client is gone, or access stopped: nobody waits for this record.
                    man.writer.submit(self._close(request, answer, broken=True))

    def _sender(
        self,
        scope: Scope,
        request: dict[str, Any],
        answer: _Answer,
        begin: float,
        send: Send,
        who: Principal | None,
    ) -> Send:
        man, door = self.watchman, door_of(scope["path"])

        async def sender(message: Message) -> None:
            if answer.refused:
                raise ConnectionError("the answer was refused")
            if message["type"] == "http.response.start":
                answer.start = message
                return
            if message["type"] != "http.response.body":
                await send(message)
                return
            more = message.get("more_body", False)
            if not answer.gone:  # the server accepts what nobody receives
                answer.sent += len(message.get("body", b""))
            if answer.start is not None:
                start, answer.start = answer.start, None
                if why := await self._quota(start, answer, who):
                    answer.refused = True
                    start, message, more = _refusal(why)
                    answer.sent = len(message["body"])
                try:
                    await self._first(request, answer, start["status"], begin, more=more)
                except AuditError as error:
                    _LOG.error("no answer without a record: %s", error)
                    answer.refused, answer.number = True, None
                    start, message, more = _busy()
                man.metrics.requests.labels(door, _method(scope["method"]), start["status"]).inc()
                man.metrics.seconds.labels(door).observe(time.perf_counter() - begin)
                await send(start)
            elif not more and answer.number is not None and not answer.gone:
                answer.done = True
                await man.writer.write(self._close(request, answer))
            size = answer.notes.get("bytes", answer.sent) if not more else 0
            if size:
                man.metrics.sent.labels(door, answer.notes.get("tier", "public")).inc(size)
            await send(message)

        return sender

    async def _first(
        self, request: dict[str, Any], answer: _Answer, status: int, begin: float, *, more: bool
    ) -> None:
        man = self.watchman
        record = {
            **request,
            **answer.notes,
            "at": now(),
            "kind": "open" if more else "request",
            "status": status,
            "ms": round(1000 * (time.perf_counter() - begin), 1),
        }
        if more:
            record.pop("bytes", None)
            answer.number = await man.writer.write(record)
            man.metrics.open.inc()
        else:
            record.setdefault("bytes", answer.sent)
            if request["path"] != "/metrics" or status != 200:  # Prometheus asks every few seconds
                await man.writer.write(record)
            answer.done = True

    def _close(self, request: dict[str, Any], answer: _Answer, *, broken: bool = False) -> dict[str, Any]:
        kept = ("principal", "token", "address")
        seen = ("dataset_id", "version", "tier", "grade", "sha256")
        return {
            **{k: request[k] for k in kept if k in request},
            **{k: answer.notes[k] for k in seen if k in answer.notes},
            "at": now(),
            "kind": "close",
            "ref": answer.number,
            "bytes": answer.sent,
            "broken": True if broken else None,
        }

    async def _quota(self, start: Message, answer: _Answer, who: Principal | None) -> str | None:
        man = self.watchman
        restricted = answer.notes.get("tier", "public") != "public"
        quotas = man.node.settings.quotas
        if not restricted or start["status"] >= 400 or who is None or who.token_id is None or not quotas:
            return None
        why = await anyio.to_thread.run_sync(exceeded, man.log, quotas, who.name, who.tier)
        if why:
            man.metrics.refused.labels("quota").inc()
            answer.notes["refused"] = "quota"
        return why


def _reader(who: Principal | None, address: str) -> str:
    known = who is not None and who.token_id is not None
    return f"token {who.token_id}" if known and who else reader_of(address)


def _method(method: str) -> str:
    return method if method in ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH") else "other"


def _record(scope: Scope, headers: dict[bytes, str], address: str, who: Principal | None) -> dict[str, Any]:
    """Return what is known of a request before it is answered; never the token."""
    query = scope.get("query_string", b"").decode("latin-1")
    known = who is not None and who.token_id is not None
    return {
        "principal": who.name if known and who else None,
        "token": who.token_id if known and who else None,
        "address": address,
        "method": scope["method"][:16],
        "path": scope["path"][:512],
        "query": query[:512] or None,
        "range": headers.get(b"range", "")[:64] or None,
        "agent": headers.get(b"user-agent", "")[:128] or None,
    }


def _messages(status: int, detail: str, headers: dict[str, str]) -> tuple[Message, Message, bool]:
    answer = problem(status, detail, headers)
    start = {"type": "http.response.start", "status": status, "headers": answer.raw_headers}
    return start, {"type": "http.response.body", "body": bytes(answer.body), "more_body": False}, False


def _refusal(why: str) -> tuple[Message, Message, bool]:
    today = datetime.now(UTC)
    following = (today.replace(day=1, hour=0, minute=0, second=0) + timedelta(days=32)).replace(day=1)
    seconds = int((following - today).total_seconds()) + 1
    return _messages(429, why, {"Retry-After": str(seconds)})


def _busy() -> tuple[Message, Message, bool]:
    return _messages(503, "the node cannot write its audit, so it serves nothing", {"Retry-After": "30"})

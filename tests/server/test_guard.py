"""The guard around real doors: records, limits, quotas, alerts, metrics, health."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.testclient import TestClient

from matcompute.errors import InputError
from matcompute.server import guard, tokens
from matcompute.server.app import create_app
from matcompute.server.guard.alerts import AlertRules, Watch
from matcompute.server.guard.audit import AuditLog
from matcompute.server.guard.limits import RateLimits, reader_of
from matcompute.server.guard.metering import Quota
from matcompute.server.guard.notes import note
from matcompute.server.node import Node
from matcompute.server.settings import Limits, NodeSettings

CHUNK = b"x" * 65536


@pytest.fixture
def guarded(release: Any) -> Callable[..., tuple[FastAPI, AuditLog]]:
    """``guarded(**settings)`` → an application with three doors of restricted data, and its audit."""

    def make(**settings: Any) -> tuple[FastAPI, AuditLog]:
        node = Node(release.publication, NodeSettings(**settings))
        app = create_app(node, follow_seconds=0)

        @app.get("/test/small")
        def small(request: Request) -> PlainTextResponse:
            note(request, dataset_id="d", version=1, tier="member-1", grade="important", sha256="f" * 64)
            return PlainTextResponse("content")

        @app.get("/test/large")
        def large(request: Request, chunks: int = 4) -> StreamingResponse:
            note(request, dataset_id="d", tier="member-1", sha256="f" * 64)

            async def body() -> AsyncIterator[bytes]:
                for _ in range(chunks):
                    yield CHUNK
                    await asyncio.sleep(0)  # as a read from a disk does

            return StreamingResponse(body())

        @app.get("/test/broken")
        def broken() -> None:
            raise RuntimeError("a fault")

        # They stand behind the parts; a portal that answers every path must not be before them.
        app.router.routes[:0] = [app.router.routes.pop() for _ in range(3)]
        return app, app.state.guard.log

    return make


def token(app: FastAPI, name: str = "alice", tier: str = "member-1", **more: Any) -> dict[str, str]:
    secret = tokens.create(app.state.node.engine, name, tier=tier, grade="important", **more)
    return {"Authorization": f"Bearer {secret}"}


def records(log: AuditLog, *kinds: str) -> list[dict[str, Any]]:
    return [e.data for e in log.entries(kinds=kinds or ("request", "open", "close"))]


def test_small_answers_have_one_record(guarded: Any):
    app, log = guarded()
    with TestClient(app, raise_server_exceptions=False) as client:
        member = token(app)
        assert client.get("/test/small?a=1", headers=member).text == "content"
        assert client.get("/test/nothing").status_code == 404
        assert client.get("/test/broken").status_code == 500
        assert client.get("/node", headers={"Authorization": "Bearer wrong"}).status_code == 401
        found = records(log)  # every answer that the client has is in the audit already
    small, nothing, broken, wrong = found
    assert small["principal"] == "alice"
    assert small["token"] in member["Authorization"]
    assert (small["path"], small["query"], small["status"], small["bytes"]) == ("/test/small", "a=1", 200, 7)
    assert (small["dataset_id"], small["version"], small["grade"]) == ("d", 1, "important")
    assert "principal" not in nothing
    assert [r["status"] for r in found] == [200, 404, 500, 401]
    assert "principal" not in wrong
    assert broken["kind"] == "request"
    assert log.verify() == []
    secret = member["Authorization"].rsplit("_", 1)[1]
    assert all(secret.encode() not in p.read_bytes() for p in log.path.parent.glob("audit.sqlite*"))
    assert [e.data["kind"] for e in log.entries()] == ["start", *["request"] * 4, "stop"]


def test_long_answers_are_opened_and_closed(guarded: Any, serve: Any):
    app, log = guarded()
    served = serve(app.state.node, app)
    member = token(app)
    with httpx.stream("GET", f"{served.url}/test/large", headers=member) as answer:
        pieces = answer.iter_raw()
        size = len(next(pieces))
        assert records(log)[0]["kind"] == "open"  # before the first byte, not after the last
        size += sum(map(len, pieces))
    assert size == 4 * len(CHUNK)
    opening, closing = records(log)
    assert closing["kind"] == "close"
    assert closing["ref"] == 2
    assert closing["bytes"] == 4 * len(CHUNK)
    assert log.usage("alice")[0]["bytes"] == 4 * len(CHUNK)
    assert log.usage("alice")[0]["requests"] == 1
    assert opening["status"] == 200


def test_a_client_that_goes_away_is_metered_for_what_was_sent(guarded: Any, serve: Any):
    app, log = guarded()
    served = serve(app.state.node, app)
    connection = socket.create_connection(("127.0.0.1", served.port))
    connection.sendall(b"GET /test/large?chunks=100000 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(1000)
    connection.close()
    deadline = time.monotonic() + 120
    while len(found := records(log)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found[1]["broken"] is True
    assert 0 < found[1]["bytes"] < 100_000 * len(CHUNK)


def test_without_its_audit_the_node_serves_nothing(guarded: Any):
    app, log = guarded()
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/test/small").status_code == 200
        with log.open() as db:
            db.execute("ALTER TABLE head RENAME TO gone")
        for path in ("/test/small", "/test/large"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert b"audit" in answer.content
            assert b"content" not in answer.content
            assert CHUNK not in answer.content
        with log.open() as db:
            db.execute("DROP TABLE IF EXISTS head")  # made again, empty, by the writer's new connection
            db.execute("ALTER TABLE gone RENAME TO head")
        assert client.get("/test/small").status_code == 200
        assert log.verify() == []


def test_rate_limits(guarded: Any):
    app, log = guarded(limits=Limits(anonymous_per_minute=3, member_per_minute=5))
    app.state.guard.limits = RateLimits(lambda: 0.0)  # however slow the machine is, no time passes
    with TestClient(app) as client:
        member = token(app)
        answers = [client.get("/test/small") for _ in range(5)]
        assert [a.status_code for a in answers] == [200, 200, 200, 429, 429]
        assert answers[-1].headers["content-type"] == "application/problem+json"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 21
        assert client.get("/test/small", headers={"Authorization": "Bearer x"}).status_code == 429
        assert [client.get("/test/small", headers=member).status_code for _ in range(6)] == [200] * 5 + [429]
        assert client.get("/healthz").status_code == 200  # never limited
        refused = [r for r in records(log) if r.get("refused") == "rate"]
        assert [r.get("principal") for r in refused] == [None, "alice"]  # one a minute for each reader
        man = app.state.guard
        for reader, (at, more) in man._floods.items():
            man._floods[reader] = (at - 61, more)  # a minute later
        assert client.get("/test/small", headers={"Authorization": "Bearer x"}).status_code == 429
        assert records(log)[-1]["unrecorded"] == 2


def test_buckets_fill_again():
    at = [0.0]
    limits = RateLimits(lambda: at[0])
    assert [limits.take("a", 60).allowed for _ in range(61)] == [True] * 60 + [False]
    assert limits.take("b", 60).allowed
    at[0] = 1.5
    verdicts = [limits.take("a", 60) for _ in range(2)]
    assert [v.allowed for v in verdicts] == [True, False]
    assert verdicts[1].wait == pytest.approx(0.5)
    at[0] = 1e6
    assert limits.take("a", 60).left == 59  # never more than a minute's worth


def test_readers():
    assert reader_of("192.0.2.7") == "192.0.2.7"
    assert reader_of("2001:db8:1:2::5") == reader_of("2001:db8:1:2:ffff::") == "2001:db8:1:2::/64"
    assert reader_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert reader_of("testclient") == "testclient"


def test_quota_of_members(guarded: Any):
    app, log = guarded(
        quotas={"member-1": Quota(gib_per_month=2**-12), "member-2": Quota(requests_per_month=2)}
    )
    with TestClient(app) as client:
        one, two, three = token(app), token(app, "bob", "member-2"), token(app, "carol", "member-3")
        assert [client.get("/test/large", headers=one).status_code for _ in range(3)] == [200, 429, 429]
        answer = client.get("/test/large", headers=one)
        assert "quota of 0.000244141 GiB" in answer.json()["detail"]
        assert 0 < int(answer.headers["retry-after"]) <= 31 * 86400 + 1
        assert CHUNK not in answer.content
        assert client.get("/node", headers=one).status_code == 200  # public data stays free
        assert [client.get("/test/small", headers=two).status_code for _ in range(3)] == [200, 200, 429]
        assert [client.get("/test/large", headers=three).status_code for _ in range(3)] == [200] * 3
        renewed = token(app)  # another token of the same member
        assert client.get("/test/small", headers=renewed).status_code == 429
        assert log.verify() == []


def test_healthz(guarded: Any, release: Any):
    app, log = guarded()
    with TestClient(app) as client:
        answer = client.get("/healthz")
        assert answer.status_code == 200
        assert answer.json()["status"] == "ok"
        release("11111111-0000-4000-8000-000000000001", 5)
        Path(release.publication.store.root, "0=ocfl_1.1").unlink()
        app.state.guard.health._known = None
        answer = client.get("/healthz")
        assert answer.status_code == 503
        assert answer.json()["checks"] == {
            "index": "ok",
            "store": "failing",
            "keys": "ok",
            "audit": "ok",
            "disk": "ok",
            "downloads": "ok",
        }
    assert records(log) == []


def test_metrics_need_their_scope(guarded: Any, release: Any):
    release("11111111-0000-4000-8000-000000000001", 5)
    app, log = guarded(alerts={"failures": 2})
    with TestClient(app) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=token(app)).status_code == 403
        scraper = token(app, "prometheus", scopes=["metrics"])
        assert client.get("/test/small").status_code == 200
        answer = client.get("/metrics", headers=scraper)
        assert answer.status_code == 200
        before = len(records(log))
        text = client.get("/metrics", headers=scraper).text
        assert len(records(log)) == before == 3
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['matcompute_requests_total{door="portal",method="GET",status="200"}'] == "1.0"
    assert lines['matcompute_requests_total{door="metrics",method="GET",status="401"}'] == "1.0"
    assert lines['matcompute_sent_bytes_total{door="portal",tier="member-1"}'] == "7.0"
    assert lines['matcompute_datasets{grade="general",tier="public"}'] == "1.0"
    assert lines['matcompute_entries{grade="general",tier="public"}'] == "5.0"
    assert lines["matcompute_healthy"] == "1.0"
    assert lines["matcompute_events"] == "1.0"
    assert float(lines["matcompute_audit_records"]) >= 4


def _record(minute: float, **more: Any) -> dict[str, Any]:
    at = datetime.fromtimestamp(1769860800 + 60 * minute, UTC)  # 2026-01-31T12:00Z, 20:00 in Shanghai
    known = {"kind": "request", "principal": "alice", "address": "192.0.2.1", "status": 200, "tier": "public"}
    return {"at": at.isoformat().replace("+00:00", "Z"), **known, **more}


def test_alert_bulk_pull():
    watch = Watch(AlertRules(bulk_bytes=1000, bulk_files=10**6, trusted=("platform",)))
    blob = {"bytes": 300, "sha256": "f" * 64}
    assert watch([_record(k, **blob) for k in range(3)]) == []
    alerts = watch([_record(k, **blob) for k in range(3, 9)])
    assert [a["rule"] for a in alerts] == ["bulk-pull"]  # once, not for every file
    assert "1,200 bytes within 60 min" in alerts[0]["message"]
    assert watch([_record(k, **blob, **{"principal": "platform"}) for k in range(20)]) == []
    assert watch([_record(30 * k, **blob, **{"principal": "slow"}) for k in range(20)]) == []
    many = Watch(AlertRules(bulk_files=5))
    assert [a["rule"] for a in many([_record(0, bytes=1, sha256="f") for _ in range(20)])] == ["bulk-pull"]
    unknown = {"principal": None, "address": "192.0.2.9", "bytes": 5000, "sha256": "f"}
    assert watch([_record(0, **unknown)])[0]["subject"] == "192.0.2.9"


def test_alert_failures_and_errors():
    watch = Watch(AlertRules(failures=5, errors=3))
    trying = [_record(0.1 * k, status=401, principal=None) for k in range(5)]
    assert watch(trying[:4]) == []
    assert [a["rule"] for a in watch(trying[4:])] == ["failures"]
    spread = [_record(11 * k, status=404, address="192.0.2.2") for k in range(10)]
    assert watch(spread) == []
    assert [a["rule"] for a in watch([_record(0, status=503) for _ in range(3)])] == ["errors"]


@pytest.mark.parametrize(
    ("minute", "changes", "odd"),
    [
        (0, {}, False),  # 20:00
        (150, {}, True),  # 22:30
        (600, {}, True),  # 06:00
        (660, {}, False),  # 07:00
        (150, {"tier": "public"}, False),
        (150, {"principal": None}, False),
        (150, {"principal": "platform"}, False),
        (150, {"status": 404}, False),
    ],
)
def test_alert_odd_hours(minute: float, changes: dict[str, Any], odd: bool):
    watch = Watch(AlertRules(trusted=("platform",)))
    alerts = watch([_record(minute, **{"tier": "member-1", **changes})] * 2)
    assert [a["rule"] for a in alerts] == ["odd-hours"] * odd


def test_alerts_are_records(guarded: Any):
    app, log = guarded(alerts={"failures": 3})
    with TestClient(app) as client:
        for _ in range(5):
            client.get("/test/nothing")
    alerts = records(log, "alert")
    assert [a["rule"] for a in alerts] == ["failures"]
    assert "3 refusals" in alerts[0]["message"]
    assert log.verify() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alerts: {working_hours: late}", "alerts.working_hours"),
        ("alerts: {time_zone: Mars/Base}", "time zone"),
        ("alerts: {bulk: 3}", "no such key; known: bulk_bytes"),
        ("quotas: {public: {gib_per_month: 1}}", "no member tier"),
        ("quotas: {member-1: {gib: 1}}", "known: gib_per_month"),
    ],
)
def test_settings_name_what_is_wrong(tmp_path: Path, text: str, message: str):
    (tmp_path / "node.yaml").write_text(f"id: a\n{text}\n")
    with pytest.raises(InputError, match=message) as caught:
        NodeSettings.load(tmp_path)
    assert "node.yaml:2" in str(caught.value)


def test_hostile_requests_leave_plain_records(guarded: Any, serve: Any):
    app, log = guarded()
    served = serve(app.state.node, app)
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.putrequest(
        "GET", "/%0d%0aSet-Cookie:%20a=b/%1b[2J/../%ff" + "a" * 5000 + "?q=%00", skip_host=True
    )
    connection.putheader("Host", "x")
    connection.putheader("User-Agent", "A" * 5000 + "\t")
    connection.endheaders()
    assert connection.getresponse().status in (400, 404)
    entry = next(log.entries(kinds=["request"]))
    assert entry.record.isascii()
    assert entry.record.isprintable()
    assert len(entry.record) < 8000
    assert json.loads(entry.record)["status"] in (400, 404)


def test_notes_without_a_guard_do_nothing():
    request = Request({"type": "http", "headers": []})
    note(request, tier="member-1")
    assert guard.__all__ == ["doors", "mount"]


@pytest.mark.kill
def test_kill_9_of_the_server_loses_no_record_of_what_was_answered(release: Any):
    release("11111111-0000-4000-8000-000000000001", 5)
    folder = release.publication.folder
    (folder / "node.yaml").write_text("limits: {anonymous_per_minute: 1000000}\n")
    program = [str(Path(sys.executable).parent / "matcompute"), "serve", "-d", str(folder), "--port", "0"]
    server = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    match = re.search(r"http://[^:]+:(\d+)", server.stdout.readline())
    assert match is not None
    port, told, lock = int(match[1]), [], threading.Lock()

    def ask(name: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.suppress(OSError, http.client.HTTPException):
            for k in range(10_000):
                connection.request("GET", f"/node?ask={name}-{k}")
                answer = connection.getresponse()
                answer.read()
                with lock:
                    told.append((answer.status, f"ask={name}-{k}"))
                    if len(told) == 60:
                        server.kill()

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.wait(60)
    server.stdout.close()
    log = AuditLog(folder / "audit.sqlite")
    assert log.verify() == []
    written = {(r["status"], r["query"]) for r in records(log)}
    assert len(told) >= 60
    assert set(told) <= written

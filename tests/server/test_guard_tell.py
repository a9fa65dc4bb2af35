"""Alerts by webhook and e-mail, to real receivers."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from matcompute.errors import InputError
from matcompute.server.guard.alerts import AlertRules
from matcompute.server.guard.tell import Teller, payload
from matcompute.server.node import Node
from matcompute.server.settings import NodeSettings

from .conftest import FREE, Releaser, Served, load

ALERT = {
    "rule": "failures",
    "subject": "192.0.2.1",
    "at": "2026-01-01T00:00:00.000Z",
    "message": "failures: 192.0.2.1",
}
PATIENCE = 60


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted; refuses the first so many."""

    daemon_threads = True

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], Any]] = []
        self.refuse = 0
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        refused = self.server.refuse > 0
        self.server.refuse -= refused
        if not refused:
            self.server.got.append(({k.lower(): v for k, v in self.headers.items()}, json.loads(body)))
        self.send_response(500 if refused else 204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def mailbox() -> Iterator[Any]:
    campaign = load("campaign_notices", Path(__file__).parents[1] / "campaign" / "test_notify.py")
    made = campaign.MailBox()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_alert_of_a_served_node_is_told(
    release: Releaser, receiver: Receiver, serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "s3cret")
    rules = AlertRules(failures=5, webhook=receiver.url, webhook_token="$HOOK_TOKEN")
    node = Node(release.publication, NodeSettings(id="test-node", limits=FREE, alerts=rules))
    served = serve(node)
    for _ in range(8):
        assert httpx.get(f"{served.url}/datasets/00000000-0000-4000-8000-000000000000").status_code == 404
    until(lambda: receiver.got)
    headers, said = receiver.got[0]
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["content-type"] == "application/json"
    assert said["schema"] == "matcompute.alert/v1"
    assert (said["node"], said["rule"], said["subject"]) == ("test-node", "failures", "127.0.0.1")
    assert said["text"] == "[test-node] failures: 127.0.0.1: 5 refusals within 10 min"
    # Once, however many follow; the audit has the same alert.
    served.stop()
    assert len(receiver.got) == 1
    kept = [e.data for e in served.app.state.guard.log.entries(kinds=["alert"])]
    assert [payload(alert, "test-node") for alert in kept] == [said]


def test_an_alert_goes_by_mail_too_and_to_each_once(
    release: Releaser, receiver: Receiver, mailbox: Any, serve: Callable[..., Served], tmp_path: Path
) -> None:
    """Both ways as the node's file sets them; what the mail server took is not sent again when the webhook fails."""
    (release.publication.folder / "node.yaml").write_text(
        "id: test-node\nlimits: {anonymous_per_minute: 100000}\n"
        f"alerts:\n  failures: 5\n  webhook: {receiver.url}\n"
        f"  email: {{host: 127.0.0.1, port: {mailbox.server_address[1]}, from: n@example.org, to: [a@example.org]}}\n"
    )
    receiver.refuse = 2
    served = serve(Node(release.publication))
    served.app.state.guard.teller.first_wait = 0.01
    for _ in range(6):
        httpx.get(f"{served.url}/datasets/00000000-0000-4000-8000-000000000000")
    until(lambda: served.app.state.guard.teller.delivered)
    assert len(receiver.got) == len(mailbox.got) == 1
    ((to, message),) = mailbox.got
    assert to == ["a@example.org"]
    assert message["From"] == "n@example.org"
    assert (
        message["Subject"]
        == receiver.got[0][1]["text"]
        == "[test-node] failures: 127.0.0.1: 5 refusals within 10 min"
    )
    text = message.get_payload()
    assert "rule: failures" in text
    assert "matcompute node alerts" in text


def test_what_is_refused_is_tried_again_in_order(receiver: Receiver) -> None:
    receiver.refuse = 3
    teller = Teller(AlertRules(webhook=receiver.url), "n", first_wait=0.01)
    for k in range(4):
        teller.tell(ALERT | {"subject": str(k)})
    until(lambda: teller.delivered == 4)
    assert [said["subject"] for _, said in receiver.got] == ["0", "1", "2", "3"]
    assert teller.lost == 0
    assert all("authorization" not in headers for headers, _ in receiver.got)
    teller.stop()


def test_stopping_delivers_what_waits_and_never_hangs(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.refuse = 1
    teller = Teller(AlertRules(webhook=receiver.url), "n", first_wait=3600)
    teller.tell(ALERT)
    teller.tell(ALERT | {"subject": "second"})
    until(lambda: receiver.refuse == 0)
    teller.stop(PATIENCE)
    assert [said["subject"] for _, said in receiver.got] == ["192.0.2.1", "second"]
    with caplog.at_level(logging.ERROR):
        secret = "http://127.0.0.1:9/bot-s3cret"
        gone = Teller(AlertRules(webhook=secret), "n", first_wait=3600)
        gone.tell(ALERT)
        gone.stop(PATIENCE)
    assert (gone.delivered, gone.lost) == (0, 1)
    assert "webhook at 127.0.0.1: [Errno 111]" in caplog.text
    assert "s3cret" not in caplog.text


def test_nobody_is_told_without_an_address() -> None:
    teller = Teller(AlertRules(), "n")
    teller.tell(ALERT)
    assert teller._thread is None
    teller.stop()


def test_a_missing_variable_is_named(caplog: pytest.LogCaptureFixture) -> None:
    teller = Teller(AlertRules(webhook="$NOT_SET_HERE"), "n", first_wait=0)
    with caplog.at_level(logging.ERROR):
        teller.tell(ALERT)
        until(lambda: teller.lost)
    assert "NOT_SET_HERE is not set" in caplog.text
    teller.stop()


@pytest.mark.parametrize(
    "line", ["webhook: ftp://x", "webhook: 'https://a b'", "webhook_token: plain", "email: {from: a@b.c}"]
)
def test_wrong_settings_name_their_key(tmp_path: Path, line: str) -> None:
    (tmp_path / "node.yaml").write_text(f"alerts:\n  {line}\n")
    with pytest.raises(InputError, match=rf"node.yaml:2: alerts\.{line.partition(':')[0]}"):
        NodeSettings.load(tmp_path)

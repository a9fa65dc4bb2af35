"""Notices: delivered to a real HTTP server and a real SMTP sink, once, and again later when they were refused."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from matcompute.campaign.events import budget_events, finished_event, quota_events, stopped_event
from matcompute.campaign.notify import MOST_TRIES, Notifier, deliver
from matcompute.campaign.state import State
from matcompute.campaign.state.campaigns import CampaignRow, by_id, register, set_campaign
from matcompute.campaign.state.notices import add_notice, notices, set_notice
from matcompute.centres import Centre
from matcompute.workspace import WorkspaceError
from matcompute.workspace.options import load_options


class Hook(ThreadingHTTPServer):
    """A webhook that keeps what it gets, and answers with ``status``."""

    def __init__(self) -> None:
        self.got: list[tuple[dict, dict]] = []
        self.status = 200
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200:
            self.server.got.append((dict(self.headers), json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class MailBox(socketserver.ThreadingTCPServer):
    """As much of an SMTP server as a client needs; keeps the messages."""

    allow_reuse_address = True

    def __init__(self) -> None:
        self.got: list[tuple[list[str], Message]] = []
        super().__init__(("127.0.0.1", 0), _Smtp)


class _Smtp(socketserver.StreamRequestHandler):
    server: MailBox

    def handle(self) -> None:
        self.wfile.write(b"220 sink\r\n")
        to: list[str] = []
        for line in self.rfile:
            word = line.decode().strip()
            if word.upper().startswith("RCPT TO:"):
                to.append(word[8:].strip("<> "))
            if word.upper() == "DATA":
                self.wfile.write(b"354 go\r\n")
                lines = []
                while (part := self.rfile.readline()) != b".\r\n":
                    lines.append(part)
                self.server.got.append((to, message_from_bytes(b"".join(lines))))
            self.wfile.write(b"221 bye\r\n" if word.upper() == "QUIT" else b"250 ok\r\n")
            if word.upper() == "QUIT":
                return


def _serve(server: socketserver.BaseServer) -> Iterator:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    yield from _serve(Hook())


@pytest.fixture
def mailbox() -> Iterator[MailBox]:
    yield from _serve(MailBox())


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path / "state.sqlite") as opened:
        yield opened


@pytest.fixture
def campaign(state: State) -> CampaignRow:
    with state.write() as connection:
        return register(
            connection,
            name="al-cu",
            title="",
            file="c.yaml",
            text="",
            digest="0",
            budget_core_s=3600.0,
            stages=[("relax", "relax", False)],
        )


def options(folder: Path, text: str):
    path = folder / "matcompute.toml"
    path.write_text('schema = "matcompute.workspace/v1"\n' + text)
    return load_options(path)


def test_both_ways(
    tmp_path: Path,
    state: State,
    campaign: CampaignRow,
    hook: Hook,
    mailbox: MailBox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "secret")
    port = mailbox.server_address[1]
    notify = options(
        tmp_path,
        f'[notify]\nwebhook = "{hook.url}"\nwebhook_token_env = "HOOK_TOKEN"\n'
        f'[notify.email]\nhost = "127.0.0.1"\nport = {port}\nfrom = "mc@example.org"\n'
        'to = ["a@example.org", "b@example.org"]\n',
    ).notify
    with state.write() as connection:
        finished_event(connection, campaign, "/data/al-cu.h5")
    assert deliver(state, notify, "my workspace") == 1
    assert deliver(state, notify) == 0, "once is enough"
    ((headers, content),) = hook.got
    assert headers["Authorization"] == "Bearer secret"
    assert content["event"] == "done"
    assert content["campaign"] == "al-cu"
    assert content["text"] == "[matcompute] campaign 'al-cu' is finished: /data/al-cu.h5"
    assert content["workspace"] == "my workspace"
    ((to, message),) = mailbox.got
    assert to == ["a@example.org", "b@example.org"]
    assert message["Subject"] == "[matcompute] campaign 'al-cu' is finished: /data/al-cu.h5"
    assert "a campaign is finished" in message.get_payload()


def test_a_refused_notice_is_tried_again(
    tmp_path: Path, state: State, campaign: CampaignRow, hook: Hook
) -> None:
    notify = options(tmp_path, f'[notify]\nwebhook = "{hook.url}"\n').notify
    hook.status = 503
    with state.write() as connection:
        stopped_event(connection, campaign, "no space left", "free some space")
        stopped_event(connection, campaign, "no space left", "free some space")
    assert deliver(state, notify) == 0
    with state.read() as connection:
        (row,) = notices(connection)
    assert "503" in row.error
    assert row.tries == 1
    hook.status = 200
    assert deliver(state, notify) == 0, "not before its time"
    with state.write() as connection:
        set_notice(connection, row.id, next_try=0.0)
    assert deliver(state, notify) == 1
    assert "what to do: free some space" in hook.got[0][1]["text"]
    with state.write() as connection:
        set_notice(connection, row.id, delivered=None, tries=MOST_TRIES, next_try=0.0)
    assert deliver(state, notify) == 0, "some day it is enough"


def test_only_what_somebody_wants_to_hear(
    tmp_path: Path, state: State, campaign: CampaignRow, hook: Hook
) -> None:
    notify = options(tmp_path, f'[notify]\nevents = ["budget"]\nwebhook = "{hook.url}"\n').notify
    with state.write() as connection:
        finished_event(connection, campaign, "x.h5")
        set_campaign(connection, campaign.id, core_s=0.79 * 3600)
        budget_events(connection, by_id(connection, campaign.id))
        assert len(notices(connection)) == 1, "79 % is no news"
        for share in (0.81, 0.9, 1.2, 1.3):
            set_campaign(connection, campaign.id, core_s=share * 3600)
            budget_events(connection, by_id(connection, campaign.id))
    deliver(state, notify)
    assert [content["text"] for _, content in hook.got] == [
        "[matcompute] campaign 'al-cu' has used 0.81 of 1 core-hours (81%)",
        "[matcompute] campaign 'al-cu' has used 1.2 of 1 core-hours (120%); nothing more is submitted",
    ]
    with state.write() as connection:
        set_campaign(connection, campaign.id, budget_core_s=7200.0, core_s=0.85 * 7200)
        budget_events(connection, by_id(connection, campaign.id))
    assert deliver(state, notify) == 1, "a raised budget is warned of anew"


def test_quotas(tmp_path: Path, state: State, hook: Hook) -> None:
    notify = options(tmp_path, f'[notify]\nwebhook = "{hook.url}"\n').notify
    centre = Centre.model_validate(
        {
            "schema": "matcompute.centre/v1",
            "centre": {"id": "here"},
            "partitions": [{"name": "cpu", "cores": 4, "mem_gb": 8}],
            "projects": [{"account": "p", "quota_core_h": 2}, {"account": "free"}],
        }
    )
    with state.write() as connection:
        for hours in (1.0, 1.7, 1.8, 2.5):
            quota_events(connection, centre, {("here", "p"): hours * 3600, ("here", "free"): 1e9})
    deliver(state, notify)
    texts = [content["text"] for _, content in hook.got]
    assert len(texts) == 2
    assert "project 'p' at centre 'here' has used 1.7 of 2 core-hours (85%)" in texts[0]
    assert "nothing more is submitted there" in texts[1]


def test_the_thread_delivers_what_is_there_at_its_end(tmp_path: Path, state: State, hook: Hook) -> None:
    notify = options(tmp_path, f'[notify]\nwebhook = "{hook.url}"\n').notify
    notifier = Notifier(state, lambda: notify, "w")
    notifier.start()
    with state.write() as connection:
        add_notice(connection, "k", "centre-down", "centre 'x' does not answer", centre="x")
    notifier.stop()
    assert [content["centre"] for _, content in hook.got] == ["x"]
    assert not notifier.is_alive()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[notify]\nwebhok = 'http://x'\n", "notify.webhok: unknown key; did you mean 'webhook'"),
        ("[notify]\nwebhook = 'mailto:x'\n", "notify.webhook"),
        ("[notify.email]\nto = ['a@b.c']\n", "notify.email.from"),
        ("[limits]\nmax_jobs = 0\n", "limits.max_jobs"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        options(tmp_path, text)
    assert words in caught.value.message


def test_a_missing_secret_is_an_error_of_the_delivery(tmp_path: Path, state: State, hook: Hook) -> None:
    notify = options(
        tmp_path, f'[notify]\nwebhook = "{hook.url}"\nwebhook_token_env = "NOT_SET_ANYWHERE"\n'
    ).notify
    with state.write() as connection:
        add_notice(connection, "k", "done", "x")
    assert deliver(state, notify) == 0
    with state.read() as connection:
        assert "NOT_SET_ANYWHERE is not set" in notices(connection)[0].error

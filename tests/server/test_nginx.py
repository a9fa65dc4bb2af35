"""The configuration that the manual shows, in a real nginx in front of a real server."""

from __future__ import annotations

import hashlib
import http.client
import random
import shutil
import socket
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from matcompute.server import tokens
from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.settings import NodeSettings
from matcompute.server.tables import files

from .conftest import FREE, IDS, Releaser, load

manual = load("benchmarks_nginx", Path(__file__).parents[2] / "benchmarks" / "_nginx.py")
NGINX = manual.NGINX
pytestmark = [
    pytest.mark.apt,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)"),
]
LARGE = 24 << 20


class Front:
    """nginx in front of a node."""

    def __init__(self, url: str, node: Node, app: Any, pid: int) -> None:
        self.url, self.node, self.app, self.pid = url, node, app, pid
        with node.engine.connect() as connection:
            rows = connection.execute(files.select().where(files.c.role == "data")).all()
            large = files.select().where(files.c.size > LARGE)
            self.large = connection.execute(large).one().sha256
        self.digest = {row.dataset_id: row.sha256 for row in rows}
        self.location = {row.dataset_id: row.location for row in rows}

    def workers(self) -> set[int]:
        """Process ids of nginx's workers."""
        return {child.pid for child in psutil.Process(self.pid).children()}

    def blob(self, dataset_id: str) -> str:
        return f"{self.url}/blobs/sha256/{self.digest[dataset_id]}"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    release = Releaser(folder / "publication", folder / "scratch")
    # More than the buffers of two sockets hold, so that a download is under way as long as its client does not read.
    large = folder / "large.aiida"
    with zipfile.ZipFile(large, "w") as archive:
        for name in ("metadata.json", "db.sqlite3"):
            archive.writestr(name, "{}")
        archive.writestr("noise", random.Random(1).randbytes(LARGE))
    release(IDS[0], 5, archive=large)
    release(IDS[1], 5, tier="member-1", grade="important")
    return release.publication.folder


@pytest.fixture
def front(once: Path, serve: Any, tmp_path: Path) -> Iterator[Front]:
    shutil.copytree(once, tmp_path / "publication")
    folder, port = tmp_path / "nginx", manual.free_port()
    folder.mkdir()
    nginx = manual.command(folder)
    settings = NodeSettings(x_accel="/store/", on_access_end=(*nginx, "-s", "reload"), limits=FREE)
    node = Node(tmp_path / "publication", settings)
    served = serve(node, create_app(node, follow_seconds=0))
    manual.configure(folder, port, served.port, node.publication.store.root)
    process = subprocess.Popen(nginx)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                log = folder / "error.log"
                assert process.poll() is None, log.read_text() if log.exists() else "nginx did not start"
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield Front(f"http://127.0.0.1:{port}", node, served.app, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def test_public_files_are_sent_by_nginx(front: Front):
    got = httpx.get(front.blob(IDS[0]))
    digest = front.digest[IDS[0]]
    assert got.status_code == 200
    assert hashlib.sha256(got.content).hexdigest() == digest
    assert got.headers["server"].startswith("nginx")
    assert "x-accel-redirect" not in got.headers
    assert got.headers["etag"] == f'"sha256:{digest}"'
    assert got.headers["repr-digest"].startswith("sha-256=:")
    assert got.headers["content-disposition"].startswith("attachment")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["content-length"] == str(len(got.content))
    head = httpx.head(front.blob(IDS[0]))
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(got.content)))
    assert httpx.get(front.blob(IDS[0]), headers={"If-None-Match": got.headers["etag"]}).status_code == 304


def test_resume(front: Front):
    whole = httpx.get(front.blob(IDS[0]))
    etag = whole.headers["etag"]
    rest = httpx.get(front.blob(IDS[0]), headers={"Range": "bytes=1000-", "If-Range": etag})
    assert rest.status_code == 206
    assert rest.content == whole.content[1000:]
    assert rest.headers["content-range"] == f"bytes 1000-{len(whole.content) - 1}/{len(whole.content)}"
    assert rest.headers["etag"] == etag
    other = httpx.get(front.blob(IDS[0]), headers={"Range": "bytes=1000-", "If-Range": '"sha256:other"'})
    assert (other.status_code, other.content) == (200, whole.content)
    assert httpx.get(front.blob(IDS[0]), headers={"Range": "bytes=999999999-"}).status_code == 416


def test_the_store_itself_is_closed(front: Front):
    for path in (front.location[IDS[0]], front.location[IDS[1]], "0=ocfl_1.1", "../keys/keyring.json", ""):
        assert httpx.get(f"{front.url}/store/{path}").status_code == 404
    sent = {"X-Accel-Redirect": f"/store/{front.location[IDS[1]]}"}
    assert httpx.get(f"{front.url}/node", headers=sent).json()["schema"] == "matcompute.node/v1"


def test_member_files_are_sent_by_the_node(front: Front):
    assert httpx.get(front.blob(IDS[1])).status_code == 404
    secret = tokens.create(front.node.engine, "alice", tier="member-1", grade="important")
    got = httpx.get(front.blob(IDS[1]), headers={"Authorization": f"Bearer {secret}"})
    assert hashlib.sha256(got.content).hexdigest() == front.digest[IDS[1]]


def test_a_regrade_holds_at_once(front: Front):
    assert httpx.get(front.blob(IDS[0])).status_code == 200
    front.node.publication.regrade(IDS[0], "a test", tier="member-1")
    assert httpx.get(front.blob(IDS[0])).status_code == 404


@contextmanager
def download(front: Front, digest: str) -> Iterator[http.client.HTTPResponse]:
    """Begin a download and read nothing but its head."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(front.url).port, timeout=60)
    connection.request("GET", f"/blobs/sha256/{digest}")
    answer = connection.getresponse()
    assert (answer.status, int(answer.headers["content-length"]) > LARGE) == (200, True)
    yield answer
    connection.close()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rest_of(answer: http.client.HTTPResponse) -> int:
    """Read on to the end, or to where it breaks off; return how much came."""
    got = 0
    try:
        while piece := answer.read(1 << 16):
            got += len(piece)
    except (ConnectionError, http.client.IncompleteRead):
        pass
    return got


def test_open_downloads_end_when_access_ends(front: Front):
    """A regrade upward and a withdrawal cut what nginx is sending; a release and a regrade downward do not."""
    publication = front.node.publication
    for end, open_again in (
        (lambda: publication.regrade(IDS[0], "up", grade="important", tier="member-1"), True),
        (lambda: publication.withdraw(IDS[0], "wrong"), False),
    ):
        with download(front, front.large) as cut:
            before = front.workers()
            assert before
            end()
            until(lambda: httpx.get(f"{front.url}/blobs/sha256/{front.large}").status_code == 404)
            until(lambda: front.app.state.cutter._seen == front.node.head)
            # The old worker ends after worker_shutdown_timeout and takes the connection along: what still comes is
            # what the buffers held.
            until(lambda old=before: front.workers() and not old & front.workers())
            assert rest_of(cut) < LARGE
        if open_again:
            publication.regrade(IDS[0], "down", grade="general", tier="public")
            until(lambda: front.app.state.cutter._seen == front.node.head)
            with download(front, front.large) as whole:
                publication.regrade(IDS[1], "down", tier="member-1", grade="general")
                until(lambda: front.app.state.cutter._seen == front.node.head)
                assert rest_of(whole) > LARGE
    assert front.app.state.cutter.failed is None


def test_audit_and_metering_know_client_and_size(front: Front):
    size = len(httpx.get(front.blob(IDS[0]), headers={"X-Forwarded-For": "203.0.113.9"}).content)
    part = httpx.get(front.blob(IDS[0]), headers={"Range": "bytes=10-19"})
    assert len(part.content) == 10
    log = create_app(front.node, follow_seconds=0).state.guard.log
    records = [e.data for e in log.entries(kinds=["request"])]
    assert [r["bytes"] for r in records] == [size, 10]
    assert [r["address"] for r in records] == ["127.0.0.1"] * 2  # nginx tells the address, not the client
    assert log.verify() == []


def test_large_bodies_stop_at_nginx(front: Front):
    token = tokens.create(front.node.engine, "p", scopes=["receipts"])
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = httpx.post(f"{front.url}/receipts", headers=headers, content=b"[" * (1 << 20))
    assert answer.status_code == 413

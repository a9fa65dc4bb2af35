"""The configuration that the manual shows, in a real nginx in front of a real server."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from matcompute.server import tokens
from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.settings import NodeSettings
from matcompute.server.tables import files

from .conftest import FREE, IDS, Releaser

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "nginx.md"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
pytestmark = [
    pytest.mark.apt,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)"),
]
_MAIN = """\
{user}
daemon off;
master_process on;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{site}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def site(port: int, backend: int, store: str) -> str:
    """Return the manual's text with this test's ports and folder, and without TLS."""
    text = re.findall(r"^```nginx\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[0]
    for old, new in (
        ("127.0.0.1:8642", f"127.0.0.1:{backend}"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
        ("/srv/publication/store/", f"{store}/"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    return "\n".join(line for line in text.splitlines() if "ssl_certificate" not in line)


class Front:
    """nginx in front of a node."""

    def __init__(self, url: str, node: Node) -> None:
        self.url, self.node = url, node
        with node.engine.connect() as connection:
            rows = connection.execute(files.select().where(files.c.role == "data")).all()
        self.digest = {row.dataset_id: row.sha256 for row in rows}
        self.location = {row.dataset_id: row.location for row in rows}

    def blob(self, dataset_id: str) -> str:
        return f"{self.url}/blobs/sha256/{self.digest[dataset_id]}"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    release = Releaser(folder / "publication", folder / "scratch")
    release(IDS[0], 5)
    release(IDS[1], 5, tier="member-1", grade="important")
    return release.publication.folder


@pytest.fixture
def front(once: Path, serve: Any, tmp_path: Path) -> Iterator[Front]:
    shutil.copytree(once, tmp_path / "publication")
    node = Node(tmp_path / "publication", NodeSettings(x_accel="/store/", limits=FREE))
    served = serve(node, create_app(node, follow_seconds=0))
    folder, port = tmp_path / "nginx", free_port()
    folder.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    text = _MAIN.format(folder=folder, user=user, site=site(port, served.port, node.publication.store.root))
    (folder / "nginx.conf").write_text(text)
    assert NGINX is not None
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    )
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
        yield Front(f"http://127.0.0.1:{port}", node)
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

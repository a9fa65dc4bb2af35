"""Files: ranges, conditions, and downloads that end when access ends."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from matcompute.server import tokens
from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.settings import NodeSettings
from matcompute.server.tables import files

from .conftest import IDS, Releaser, Served


def data_file(node: Node, path: str = "data/entries.h5") -> tuple[str, int, Path]:
    """Return digest, size and place of the (first) data file."""
    node.refresh()
    with node.engine.connect() as connection:
        row = connection.execute(select(files).where(files.c.path == path)).first()
    assert row is not None
    return row.sha256, row.size, Path(node.publication.store.root) / row.location


@pytest.fixture
def client(release: Releaser, node: Node) -> TestClient:
    release(IDS[0])
    return TestClient(create_app(node, follow_seconds=0))


def test_whole_file(client: TestClient, node: Node) -> None:
    digest, size, place = data_file(node)
    for url in (f"/blobs/sha256/{digest}", f"/datasets/{IDS[0]}/versions/1/files/data/entries.h5"):
        got = client.get(url)
        assert (got.status_code, got.content) == (200, place.read_bytes())
        assert got.headers["etag"] == f'"sha256:{digest}"'
        assert got.headers["content-type"] == "application/x-hdf5"
        assert got.headers["accept-ranges"] == "bytes"
        assert got.headers["content-disposition"].startswith('attachment; filename="entries.h5"')
        head = client.head(url)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(size)
        assert head.headers["etag"] == got.headers["etag"]


def test_ranges(client: TestClient, node: Node) -> None:
    digest, size, place = data_file(node)
    raw, url, etag = place.read_bytes(), f"/blobs/sha256/{digest}", f'"sha256:{digest}"'
    for spec, part in {
        "0-0": raw[:1],
        "10-19": raw[10:20],
        "10-": raw[10:],
        "-7": raw[-7:],
        f"{size - 1}-{size + 100}": raw[-1:],
        f"-{size * 2}": raw,
    }.items():
        got = client.get(url, headers={"Range": f"bytes={spec}"})
        assert (got.status_code, got.content) == (206, part), spec
        start = raw.index(part) if part != raw else 0
        if spec in ("10-19", "10-"):
            assert got.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{size}"
    # Not one range, or no range: the whole.
    for spec in (
        "bytes=0-1,5-6",
        "bytes=5-1",
        "bytes=-",
        "lines=0-1",
        "bytes=a-b",
        "bytes=" + "1" * 100 + "-",
    ):
        got = client.get(url, headers={"Range": spec})
        assert (got.status_code, len(got.content)) == (200, size), spec
    past = client.get(url, headers={"Range": f"bytes={size}-"})
    assert (past.status_code, past.headers["content-range"]) == (416, f"bytes */{size}")
    assert client.get(url, headers={"Range": "bytes=-0"}).status_code == 416
    # Only if it is still the same content.
    same = client.get(url, headers={"Range": "bytes=1-2", "If-Range": etag})
    assert (same.status_code, same.content) == (206, raw[1:3])
    for other in ('"sha256:00"', f"W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT"):
        got = client.get(url, headers={"Range": "bytes=1-2", "If-Range": other})
        assert (got.status_code, got.content) == (200, raw), other


def test_conditions(client: TestClient, node: Node) -> None:
    digest, _, _ = data_file(node)
    url, etag = f"/blobs/sha256/{digest}", f'"sha256:{digest}"'
    for tags in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        for headers in ({}, {"Range": "bytes=0-1"}):
            got = client.get(url, headers={"If-None-Match": tags, **headers})
            assert (got.status_code, got.content, got.headers["etag"]) == (304, b"", etag)
    assert client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200
    assert client.get(url, headers={"If-Match": '"x"'}).status_code == 412
    assert client.get(url, headers={"If-Match": etag}).status_code == 200
    # A digest is nothing to those who may not have the file.
    node.publication.regrade(IDS[0], "scale", grade="core", tier="member-3")
    for headers in (
        {"If-None-Match": etag},
        {"If-None-Match": "*"},
        {"Range": "bytes=0-1"},
        {"If-Match": '"x"'},
    ):
        assert client.get(url, headers=headers).status_code == 404


def test_a_blob_of_two_datasets_is_seen_through_the_open_one(release: Releaser, node: Node) -> None:
    release(IDS[0], seed=3, title="Same")
    client = TestClient(create_app(node, follow_seconds=0))
    digest, _, _ = data_file(node)
    release(IDS[0], seed=4)
    node.publication.withdraw(IDS[0], "x", version=1)
    assert client.get(f"/blobs/sha256/{digest}").status_code == 404
    newest = client.get(f"/datasets/{IDS[0]}").json()["version"]
    assert newest == 2


def test_names_cannot_break_headers(client: TestClient) -> None:
    from matcompute.server.caching import content_disposition

    said = content_disposition('a"; filename="b.html\r\nX: 1 合金.h5')
    assert "\r" not in said
    assert "\n" not in said
    assert said.count('"') == 2
    assert said.isascii()


def test_nginx_sends_the_file(release: Releaser) -> None:
    release(IDS[0])
    node = Node(release.publication, NodeSettings(x_accel="/store/", on_access_end=()))
    client = TestClient(create_app(node, follow_seconds=0))
    digest, _, place = data_file(node)
    got = client.get(f"/blobs/sha256/{digest}")
    assert (got.status_code, got.content) == (200, b"")
    assert (
        Path(node.publication.store.root) / got.headers["x-accel-redirect"].removeprefix("/store/") == place
    )
    node.publication.regrade(IDS[0], "x", tier="member-1")
    refused = client.get(f"/blobs/sha256/{digest}")
    assert refused.status_code == 404
    assert "x-accel-redirect" not in refused.headers


def big_release(release: Releaser, size: int) -> None:
    """Release a dataset whose provenance holds a large file."""
    import zipfile

    from matcompute.publish.build import build
    from matcompute.publish.terms import terms_of

    from .conftest import LIMITS, _write_dataset

    folder = release.scratch / "big"
    folder.mkdir(parents=True)
    archive = folder / "run.aiida"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("db.sqlite3", b"\0" * size)
    _write_dataset()(folder / "entries.h5", 5, 1, dataset_id=IDS[0], description="d", campaign="test")
    terms = terms_of([folder / "entries.h5"], "node-1")
    build([folder / "entries.h5"], terms, folder / "out", archive=archive)
    release.publication.release(folder / "out", limits=LIMITS)


class Slow:
    """A download over a socket with a small window, read piece by piece."""

    def __init__(self, served: Served, path: str, token: str | None = None) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", served.port))
        auth = f"Authorization: Bearer {token}\r\n" if token else ""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{auth}\r\n".encode())
        self.got = self.socket.recv(4096)

    def drain(self) -> int:
        """Read to the end; return the bytes that came."""
        total = len(self.got)
        while True:
            try:
                raw = self.socket.recv(1 << 20)
            except ConnectionResetError:
                return total
            if not raw:
                return total
            total += len(raw)


SIZE = 24 << 20


def test_an_open_download_stops_when_access_stops(
    release: Releaser, node: Node, serve: Callable[..., Served]
) -> None:
    big_release(release, SIZE)
    served = serve(node)
    digest, size, _ = data_file(node, "provenance/run.aiida")
    token = tokens.create(node.engine, "m", tier="member-3", grade="core")
    publication = node.publication
    path = f"/blobs/sha256/{digest}"
    whole = Slow(served, path)
    public, member, revoked = Slow(served, path), Slow(served, path, token), Slow(served, path)
    assert b"200 OK" in public.got
    assert whole.drain() > size  # with the headers
    publication.regrade(IDS[0], "scale", grade="core", tier="member-1")
    assert public.drain() < size / 2
    assert member.drain() > size  # it may go on
    assert httpx.get(f"{served.url}{path}").status_code == 404
    # A token that is revoked while it downloads.
    assert revoked.drain() < size / 2
    ended = Slow(served, path, token)
    tokens.revoke(node.engine, token.split("_")[1])
    time.sleep(1.2)
    assert ended.drain() < size / 2
    # A withdrawal.
    publication.regrade(IDS[0], "open", grade="general", tier="public")
    last = Slow(served, path)
    publication.withdraw(IDS[0], "wrong")
    assert last.drain() < size / 2


def test_curl_resumes(release: Releaser, node: Node, serve: Callable[..., Served], tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl here")
    big_release(release, 8 << 20)
    served = serve(node)
    digest, size, place = data_file(node, "provenance/run.aiida")
    out = tmp_path / "out"
    url = f"{served.url}/blobs/sha256/{digest}"
    for keep in (0, 1, 65537, size // 2, size - 1):
        out.write_bytes(place.read_bytes()[:keep])
        subprocess.run([curl, "-sS", "--fail", "-C", "-", "-o", str(out), url], check=True, timeout=60)
        assert hashlib.sha256(out.read_bytes()).hexdigest() == digest

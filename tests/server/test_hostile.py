"""Hostile requests: each is refused, and the server goes on for everybody else."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from starlette.testclient import TestClient

from matcompute.server import tokens
from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.settings import Limits, NodeSettings

from .conftest import IDS, Releaser, Served

QUICK = NodeSettings(
    header_seconds=3.0,
    body_seconds=3.0,
    max_body_kb=16,
    limits=Limits(anonymous_per_minute=1_000_000, member_per_minute=1_000_000),
)


@pytest.fixture
def served(release: Releaser, serve: Callable[..., Served]) -> Served:
    release(IDS[0])
    return serve(Node(release.publication, QUICK))


def raw(served: Served, message: bytes, seconds: float = 20) -> bytes:
    """Send bytes as they are; return what comes until the server closes, or nothing more comes."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=seconds) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(message)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
    return b"".join(parts)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def request(path: bytes, *headers: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.fixture
def alive(served: Served) -> Callable[[], None]:
    def check() -> None:
        assert httpx.get(f"{served.url}/node", timeout=20).status_code == 200

    return check


def test_paths_that_climb(served: Served, alive: Callable[[], None]) -> None:
    base = f"/datasets/{IDS[0]}/versions/1/files/"
    secret = served.node.publication.folder / "keys" / "keyring.json"
    assert secret.exists()
    for climb in (
        "../",
        "..%2f",
        "%2e%2e/",
        "..%5c",
        "..\\",
        "....//",
        "%252e%252e/",
        "./../",
        "data/../../",
    ):
        for count in (1, 3, 8):
            for target in (
                "keys/keyring.json",
                "etc/passwd",
                "events.sqlite",
                "server.sqlite",
                "manifest.json",
            ):
                for path in (
                    base + climb * count + target,
                    "/" + climb * count + target,
                    "/blobs/sha256/" + climb * count + target,
                ):
                    answer = raw(served, request(path.encode()))
                    assert status(answer) in (400, 404, 422), path
                    assert b"SQLite" not in answer
                    assert b"root:" not in answer
    for path in (
        "/etc/passwd",
        "//etc/passwd",
        str(secret),
        quote(str(secret)),
        "manifest.json\0",
        "%00",
        "data%00.h5",
    ):
        answer = raw(served, request((base + path.replace("\0", "%00")).encode()))
        assert status(answer) in (400, 404, 422), path
    # The file is there under its own name, and only so.
    assert status(raw(served, request((base + "data/entries.h5").encode(), method=b"HEAD"))) == 200
    assert status(raw(served, request((base + "data//entries.h5").encode()))) == 404
    assert status(raw(served, request((base + "DATA/ENTRIES.H5").encode()))) == 404
    alive()


def test_injected_headers(served: Served, alive: Callable[[], None]) -> None:
    for path in (
        b"/changes?after=0%0d%0aX-Evil:%201",
        b"/node%0d%0aX-Evil:%201",
        f"/datasets/{IDS[0]}%0d%0aX-Evil:%201".encode(),
        b"/blobs/sha256/" + b"0" * 64 + b"%0d%0aX-Evil:1",
    ):
        answer = raw(served, request(path)).lower()
        assert status(answer) in (200, 400, 404, 422)
        assert b"\r\nx-evil" not in answer
    for header in (
        b"Authorization: Bearer x\r\n y",
        b"Authorization: Bearer \xff\xfe",
        b"Range: bytes=0-\r\n\tx",
        b"If-None-Match: " + b"\xff" * 100,
        b"X\x00Y: 1",
        b"Bad Header: 1",
        b"Content-Length: -1",
        b"Content-Length: 1e3",
        b"Content-Length: " + b"9" * 40,
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: gzip",
    ):
        answer = raw(served, request(b"/node", header))
        # Closed without a word is an answer, too.
        assert not answer or status(answer) in (200, 400, 401, 408, 413, 501), header
    for message in (
        b"\x00" * 1000,
        b"GET /nothing HTTP/9.9\r\n\r\n",
        b"\r\n" * 1000,
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00" * 50,
    ):
        answer = raw(served, message)
        assert not answer or status(answer) in (400, 404, 505), message
    alive()


def test_oversize(served: Served, alive: Callable[[], None]) -> None:
    auth = b"Authorization: Bearer " + tokens.create(served.node.engine, "r", scopes=["receipts"]).encode()
    kind = b"Content-Type: application/json"
    size = QUICK.max_body_kb << 10
    big = b"Content-Length: %d" % (size + 1)
    assert (
        status(raw(served, request(b"/receipts", auth, kind, big, method=b"POST", body=b"x" * (size + 1))))
        == 413
    )
    # Told small, sent in pieces without an end.
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    chunked = request(
        b"/receipts", auth, kind, b"Transfer-Encoding: chunked", method=b"POST", body=chunk * 100
    )
    assert status(raw(served, chunked)) == 413
    # A body where none belongs.
    assert status(raw(served, request(b"/changes", big, body=b"x" * (size + 1)))) == 413
    # Addresses and headers without an end.
    for message in (
        request(b"/changes?after=" + b"1" * 200_000),
        request(b"/node", b"X: " + b"y" * 200_000),
        request(b"/node", *[b"X-%d: y" % k for k in range(20_000)]),
    ):
        answer = raw(served, message)
        assert not answer or status(answer) in (400, 414, 431)
    alive()


def test_json_bombs(served: Served, alive: Callable[[], None]) -> None:
    token = tokens.create(served.node.engine, "r", scopes=["receipts"])
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    for body in (
        b"[" * 10_000,
        b"[" * 5_000 + b"]" * 5_000,
        b'{"a":' * 2_500 + b"1" + b"}" * 2_500,
        b'{"version": ' + b"9" * 10_000 + b"}",
        b'{"version": 1e999}',
        b'{"version": NaN}',
        b'{"reason": "\\ud800"}',
        b"\xff\xfe\x00",
        b"null",
        b'"x"',
        b"{}",
        json.dumps({"schema": {"$ref": "x"}}).encode(),
    ):
        answer = httpx.post(f"{served.url}/receipts", content=body, headers=headers, timeout=20)
        assert answer.status_code in (400, 422), body[:40]
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.content) < 2000
    # A compressed body is not unpacked.
    import gzip

    bomb = gzip.compress(b" " * (8 << 20))
    packed = {**headers, "Content-Encoding": "gzip"}
    assert httpx.post(f"{served.url}/receipts", content=bomb, headers=packed, timeout=20).status_code in (
        400,
        422,
    )
    alive()


def test_slow_clients_hold_nothing(served: Served, alive: Callable[[], None]) -> None:
    slow = []
    for start in (
        b"",
        b"GET /no",
        request(b"/node")[:-2],
        b"POST /receipts HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab",
    ):
        for _ in range(20):
            connection = socket.create_connection(("127.0.0.1", served.port), timeout=20)
            connection.sendall(start)
            slow.append((start, connection))
    alive()  # while they hang there
    for start, connection in slow:
        with connection:
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while part := connection.recv(4096):
                    answer += part
            # The server ends it: silently in the middle of headers, with 408 in the middle of a body.
            if start.startswith(b"POST"):
                assert status(answer) == 408
            else:
                assert answer == b""
    alive()


def test_a_drip_of_headers_is_cut(served: Served) -> None:
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=20)
    connection.sendall(b"GET /node HTTP/1.1\r\n")
    begun, cut = time.monotonic(), False
    while not cut and time.monotonic() - begun < 60:
        try:
            connection.sendall(b"X: y\r\n")
            time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            cut = True
    assert cut
    connection.close()


def test_a_reader_that_does_not_read_is_cut(release: Releaser, serve: Callable[..., Served]) -> None:
    from .test_blobs import big_release, data_file

    big_release(release, 24 << 20)
    served = serve(Node(release.publication, QUICK.model_copy(update={"send_seconds": 0.3})))
    digest, size, _ = data_file(served.node, "provenance/run.aiida")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", served.port))
    connection.sendall(request(f"/blobs/sha256/{digest}".encode()))
    time.sleep(4)
    total = 0
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 20):
            total += len(part)
    assert total < size


def test_many_at_once(served: Served, alive: Callable[[], None]) -> None:
    found: list[int] = []

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            found.extend(client.get(f"{served.url}/changes").status_code for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 120
    alive()


def test_a_damaged_version_stops_nobody_else(release: Releaser, node: Node) -> None:
    release(IDS[0])
    release(IDS[1])
    store = node.publication.store
    Path(store.path(IDS[0], 1, "manifest.json")).write_bytes(b"{}")
    client = TestClient(create_app(node, follow_seconds=0))
    assert client.get(f"/datasets/{IDS[0]}").status_code == 404
    assert client.get(f"/datasets/{IDS[1]}").status_code == 200
    # A file that is gone, or shorter than it was, is not served as if it were whole.
    place = Path(store.path(IDS[1], 1, "data/entries.h5"))
    url = f"/datasets/{IDS[1]}/versions/1/files/data/entries.h5"
    place.unlink()
    assert client.get(url).status_code == 503

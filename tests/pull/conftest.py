"""Nodes over small publications, and a server that lies."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Change = Callable[[str, int, bytes], tuple[int, bytes]]


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


server_tests = load("server_test_helpers", Path(__file__).parents[1] / "server" / "conftest.py")
IDS: list[str] = server_tests.IDS


class Liar:
    """An ASGI application that changes the answers of another one where ``changes`` says so (path → function)."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.changes: dict[str, Change] = {}
        self.requests: list[tuple[str, str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, headers = scope["path"], dict(scope["headers"])
        self.requests.append((scope["method"], path, headers.get(b"range", b"").decode()))
        change = self.changes.get(path)
        if change is None:
            await self.app(scope, receive, send)
            return
        status, kept, body = 200, [], b""

        async def hold(message: Any) -> None:
            nonlocal status, kept, body
            if message["type"] == "http.response.start":
                status, kept = message["status"], message["headers"]
            else:
                body += message.get("body", b"")

        await self.app(scope, receive, hold)
        status, body = change(path, status, body)
        kept = [(k, v) for k, v in kept if k.lower() != b"content-length"]
        kept.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": kept})
        await send({"type": "http.response.body", "body": body})

    def count(self, digest: str) -> int:
        return sum(path == f"/blobs/sha256/{digest}" for _, path, _ in self.requests)


class NodeUnderTest:
    """A publication, its server, and what may be done to its answers."""

    def __init__(self, folder: Path, name: str, serve: Callable[..., Any]) -> None:
        from matcompute.server.app import create_app
        from matcompute.server.node import Node
        from matcompute.server.settings import NodeSettings

        self.release = server_tests.Releaser(folder / name / "publication", folder / name / "scratch")
        self.publication = self.release.publication
        settings = NodeSettings(id=name, limits=server_tests.FREE)
        self.node = Node(self.publication, settings)
        self.liar = Liar(create_app(self.node, follow_seconds=0))
        self.url = serve(self.node, self.liar).url

    def manifest_path(self, dataset_id: str, version: int) -> str:
        return f"/datasets/{dataset_id}/versions/{version}/manifest"

    def file(self, dataset_id: str, version: int, path: str) -> str:
        """Digest of a file."""
        digest: str = self.publication.manifests(dataset_id)[version - 1].file(path).sha256
        return digest


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[[str], NodeUnderTest]]:
    """``make_node(name)``: a node that is served on a free port."""
    with contextlib.ExitStack() as stack:

        def serve(node: Any, app: Any) -> Any:
            served = server_tests.Served(node, app)
            served.start()
            stack.callback(served.stop)
            return served

        yield lambda name: NodeUnderTest(tmp_path, name, serve)


@pytest.fixture
def node(make_node: Callable[[str], NodeUnderTest]) -> NodeUnderTest:
    return make_node("node-1")


def tree(folder: Path) -> dict[str, str]:
    """Path → digest of all files of a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copy_of(folder: Path) -> dict[str, Any]:
    """What of a copy must be the same for everybody."""
    names = ("catalogue.json", "structures.parquet")
    return {"store": tree(folder / "store")} | {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names
    }


class Background(threading.Thread):
    """A thread whose error is raised when it is joined."""

    def __init__(self, target: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._do, self.error = target, None
        self.start()

    def run(self) -> None:
        try:
            self._do()
        except BaseException as error:
            self.error = error

    def result(self, timeout: float = 120) -> None:
        self.join(timeout)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error

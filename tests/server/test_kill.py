"""kill -9 of the server at random moments: the index goes on, and is the one of a server that was never killed."""

from __future__ import annotations

import os
import random
import select as selector
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, select

from matcompute.server import tokens
from matcompute.server.node import Node
from matcompute.server.tables import DERIVED

from .conftest import IDS, Releaser


@contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """``matcompute serve`` as a process of its own; killed at the end."""
    command = [str(Path(sys.executable).with_name("matcompute")), "serve", "-d", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        with_group = process.poll() is None
        if with_group:
            os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    ready, _, _ = selector.select([process.stdout], [], [], 120)
    assert ready
    return process.stdout.readline().split(" at ")[1].strip()


def content(node: Node) -> dict[str, list[Any]]:
    with node.engine.connect() as connection:
        return {table.name: sorted(map(repr, connection.execute(select(table)).all())) for table in DERIVED}


@pytest.mark.kill
def test_killed_while_the_index_is_made(release: Releaser, node: Node) -> None:
    publication = node.publication
    for k in range(4):
        release(IDS[k], 5)
        for _ in range(20):
            publication.regrade(IDS[k], "x", tier="member-1")
            publication.regrade(IDS[k], "x", tier="public")
    publication.withdraw(IDS[3], "x")
    node.create_tables()
    token = tokens.create(node.engine, "kept")
    # Processes that empty the index, make it again and die at a random moment on the way.
    child = (
        "import sys, pathlib\n"
        "from matcompute.server.node import Node\n"
        "node = Node(pathlib.Path(sys.argv[1]))\n"
        "node.create_tables()\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    node.rebuild()\n"
    )
    rng = random.Random(3)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", child, str(publication.folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.6))
        process.kill()
        process.wait(30)
        process.stdout.close()
    from matcompute.server.app import create_app

    create_app(node, follow_seconds=0)
    found = content(node)
    assert len(found["changes"]) == publication.events.after(0, 10_000)[-1].seq
    node.rebuild()
    assert content(node) == found
    assert tokens.find(node.engine, token) is not None
    with node.engine.begin() as connection:
        for table in DERIVED:
            connection.execute(delete(table))


@pytest.mark.kill
def test_matcompute_serve_killed(release: Releaser) -> None:
    event = release(IDS[0], 5)
    folder = release.publication.folder
    digest = release.publication.latest(IDS[0]).file("data/entries.h5").sha256  # type: ignore[union-attr]
    for round_ in range(2):
        with running(folder) as process:
            url = address(process)
            feed = httpx.get(f"{url}/changes", timeout=60).json()
            assert feed["changes"][0]["manifest_sha256"] == event.manifest_sha256
            assert feed["head"] == 1 + round_
            assert httpx.get(f"{url}/blobs/sha256/{digest}", timeout=60).status_code == 200
            release(IDS[round_ + 1], 5)
            assert httpx.get(f"{url}/changes", timeout=60).json()["head"] == 2 + round_
            process.kill()
            process.wait(30)


@pytest.mark.kill
def test_matcompute_serve_stops_and_complains(release: Releaser, tmp_path: Path) -> None:
    with running(release.publication.folder) as process:
        url = address(process)
        port = url.rsplit(":", 1)[1]
        command = [str(Path(sys.executable).with_name("matcompute")), "serve", "-d"]
        second = subprocess.run(
            [*command, str(release.publication.folder), "--port", port],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert second.returncode == 2
        assert f"port {port}" in second.stderr
        process.terminate()
        assert process.wait(60) in (0, -signal.SIGTERM)
    empty = subprocess.run(
        [*command, str(tmp_path / "no")], capture_output=True, text=True, timeout=120, check=False
    )
    assert empty.returncode == 2
    assert "matcompute publish keygen" in empty.stderr

"""Settings, index and its way back after a crash."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from matcompute.errors import InputError
from matcompute.server.node import Node
from matcompute.server.serve import listen
from matcompute.server.settings import NodeSettings
from matcompute.server.tables import changes, datasets, files, versions

from .conftest import IDS, Releaser, Served


def rows(node: Node, table: Any) -> list[dict[str, Any]]:
    with node.engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def test_a_served_node(release: Releaser, node: Node, serve: Callable[..., Served]) -> None:
    release(IDS[0])
    served = serve(node)
    answer = httpx.get(f"{served.url}/node")
    assert answer.status_code == 200
    assert answer.json()["id"] == "test-node"


def test_index_follows(release: Releaser, node: Node) -> None:
    node.create_tables()
    assert node.sync() == 0
    release(IDS[0])
    release(IDS[0], title="Better title", seed=10)
    release(IDS[1], grade="core", tier="member-2")
    assert node.sync() == 3
    assert [r["op"] for r in rows(node, changes)] == ["publish", "revise", "publish"]
    first, second = rows(node, datasets)
    assert (first["title"], first["version"], first["entries"]) == ("Better title", 2, 20)
    assert first["description"] == "Random alloys"
    assert (second["grade"], second["tier"]) == ("core", "member-2")
    for row in rows(node, files):
        stored = Path(node.publication.store.root) / row["location"]
        assert stored.stat().st_size == row["size"]
    node.publication.withdraw(IDS[0], "wrong", version=2)
    node.refresh()
    first = rows(node, datasets)[0]
    assert (first["title"], first["version"], first["withdrawn"]) == ("Dataset 1", 1, False)
    assert rows(node, changes)[-1]["newest"] == 1
    node.publication.withdraw(IDS[0], "all wrong")
    node.refresh()
    assert rows(node, datasets)[0]["withdrawn"]
    before = {t.name: rows(node, t) for t in (changes, datasets, files, versions)}
    node.rebuild()
    assert {t.name: rows(node, t) for t in (changes, datasets, files, versions)} == before


def test_indexers_are_resumed(release: Releaser, node: Node) -> None:
    release(IDS[0])
    release(IDS[1])
    done: list[str] = []

    def dies(connection: Any, node: Node, dataset_id: str, version: int) -> Any:
        done.append(dataset_id)
        yield
        if len(done) == 2:
            raise KeyboardInterrupt

    node.create_tables()
    node.register("test", dies)
    with pytest.raises(KeyboardInterrupt):
        node.sync()
    node.sync()
    node.sync()
    assert done == [IDS[0], IDS[1], IDS[1]]


def test_one_version_that_cannot_be_loaded_stops_no_other(release: Releaser, node: Node) -> None:
    for k in range(3):
        release(IDS[k], 5)
    done: list[str] = []
    broken = {IDS[1]}

    def load(connection: Any, node: Node, dataset_id: str, version: int) -> None:
        if dataset_id in broken:
            raise OSError("damaged")
        done.append(dataset_id)

    node.create_tables()
    node.register("test", load)
    assert node.sync() == 3
    assert done == [IDS[0], IDS[2]]
    assert not node.behind
    broken.clear()
    node.sync()
    assert done == [IDS[0], IDS[2], IDS[1]]


def test_settings_name_line_and_key(tmp_path: Path) -> None:
    assert NodeSettings.load(tmp_path).page_size == 100
    path = tmp_path / "node.yaml"
    path.write_text("title: 节点\nlimits: {member_per_minute: 5}\n")
    settings = NodeSettings.load(tmp_path)
    assert (settings.title.en, settings.limits.member_per_minute) == ("节点", 5)
    path.write_text("id: a\nlimits:\n  member_per_minut: 5\n")
    with pytest.raises(
        InputError, match=r"node.yaml:3: limits.member_per_minut.*did you mean 'member_per_minute'"
    ):
        NodeSettings.load(tmp_path)
    path.write_text("id: a b\n")
    with pytest.raises(InputError, match=r"node.yaml:1: id: "):
        NodeSettings.load(tmp_path)
    path.write_text("- a\n")
    with pytest.raises(InputError, match="expected keys and values"):
        NodeSettings.load(tmp_path)


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """With Nagle's algorithm every answer of two pieces takes 40 ms longer: the delay of the client's system."""

    async def accepted() -> int:
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told.set_result(
                writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            )
            writer.close()

        listener = listen("127.0.0.1", 0)
        async with await asyncio.start_server(look, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            try:
                return await told
            finally:
                writer.close()

    assert asyncio.run(accepted())
    with listen("127.0.0.1", 0) as taken, pytest.raises(InputError, match="port"):
        listen("127.0.0.1", taken.getsockname()[1])

"""The index in PostgreSQL: the same answers as from SQLite."""

from __future__ import annotations

from starlette.testclient import TestClient

from matcompute.server import tokens
from matcompute.server.app import create_app
from matcompute.server.node import Node

from .conftest import IDS, Releaser

# The fixture: a PostgreSQL of its own, or a skip where there is none.
from .test_optimade_filter import postgres  # noqa: F401


def test_same_answers(release: Releaser, node: Node, postgres: str) -> None:  # noqa: F811
    release(IDS[0], 5)
    release(IDS[1], 5, tier="member-1")
    release(IDS[2], 5)
    node.publication.withdraw(IDS[2], "x")
    node.publication.regrade(IDS[0], "x", tier="member-2")
    node.publication.regrade(IDS[0], "x", tier="public")
    other = Node(node.publication, node.settings.model_copy(update={"database": postgres}))
    clients = [TestClient(create_app(n, follow_seconds=0)) for n in (node, other)]
    headers = [
        {"Authorization": f"Bearer {tokens.create(n.engine, 'm', tier='member-1')}"} for n in (node, other)
    ]

    def compare() -> None:
        for path in (
            "/changes",
            "/changes?after=2&limit=2",
            "/datasets",
            f"/datasets/{IDS[0]}",
            f"/datasets/{IDS[1]}",
        ):
            for with_token in (False, True):
                answers = [c.get(path, headers=h if with_token else {}) for c, h in zip(clients, headers)]
                assert answers[0].content == answers[1].content, path
        # Every event is seen by both, in order and with the same tombstones.
        assert clients[1].get("/changes").json()["head"] == node.head

    compare()
    release(IDS[0], 5)
    compare()
    other.rebuild()
    compare()
    other.engine.dispose()

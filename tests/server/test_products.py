"""Tokens for some products: what they open when datasets are regraded, change their domain, or come later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import select
from starlette.testclient import TestClient

from matcompute.cli.node_token import token
from matcompute.errors import InputError
from matcompute.server import tokens
from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.settings import NodeSettings
from matcompute.server.tables import domains, metadata
from matcompute.server.tables import tokens as table

from .conftest import FREE, IDS, Releaser

STEEL, OTHER = "advanced-steel", "frontier-materials"


class Reader:
    """A member's token, and what it is shown."""

    def __init__(self, node: Node, **products: Any) -> None:
        self.client = TestClient(create_app(node, follow_seconds=0))
        made = tokens.create(node.engine, "member", tier="member-3", grade="core", **products)
        self.client.headers["Authorization"] = f"Bearer {made}"

    def listed(self) -> set[str]:
        return {d["id"] for d in self.client.get("/datasets").json()["datasets"]}

    def feed(self, after: int = 0) -> list[tuple[str, str]]:
        page = self.client.get("/changes", params={"after": after}).json()
        assert page["head"] == (page["changes"][-1]["seq"] if page["changes"] else page["head"])
        return [(c["op"], c["dataset_id"]) for c in page["changes"]]


def test_what_comes_later_is_seen(release: Releaser, node: Node) -> None:
    release(IDS[0], 3, tier="member-1", domain=STEEL)
    release(IDS[1], 3, tier="member-1", domain=OTHER)
    release(IDS[2], 3)
    named, steel = Reader(node, datasets=[IDS[3]]), Reader(node, domains=[STEEL])
    assert named.listed() == {IDS[2]}
    assert steel.listed() == {IDS[0], IDS[2]}
    release(IDS[3], 3, tier="member-2", domain=OTHER)
    release(IDS[4], 3, tier="member-2", domain=STEEL)
    assert named.listed() == {IDS[2], IDS[3]}
    assert steel.listed() == {IDS[0], IDS[2], IDS[4]}
    assert named.feed() == [("publish", IDS[2]), ("publish", IDS[3])]


def test_a_public_dataset_that_is_closed_leaves_the_feed_as_a_tombstone(
    release: Releaser, node: Node
) -> None:
    release(IDS[0], 3)
    release(IDS[1], 3)
    mine, other = Reader(node, datasets=[IDS[0]]), Reader(node, datasets=[IDS[5]])
    assert mine.listed() == other.listed() == {IDS[0], IDS[1]}
    node.publication.regrade(IDS[0], "closed", tier="member-1")
    assert mine.listed() == {IDS[0], IDS[1]}
    assert other.listed() == {IDS[1]}
    assert mine.feed(2) == [("regrade", IDS[0])]
    assert other.feed(2) == [("withdraw", IDS[0])]
    text = other.client.get("/changes").text
    assert "closed" not in text
    oai = "/oai?verb=ListRecords&metadataPrefix=oai_dc"
    assert other.client.get(oai).text.count('status="deleted"') == 1
    assert 'status="deleted"' not in mine.client.get(oai).text


def test_a_dataset_stays_in_the_domain_that_it_was_released_in(release: Releaser, node: Node) -> None:
    """Else the end of a feed would move back, and what was pulled would go stale unseen."""
    release(IDS[0], 3, tier="member-1", domain=STEEL)
    steel, other = Reader(node, domains=[STEEL]), Reader(node, domains=[OTHER])
    assert (steel.listed(), other.listed()) == ({IDS[0]}, set())
    release(IDS[0], 3, tier="member-1", domain=OTHER)
    assert steel.listed() == other.listed() == {IDS[0]}
    assert steel.feed() == other.feed() == [("publish", IDS[0]), ("revise", IDS[0])]
    node.rebuild()
    assert steel.listed() == other.listed() == {IDS[0]}


def test_an_index_of_an_older_release_is_brought_up_to_date(release: Releaser, node: Node) -> None:
    release(IDS[0], 3, tier="member-1", domain=STEEL)
    create_app(node, follow_seconds=0)
    old = tokens.create(node.engine, "old", tier="member-1")
    with node.engine.begin() as connection:
        domains.drop(connection)
        connection.exec_driver_sql("ALTER TABLE tokens DROP COLUMN products")
    node.engine.dispose()
    again = Node(release.publication, NodeSettings(limits=FREE))
    assert Reader(again, domains=[STEEL]).listed() == {IDS[0]}
    assert Reader(again, domains=[OTHER]).listed() == set()
    client = TestClient(create_app(again, follow_seconds=0), headers={"Authorization": f"Bearer {old}"})
    assert len(client.get("/datasets").json()["datasets"]) == 1
    assert domains.name in metadata.tables


@pytest.mark.parametrize(
    "wrong", [{"datasets": ["x"]}, {"datasets": [IDS[0].upper() + "A"]}, {"domains": ["steel"]}]
)
def test_what_is_no_product_is_refused(node: Node, wrong: dict[str, Any]) -> None:
    node.create_tables()
    with pytest.raises(InputError):
        tokens.create(node.engine, "a", **wrong)
    with node.engine.connect() as connection:
        assert connection.execute(select(table)).first() is None


def test_commands(release: Releaser, node: Node, tmp_path: Path) -> None:
    def call(*words: str) -> str:
        folder = str(release.publication.folder)
        result = CliRunner().invoke(token, ["-d", folder, *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    call("create", "a", "--tier", "member-1", "--dataset", IDS[0], "--domain", STEEL)
    call("create", "b")
    rows = {row.name: row.products for row in tokens.listing(node.engine)}
    assert rows == {"a": {"datasets": [IDS[0]], "domains": [STEEL]}, "b": None}
    assert "products" in call("list")

"""Tokens, and the commands that make, list and end them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import select, update
from starlette.testclient import TestClient

from matcompute.cli.node_token import token
from matcompute.errors import InputError
from matcompute.server import tokens
from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.tables import tokens as table

from .conftest import IDS, Releaser


def test_only_a_token_that_holds_now_opens(release: Releaser, node: Node) -> None:
    release(IDS[0], tier="member-1")
    client = TestClient(create_app(node, follow_seconds=0))
    made = tokens.create(node.engine, "a", tier="member-1")
    path = f"/datasets/{IDS[0]}"

    def status(header: str | None) -> int:
        return client.get(path, headers={} if header is None else {"Authorization": header}).status_code

    assert status(None) == 404
    assert status(f"Bearer {made}") == 200
    assert status(f"bearer  {made}") == 200
    prefix, identity, secret = made.split("_", 2)
    for wrong in (
        f"Basic {made}",
        made,
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Bearer {made}x",
        f"Bearer {made[:-1]}",
        f"Bearer {prefix}_{identity}_",
        f"Bearer {prefix}_{'0' * 16}_{secret}",
        f"Bearer mcx_{identity}_{secret}",
        f"Bearer {prefix}_{identity[:-1]}%_{secret}",
        "Bearer " + "x" * 10_000,
    ):
        answer = client.get(path, headers={"Authorization": wrong})
        assert answer.status_code == 401, wrong
        assert answer.headers["www-authenticate"].startswith("Bearer")
        # Nothing that is open to the public is given to a wrong token either.
        assert client.get("/node", headers={"Authorization": wrong}).status_code == 401
    with node.engine.begin() as connection:
        past = (datetime.now(UTC) - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        connection.execute(update(table).values(expires=past))
    assert status(f"Bearer {made}") == 401
    other = tokens.create(node.engine, "b", tier="member-1", days=None)
    assert status(f"Bearer {other}") == 200
    tokens.revoke(node.engine, other.split("_")[1])
    assert status(f"Bearer {other}") == 401
    with pytest.raises(InputError, match="no token"):
        tokens.revoke(node.engine, other.split("_")[1])


def test_the_secret_is_stored_nowhere(node: Node) -> None:
    node.create_tables()
    secret = tokens.create(node.engine, "a").split("_", 2)[2]
    with node.engine.connect() as connection:
        row = connection.execute(select(table)).one()
    assert secret not in repr(tuple(row))
    node.engine.dispose()
    for file in node.publication.folder.glob("server.sqlite*"):
        assert secret.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    "wrong",
    [
        {"tier": "member-9"},
        {"grade": "secret"},
        {"scopes": ["write"]},
        {"days": 0},
        {"days": 1e9},
        {"name": " "},
        {"name": "a\nb"},
    ],
)
def test_what_a_token_needs(node: Node, wrong: dict) -> None:  # type: ignore[type-arg]
    node.create_tables()
    with pytest.raises(InputError):
        tokens.create(node.engine, **({"name": "a"} | wrong))


def test_commands(release: Releaser, tmp_path: Path) -> None:
    folder = str(release.publication.folder)

    def call(*words: str) -> str:
        result = CliRunner().invoke(token, ["-d", folder, *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output.strip()

    keyring = str(release.publication.keys / "keyring.json")
    made = call(
        "create",
        "平台 platform",
        "--tier",
        "member-2",
        "--scope",
        "read",
        "--scope",
        "receipts",
        "--key",
        keyring,
    )
    assert made.startswith("mct_")
    identity = made.split("_")[1]
    listed = json.loads(call("list", "--json"))
    assert [(t["id"], t["tier"], t["scopes"], t["revoked"]) for t in listed] == [
        (identity, "member-2", ["read", "receipts"], None)
    ]
    assert made.split("_", 2)[2] not in call("list")
    from matcompute.cli.node import node as group

    named_before = CliRunner().invoke(
        group, ["-d", folder, "token", "list", "--json"], catch_exceptions=False
    )
    assert json.loads(named_before.output) == listed
    assert "revoked" in call("revoke", identity)
    assert json.loads(call("list", "--json"))[0]["revoked"] is not None

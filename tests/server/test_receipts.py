"""Receipts: signed, stored once, seen by the admin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from matcompute.publish import keys
from matcompute.publish.errors import SignatureError
from matcompute.publish.keys import SigningKey
from matcompute.publish.receipt import Receipt, sign_receipt
from matcompute.server import tokens
from matcompute.server.app import create_app
from matcompute.server.node import Node
from matcompute.server.tables import receipts

from .conftest import IDS, Releaser


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return keys.generate(tmp_path / "receiver")


class Receiver:
    def __init__(self, node: Node) -> None:
        self.client = TestClient(create_app(node, follow_seconds=0))
        self.node = node

    def token(self, *scopes: str, **options: Any) -> dict[str, str]:
        made = tokens.create(self.node.engine, "platform", scopes=scopes, **options)
        return {"Authorization": f"Bearer {made}"}

    def post(self, receipt: Receipt, headers: dict[str, str]) -> Any:
        headers = {"Content-Type": "application/json", **headers}
        return self.client.post("/receipts", content=receipt.to_bytes(), headers=headers)


def test_receipts(release: Releaser, node: Node, key: SigningKey, tmp_path: Path) -> None:
    event = release(IDS[0])
    receiver = Receiver(node)
    facts = {
        "dataset_id": IDS[0],
        "version": 1,
        "manifest_sha256": event.manifest_sha256,
        "verdict": "accept",
        "receiver": "平台",
    }
    receipt = sign_receipt(key, **facts)
    receipt.verify()
    assert Receipt.from_bytes(receipt.to_bytes()) == receipt
    mine = receiver.token("receipts")
    first = receiver.post(receipt, mine)
    assert first.status_code == 201, first.text
    assert first.json()["sha256"] == receipt.sha256
    again = receiver.post(receipt, mine)
    assert (again.status_code, again.json()) == (200, first.json())
    assert receiver.post(receipt, {}).status_code == 401
    assert receiver.post(receipt, receiver.token("read")).status_code == 403
    # Another key under the same token; another token pins its own.
    other = keys.generate(tmp_path / "other")
    assert receiver.post(sign_receipt(other, **facts), mine).status_code == 403
    assert receiver.post(sign_receipt(other, **facts), receiver.token("receipts")).status_code == 201
    bound = receiver.token("receipts", public_key=key.public.public_key)
    assert receiver.post(sign_receipt(other, **facts), bound).status_code == 403
    # A changed word, a wrong digest, a version or dataset that is not there.
    forged = receipt.model_copy(update={"verdict": "reject"})
    assert receiver.post(forged, mine).status_code == 403
    with pytest.raises(SignatureError):
        forged.verify()
    assert receiver.post(sign_receipt(key, **facts | {"manifest_sha256": "0" * 64}), mine).status_code == 409
    assert receiver.post(sign_receipt(key, **facts | {"version": 2}), mine).status_code == 404
    assert receiver.post(sign_receipt(key, **facts | {"dataset_id": IDS[1]}), mine).status_code == 404
    # A refusal may name the manifest that the receiver got.
    refusal = sign_receipt(
        key, **facts | {"manifest_sha256": "0" * 64, "verdict": "reject", "reason": "a flipped byte"}
    )
    assert receiver.post(refusal, mine).status_code == 201
    listed = receiver.client.get("/receipts", headers=receiver.token("admin")).json()
    assert [(r["verdict"], r["receiver"]) for r in listed["receipts"]] == [
        ("accept", "平台"),
        ("accept", "平台"),
        ("reject", "平台"),
    ]
    page = receiver.client.get("/receipts?limit=1&after=1", headers=receiver.token("admin")).json()
    assert ([r["number"] for r in page["receipts"]], page["next"]) == ([2], 2)
    for headers, status in (({}, 401), (mine, 403), (receiver.token("read"), 403)):
        assert receiver.client.get("/receipts", headers=headers).status_code == status
    # What the admin sees can be checked again with the signature alone.
    with node.engine.connect() as connection:
        assert len(connection.execute(select(receipts)).all()) == 3


def test_not_for_what_one_cannot_see(release: Releaser, node: Node, key: SigningKey) -> None:
    event = release(IDS[0], tier="member-2", grade="important")
    receiver = Receiver(node)
    receipt = sign_receipt(
        key,
        dataset_id=IDS[0],
        version=1,
        manifest_sha256=event.manifest_sha256,
        verdict="accept",
        receiver="p",
    )
    # The scope receipts without read sees what the public sees.
    for options in ({}, {"tier": "member-3"}, {"tier": "member-1", "grade": "core"}):
        assert receiver.post(receipt, receiver.token("read", "receipts", **options)).status_code == 404
    everything = {"tier": "member-3", "grade": "core"}
    assert receiver.post(receipt, receiver.token("receipts", **everything)).status_code == 404
    assert receiver.post(receipt, receiver.token("read", "receipts", **everything)).status_code == 201


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "matcompute.receipt/v2"},
        {"version": 0},
        {"version": "1"},
        {"version": True},
        {"verdict": "maybe"},
        {"reason": "x" * 4001},
        {"reason": "a\x00b"},
        {"receiver": ""},
        {"at": "yesterday"},
        {"public_key": "short"},
        {"signature": "!"},
        {"more": 1},
        {"dataset_id": None},
        {"manifest_sha256": "Z" * 64},
    ],
)
def test_malformed_receipts(node: Node, key: SigningKey, change: dict[str, Any]) -> None:
    receiver = Receiver(node)
    good = sign_receipt(
        key, dataset_id=IDS[0], version=1, manifest_sha256="0" * 64, verdict="accept", receiver="p"
    ).model_dump(by_alias=True)
    answer = receiver.client.post("/receipts", json=good | change, headers=receiver.token("receipts"))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"

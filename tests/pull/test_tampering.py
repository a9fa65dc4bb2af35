"""A node, or somebody on the way, lies: each lie is refused with its reason, and nothing of it reaches the store."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from matcompute.publish import keys
from matcompute.publish.canonical import dump
from matcompute.publish.keys import Keyring
from matcompute.publish.manifest import Manifest
from matcompute.publish.pull import NodeRefused, Options, Refusal, Unreachable, pull
from matcompute.publish.signing import Signature, sign
from matcompute.publish.store import Store
from matcompute.server.tokens import create
from matcompute.times import utc_now

from .conftest import IDS, NodeUnderTest

A, B = IDS[:2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy"


def only(refusals: list[Refusal]) -> tuple[str, int, str]:
    (refusal,) = refusals
    return refusal.dataset_id, refusal.version, refusal.code


def give(content: bytes) -> Callable[[str, int, bytes], tuple[int, bytes]]:
    return lambda _path, _status, _body: (200, content)


def stored(copy: Path) -> set[str]:
    return {name.split("/")[1] for name in Store(copy / "store").objects()}


def flip(_path: str, status: int, body: bytes) -> tuple[int, bytes]:
    middle = len(body) // 2
    return status, body[:middle] + bytes([body[middle] ^ 4]) + body[middle + 1 :]


def test_one_flipped_byte_of_a_shard(node: NodeUnderTest, copy: Path) -> None:
    node.release(A)
    node.release(B)
    node.release(A)
    digest = node.file(A, 1, "data/entries.h5")
    node.liar.changes[f"/blobs/sha256/{digest}"] = flip
    token = create(node.node.engine, "platform", scopes=("read", "receipts"))
    report = pull(node.url, copy, Options(token=token))
    assert only(report.refusals) == (A, 1, "digest")
    assert "data/entries.h5" in report.refusals[0].reason
    # Other datasets go on; version 2 waits for version 1.
    assert report.stored == [(B, 1)]
    assert stored(copy) == {B}
    assert node.liar.count(digest) == 1
    with node.node.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT dataset_id, verdict, reason FROM receipts ORDER BY 2").all()
    assert [row[:2] for row in rows] == [(B, "accept"), (A, "reject")]
    assert "digest" in rows[1][2]
    # The node mends it: taken, and the refusal is gone.
    node.liar.changes.clear()
    report = pull(node.url, copy, Options(token=token))
    assert report.stored == [(A, 1), (A, 2)]
    assert report.refusals == []


@pytest.mark.parametrize("size", [-1, 1])
def test_a_byte_too_few_or_too_many(node: NodeUnderTest, copy: Path, size: int) -> None:
    node.release(A)
    path = f"/blobs/sha256/{node.file(A, 1, 'summary.parquet')}"
    node.liar.changes[path] = lambda _p, _s, body: (200, body[:-1] if size < 0 else body + b"0")
    assert only(pull(node.url, copy).refusals) == (A, 1, "digest")
    assert stored(copy) == set()


def test_a_dropped_shard(node: NodeUnderTest, copy: Path) -> None:
    node.release(A)
    path = f"/blobs/sha256/{node.file(A, 1, 'data/entries.h5')}"
    node.liar.changes[path] = lambda *_: (404, b"{}")
    report = pull(node.url, copy)
    assert only(report.refusals) == (A, 1, "dropped")
    assert "data/entries.h5" in report.refusals[0].reason
    assert stored(copy) == set()


def test_a_shard_dropped_from_a_signed_manifest(node: NodeUnderTest, copy: Path) -> None:
    node.release(A)
    manifest = node.publication.manifests(A)[0]
    poorer = manifest.model_copy(update={"files": tuple(f for f in manifest.files if f.role != "data")})
    path = node.manifest_path(A, 1)
    raw = poorer.to_bytes()
    signature = sign(raw, keys.load(node.publication.keys)).to_bytes()
    node.liar.changes |= {path: give(raw), f"{path}.sig": give(signature)}
    name_it(node, A, 1, poorer)
    report = pull(node.url, copy)
    assert only(report.refusals) == (A, 1, "dropped")
    assert "0 shards of 1" in report.refusals[0].reason


def name_it(node: NodeUnderTest, dataset_id: str, version: int, manifest: Manifest) -> None:
    """Let the feed name another manifest."""

    def change(_path: str, status: int, body: bytes) -> tuple[int, bytes]:
        feed = json.loads(body)
        for event in feed["changes"]:
            if (event["dataset_id"], event["version"]) == (dataset_id, version):
                event["manifest_sha256"] = manifest.sha256
        return status, json.dumps(feed).encode()

    node.liar.changes["/changes"] = change


@pytest.mark.parametrize("part", ["", ".sig"])
def test_one_flipped_byte_of_the_papers(node: NodeUnderTest, copy: Path, part: str) -> None:
    node.release(A)
    node.liar.changes[node.manifest_path(A, 1) + part] = flip
    assert only(pull(node.url, copy).refusals)[2] in ("signature", "wrong-key")
    assert stored(copy) == set()


def test_a_manifest_changed_after_it_was_signed(node: NodeUnderTest, copy: Path) -> None:
    node.release(A)
    manifest = node.publication.manifests(A)[0]
    node.liar.changes[node.manifest_path(A, 1)] = give(
        manifest.model_copy(update={"licence": "CC0-1.0"}).to_bytes()
    )
    report = pull(node.url, copy)
    assert only(report.refusals) == (A, 1, "signature")
    assert "changed after it was signed" in report.refusals[0].reason


def test_a_rolled_back_manifest(node: NodeUnderTest, copy: Path) -> None:
    node.release(A)
    node.release(A)
    old, new = (node.manifest_path(A, version) for version in (1, 2))
    store = node.publication.store
    node.liar.changes[new] = give(store.read(A, 1, "manifest.json"))
    node.liar.changes[f"{new}.sig"] = give(store.read(A, 1, "manifest.json.sig"))
    report = pull(node.url, copy)
    assert only(report.refusals) == (A, 2, "rollback")
    assert "version 1 stands where version 2 should" in report.refusals[0].reason
    assert report.stored == [(A, 1)]
    assert old not in node.liar.changes


def test_a_rewritten_version(node: NodeUnderTest, copy: Path) -> None:
    """The node signs another version 1 after we took the first: version 2, which follows it, is refused."""
    node.release(A)
    pull(node.url, copy)
    key = keys.load(node.publication.keys)
    first = node.publication.manifests(A)[0]
    other = first.model_copy(update={"title": "Rewritten"})
    node.release(A)
    second = node.publication.manifests(A)[1]
    forged = second.model_copy(
        update={"previous": second.previous.model_copy(update={"manifest_sha256": other.sha256})}  # type: ignore[union-attr]
    )
    path = node.manifest_path(A, 2)
    node.liar.changes[path] = give(forged.to_bytes())
    node.liar.changes[f"{path}.sig"] = give(sign(forged.to_bytes(), key).to_bytes())
    name_it(node, A, 2, forged)
    report = pull(node.url, copy)
    assert only(report.refusals) == (A, 2, "rollback")
    assert "follows manifest" in report.refusals[0].reason


def test_a_feed_that_renames_a_version(node: NodeUnderTest, copy: Path) -> None:
    node.release(A)
    pull(node.url, copy)
    name_it(node, A, 1, node.publication.manifests(A)[0].model_copy(update={"title": "Rewritten"}))
    report = pull(node.url, copy, Options(from_start=True))
    assert only(report.refusals) == (A, 1, "rollback")
    assert "now names manifest" in report.refusals[0].reason


def test_a_replayed_signature(node: NodeUnderTest, copy: Path) -> None:
    node.release(A)
    node.release(A)
    node.liar.changes[f"{node.manifest_path(A, 2)}.sig"] = give(
        node.publication.store.read(A, 1, "manifest.json.sig")
    )
    report = pull(node.url, copy)
    assert only(report.refusals) == (A, 2, "replayed")
    assert "version 1" in report.refusals[0].reason


def test_the_papers_of_another_dataset(node: NodeUnderTest, copy: Path) -> None:
    node.release(A)
    node.release(B)
    for part, name in (("", "manifest.json"), (".sig", "manifest.json.sig")):
        node.liar.changes[node.manifest_path(B, 1) + part] = give(node.publication.store.read(A, 1, name))
    report = pull(node.url, copy)
    assert only(report.refusals) == (B, 1, "replayed")
    assert A in report.refusals[0].reason


def test_wrong_keys(node: NodeUnderTest, copy: Path, tmp_path: Path) -> None:
    node.release(A)
    raw = node.publication.store.read(A, 1, "manifest.json")
    path = f"{node.manifest_path(A, 1)}.sig"
    stranger = keys.generate(tmp_path / "stranger")
    node.liar.changes[path] = give(sign(raw, stranger).to_bytes())
    report = pull(node.url, copy)
    assert only(report.refusals) == (A, 1, "wrong-key")
    assert stranger.key_id in report.refusals[0].reason
    # The stranger says that it was the node's key.
    own = keys.load(node.publication.keys)
    draft = Signature(key_id=own.key_id, signature="", signed_at=utc_now())
    forged = draft.model_copy(
        update={"signature": base64.b64encode(stranger.sign(draft.message(raw))).decode()}
    )
    node.liar.changes[path] = give(forged.to_bytes())
    assert only(pull(node.url, copy).refusals) == (A, 1, "signature")
    # A key that was retired before.
    keys.rotate(node.publication.keys)
    late = sign(raw, own, at="2099-01-01T00:00:00Z")
    node.liar.changes[path] = give(late.to_bytes())
    report = pull(node.url, copy)
    assert only(report.refusals) == (A, 1, "signature")
    assert "in service" in report.refusals[0].reason
    assert stored(copy) == set()


def test_keyrings(node: NodeUnderTest, copy: Path, tmp_path: Path) -> None:
    node.release(A)
    own = Keyring.read(node.publication.keys).current.key_id

    def show(keyring: Keyring) -> None:
        def change(_path: str, status: int, body: bytes) -> tuple[int, bytes]:
            return status, dump(json.loads(body) | {"keyring": json.loads(keyring.to_bytes())})

        node.liar.changes["/node"] = change

    with pytest.raises(NodeRefused, match="has not the key"):
        pull(node.url, copy, Options(key="0" * 32))
    pull(node.url, copy, Options(key=own))
    before = Keyring.read(node.publication.keys)

    keys.generate(tmp_path / "stranger")
    show(Keyring.read(tmp_path / "stranger"))
    with pytest.raises(NodeRefused, match="before it was"):
        pull(node.url, copy)
    node.liar.changes.clear()

    keys.rotate(node.publication.keys)
    pull(node.url, copy)  # a rotation is believed
    show(before)
    with pytest.raises(NodeRefused, match="rolled back"):
        pull(node.url, copy)
    # Somebody who stole the first key makes a second one of his own.
    thief = tmp_path / "thief"
    thief.mkdir()
    (thief / f"{own}.pem").write_bytes((node.publication.keys / f"{own}.pem").read_bytes())
    (thief / f"{own}.pem").chmod(0o600)
    (thief / "keyring.json").write_bytes(before.to_bytes())
    keys.rotate(thief)
    show(Keyring.read(thief))
    with pytest.raises(NodeRefused, match="history differs"):
        pull(node.url, copy)


def test_a_rolled_back_feed(node: NodeUnderTest, copy: Path) -> None:
    node.release(A)
    node.release(B)
    pull(node.url, copy)
    shorter = {"changes": [], "next": 2, "head": 1, "more": False}
    node.liar.changes["/changes"] = give(json.dumps(shorter).encode())
    with pytest.raises(NodeRefused, match="rolled back: it ends at 1"):
        pull(node.url, copy)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"[]", "not a JSON object"),
        (b"{" * 10000, "not JSON"),
        (b'{"changes": [{"seq": 1}], "next": 1, "head": 1}', "changes.0"),
        (b'{"changes": [], "next": 0, "head": 9, "more": true}', "out of order"),
        (b" " * (17 << 20), "MiB"),
    ],
)
def test_nonsense(node: NodeUnderTest, copy: Path, answer: bytes, message: str) -> None:
    node.liar.changes["/changes"] = give(answer)
    with pytest.raises((Unreachable, NodeRefused), match=message):
        pull(node.url, copy)


def test_a_path_that_leaves_the_store(node: NodeUnderTest, copy: Path) -> None:
    node.release(A)
    raw = node.publication.store.read(A, 1, "manifest.json").replace(b"data/entries.h5", b"../../entries.h5")
    path = node.manifest_path(A, 1)
    node.liar.changes[path] = give(raw)
    node.liar.changes[f"{path}.sig"] = give(sign(raw, keys.load(node.publication.keys)).to_bytes())
    report = pull(node.url, copy)
    assert only(report.refusals) == (A, 1, "manifest")
    assert "plain relative path" in report.refusals[0].reason


def test_a_damaged_state_is_named(node: NodeUnderTest, copy: Path) -> None:
    copy.mkdir()
    (copy / "pull.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(Exception, match=r"pull\.sqlite") as caught:
        pull(node.url, copy)
    assert not isinstance(caught.value, sqlite3.Error)

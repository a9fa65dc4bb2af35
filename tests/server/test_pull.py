"""Node, feed, datasets and manifests as a puller sees them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from matcompute.dataset import GRADES, TIERS
from matcompute.errors import MatcomputeError
from matcompute.publish.chain import verify_chain
from matcompute.publish.keys import Keyring
from matcompute.publish.manifest import Manifest
from matcompute.publish.signing import Signature, verify
from matcompute.server import tokens
from matcompute.server.access import Access, Principal
from matcompute.server.app import create_app
from matcompute.server.feed import head_of, page_of
from matcompute.server.node import Node
from matcompute.server.settings import NodeSettings

from .conftest import FREE, IDS, Releaser, Served


def client_of(node: Node) -> TestClient:
    return TestClient(create_app(node, follow_seconds=0))


def test_a_dataset_from_feed_to_signature(release: Releaser, node: Node) -> None:
    release(IDS[0])
    release(IDS[0], title="Second")
    client = client_of(node)
    said = client.get("/node").json()
    assert (said["schema"], said["head"], said["protocol"]) == (
        "matcompute.node/v1",
        2,
        ["matcompute.pull/v1"],
    )
    import json

    keyring = Keyring.from_bytes(json.dumps(said["keyring"]).encode())
    feed = client.get("/changes").json()
    assert [(c["seq"], c["op"], c["version"]) for c in feed["changes"]] == [
        (1, "publish", 1),
        (2, "revise", 2),
    ]
    assert (feed["next"], feed["head"], feed["more"]) == (2, 2, False)
    manifests = []
    for change in feed["changes"]:
        base = f"/datasets/{change['dataset_id']}/versions/{change['version']}"
        raw = client.get(f"{base}/manifest").content
        verify(raw, Signature.from_bytes(client.get(f"{base}/manifest.sig").content), keyring)
        manifests.append(Manifest.from_bytes(raw))
        assert manifests[-1].sha256 == change["manifest_sha256"]
    verify_chain(manifests)
    dataset = client.get(f"/datasets/{IDS[0]}").json()
    assert (dataset["title"], dataset["schema"], dataset["version"]) == ("Second", "matcompute.dataset/v1", 2)
    assert [v["manifest_sha256"] for v in dataset["versions"]] == [m.sha256 for m in manifests]
    # A withdrawn version: its manifest stays for the chain, its files are gone.
    node.publication.withdraw(IDS[0], "wrong potential", version=1)
    base = f"/datasets/{IDS[0]}/versions/1"
    assert client.get(f"{base}/manifest").status_code == 200
    assert client.get(f"{base}/files/data/entries.h5").status_code == 404
    assert client.get(f"/datasets/{IDS[0]}/versions/2/files/data/entries.h5").status_code == 200
    assert client.get("/changes?after=2").json()["changes"][0]["reason"] == "wrong potential"


def test_pages_and_etags(release: Releaser, node: Node) -> None:
    for dataset_id in IDS[:5]:
        release(dataset_id)
    client = client_of(node)
    seen, after = [], 0
    while True:
        page = client.get("/changes", params={"after": after, "limit": 2}).json()
        seen += [c["seq"] for c in page["changes"]]
        after = page["next"]
        if not page["more"]:
            break
    assert seen == [1, 2, 3, 4, 5]
    listed, cursor = [], None
    while True:
        page = client.get("/datasets", params={"limit": 2} | ({"after": cursor} if cursor else {})).json()
        listed += [d["id"] for d in page["datasets"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert listed == IDS[:5]
    for path in (
        "/node",
        "/changes",
        "/datasets",
        f"/datasets/{IDS[0]}",
        f"/datasets/{IDS[0]}/versions/1/manifest",
    ):
        first = client.get(path)
        assert first.headers["cache-control"] == "public, no-cache"
        assert first.headers["vary"] == "Authorization"
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    etag = client.get("/changes").headers["etag"]
    node.publication.withdraw(IDS[0], "why")
    assert client.get("/changes", headers={"If-None-Match": etag}).status_code == 200


def test_what_leaves_and_comes_into_sight(release: Releaser, node: Node) -> None:
    publication = node.publication
    release(IDS[0])
    client = client_of(node)
    publication.regrade(IDS[0], "scale, secretly", grade="core", tier="member-2")
    token = tokens.create(node.engine, "m2", tier="member-2", grade="core")
    member = {"Authorization": f"Bearer {token}"}
    tombstone = {
        "seq": 2,
        "op": "withdraw",
        "dataset_id": IDS[0],
        "version": None,
        "manifest_sha256": None,
        "grade": "",
        "tier": "",
        "reason": "",
    }
    answer = client.get("/changes")
    assert "secret" not in answer.text
    assert "core" not in answer.text
    found = answer.json()["changes"]
    assert [{k: v for k, v in c.items() if k != "at"} for c in found] == [tombstone]
    full = client.get("/changes", headers=member).json()["changes"]
    assert [(c["op"], c["reason"]) for c in full] == [("publish", "test"), ("regrade", "scale, secretly")]
    release(IDS[0], grade="core", tier="member-2")
    assert client.get("/changes").json()["head"] == 2  # the public does not hear of version 2
    publication.regrade(IDS[0], "free now", grade="general", tier="public")
    found = client.get("/changes?after=2").json()["changes"]
    assert [(c["seq"], c["op"], c["version"], c["reason"]) for c in found] == [(4, "publish", 2, "")]
    manifest = client.get(f"/datasets/{IDS[0]}/versions/2/manifest")
    assert Manifest.from_bytes(manifest.content).sha256 == found[0]["manifest_sha256"]


def test_followers_of_every_clearance_end_with_what_they_may_see(release: Releaser, node: Node) -> None:
    """Random histories; followers that read at random moments, in pages of random size."""
    publication = node.publication
    node.create_tables()
    rng = random.Random(7)
    people = [Principal(f"{t} {g}", t, g) for t in TIERS for g in GRADES]
    mirrors: dict[str, dict[str, int]] = {p.name: {} for p in people}
    positions = dict.fromkeys(mirrors, 0)
    seen: dict[str, list[int]] = {name: [] for name in mirrors}

    def follow(who: Principal) -> None:
        while True:
            with node.engine.connect() as connection:
                found, more = page_of(connection, who, positions[who.name], rng.choice([1, 2, 50]))
                head = head_of(connection, who)
            assert head >= positions[who.name]  # the feed never ends earlier than it did
            mirror = mirrors[who.name]
            for event in found:
                name = event["dataset_id"]
                if event["op"] in ("publish", "revise"):
                    mirror[name] = max(event["version"], mirror.get(name, 0))
                elif event["op"] == "withdraw" and event["version"] is None:
                    mirror.pop(name, None)
                seen[who.name].append(event["seq"])
                positions[who.name] = event["seq"]
            if not more:
                assert positions[who.name] == head
                return

    for dataset_id in IDS[:3]:
        release(dataset_id, 5)
    for step in range(120):
        dataset_id = rng.choice(IDS[:3])
        now = publication.events.standing(dataset_id)
        move = rng.random()
        try:
            if move < 0.04 and len(now.versions) < 3:
                release(dataset_id, 5, grade=now.grade, tier=now.tier)
            elif move < 0.06:
                publication.withdraw(dataset_id, "x", version=None)
            else:
                publication.regrade(dataset_id, "x", grade=rng.choice(GRADES), tier=rng.choice(TIERS))
        except MatcomputeError:
            pass
        node.refresh()
        for who in rng.sample(people, 3) if step % 5 else ():
            follow(who)
    for who in people:
        follow(who)
        assert seen[who.name] == sorted(set(seen[who.name]))  # in order, nothing twice
        expected = {
            s.dataset_id: s.available[-1]
            for s in publication.events.all()
            if s.available and s.tier in who.tiers and s.grade in who.grades
        }
        assert mirrors[who.name] == expected, who.name
        # Who starts now comes to the same end.
        fresh: dict[str, int] = {}
        with node.engine.connect() as connection:
            for event in page_of(connection, who, 0, 1000)[0]:
                if event["op"] in ("publish", "revise"):
                    fresh[event["dataset_id"]] = event["version"]
                elif event["op"] == "withdraw" and event["version"] is None:
                    fresh.pop(event["dataset_id"], None)
        assert fresh == expected
    assert Access.visible(people[0]) is not None


def test_waiting_for_news(release: Releaser, node: Node, serve: Callable[..., Served]) -> None:
    release(IDS[0])
    served = serve(node)
    found: list[Any] = []

    def wait() -> None:
        found.append(httpx.get(f"{served.url}/changes", params={"after": 1, "wait": 30}, timeout=40).json())

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    release(IDS[1])
    thread.join(35)
    assert [c["seq"] for c in found[0]["changes"]] == [2]
    # Without news the answer comes when the time is over, empty.
    nothing = httpx.get(f"{served.url}/changes", params={"after": 2, "wait": 0.2}).json()
    assert (nothing["changes"], nothing["next"]) == ([], 2)


def test_replaced_events_are_noticed(release: Releaser, node: Node) -> None:
    release(IDS[0])
    client = client_of(node)
    node.publication.events.path.unlink()
    answer = client.get("/changes")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert "the events were replaced" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/changes?after=-1", "/changes?after=x", "/changes?limit=0", "/changes?limit=1001",
                                  "/changes?wait=31", "/datasets/x", "/datasets?after=x",
                                  f"/datasets/{IDS[0]}/versions/0/manifest", "/blobs/sha256/xyz"])  # fmt: skip
def test_bad_parameters(node: Node, path: str) -> None:
    answer = client_of(node).get(path)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 422


def test_a_node_that_gives_little_at_once(release: Releaser) -> None:
    """A follower asks for what the protocol allows, and gets pages as small as the node likes."""
    for id_ in IDS[:3]:
        release(id_, 3)
    node = Node(release.publication, NodeSettings(id="small", page_size=1, max_page=2, limits=FREE))
    client = client_of(node)
    first = client.get("/changes", params={"limit": 1000}).json()
    assert (len(first["changes"]), first["more"]) == (2, True)
    rest = client.get("/changes", params={"limit": 1000, "after": first["next"]}).json()
    assert (len(rest["changes"]), rest["more"]) == (1, False)
    assert client.get("/changes", params={"limit": 1001}).status_code == 422

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from matcompute.cli.pull import pull as command
from matcompute.errors import InputError
from matcompute.publish import keys
from matcompute.publish.build import build
from matcompute.publish.canonical import sha256
from matcompute.publish.errors import StoreError
from matcompute.publish.gates import Limits
from matcompute.publish.keys import Keyring
from matcompute.publish.manifest import Previous
from matcompute.publish.pull import Options, Unreachable, pull
from matcompute.publish.pull.puller import Destination
from matcompute.publish.signing import sign
from matcompute.publish.store import Store
from matcompute.publish.terms import terms_of
from matcompute.server.tokens import create

from .conftest import IDS, NodeUnderTest, copy_of

A, B, C = IDS[:3]


def catalogue(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "catalogue.json").read_text())
    return found


def test_first_second_third_pull(node: NodeUnderTest, tmp_path: Path) -> None:
    node.release(A)
    node.release(B)
    node.release(A)
    copy = tmp_path / "copy"
    seen: list[tuple[str, int, int]] = []
    report = pull(node.url, copy, progress=lambda *step: seen.append(step))
    assert report.first
    assert report.key_id == Keyring.read(node.publication.keys).current.key_id
    assert (report.changes, report.seq, report.refusals) == (3, 3, [])
    assert sorted(report.stored) == [(A, 1), (A, 2), (B, 1)]
    assert report.stored.index((A, 1)) < report.stored.index((A, 2))
    assert {kind for kind, _, _ in seen} == {"changes", "versions", "bytes"}
    last = next(step for step in reversed(seen) if step[0] == "bytes")
    assert last[1] == last[2] == report.received > 0
    store = Store(copy / "store")
    assert store.fixity() == []
    name = f"{report.key_id}/{A}"
    for version in (1, 2):
        for path in store.versions(name)[version].state:
            assert store.read(name, version, path) == node.publication.store.read(A, version, path)

    before = copy_of(copy)
    node.liar.requests.clear()
    report = pull(node.url, copy)
    assert (report.first, report.changes, report.stored, report.blobs) == (False, 0, [], 0)
    assert copy_of(copy) == before
    assert {path for _, path, _ in node.liar.requests} <= {"/node", "/changes", "/receipts"}

    keys.rotate(node.publication.keys)
    node.release(B)
    node.publication.withdraw(A, "wrong potential", version=1)
    report = pull(node.url, copy)
    assert (report.changes, report.stored) == (2, [(B, 2)])
    found = {d["dataset_id"]: d for d in catalogue(copy)["datasets"]}
    assert [v["withdrawn"] for v in found[A]["versions"]] == [True, False]
    node.publication.withdraw(A, "all of it")
    pull(node.url, copy)
    assert {d["dataset_id"]: d["withdrawn"] for d in catalogue(copy)["datasets"]} == {A: True, B: False}
    assert list((copy / ".staging").iterdir()) == []


def test_two_copies_are_the_same_byte_by_byte(node: NodeUnderTest, tmp_path: Path) -> None:
    node.release(A)
    pull(node.url, tmp_path / "one")
    node.release(A)
    node.release(B)
    pull(node.url, tmp_path / "one")
    pull(node.url, tmp_path / "two", Options(jobs=1))
    assert copy_of(tmp_path / "one") == copy_of(tmp_path / "two")


def test_a_version_withdrawn_before_the_first_pull(node: NodeUnderTest, tmp_path: Path) -> None:
    node.release(A)
    node.release(A)
    node.publication.withdraw(A, "wrong", version=1)
    report = pull(node.url, tmp_path / "copy")
    assert (report.stored, report.refusals) == ([(A, 2)], [])


def test_a_download_goes_on_where_it_stopped(node: NodeUnderTest, tmp_path: Path) -> None:
    node.release(A, 200)
    copy, digest = tmp_path / "copy", node.file(A, 1, "data/entries.h5")
    content = node.publication.store.read(A, 1, "data/entries.h5")
    staging = copy / ".staging"
    staging.mkdir(parents=True)
    (staging / f"{digest}.part").write_bytes(content[:1000])
    report = pull(node.url, copy)
    asked = [headers for _, path, headers in node.liar.requests if path.endswith(digest)]
    assert asked == ["bytes=1000-"]
    assert report.stored == [(A, 1)]

    # What lay there was damaged on our side: fetched once more, from the start.
    other = tmp_path / "other"
    (other / ".staging").mkdir(parents=True)
    (other / ".staging" / f"{digest}.part").write_bytes(b"\0" * 1000)
    node.liar.requests.clear()
    assert pull(node.url, other).stored == [(A, 1)]
    assert [h for _, path, h in node.liar.requests if path.endswith(digest)] == ["bytes=1000-", ""]
    assert copy_of(other) == copy_of(copy)


def test_content_that_is_here_is_not_fetched_again(node: NodeUnderTest, tmp_path: Path) -> None:
    node.release(A, seed=3)
    pull(node.url, tmp_path / "copy")
    digest = node.file(A, 1, "data/entries.h5")
    shard, out = node.release.scratch / "r1" / "entries.h5", tmp_path / "out"
    terms = terms_of([shard], "node-1", title="Better")
    build([shard], terms, out, previous=node.publication.latest(A))
    node.publication.release(out, limits=Limits(0.3, 0.9))
    assert node.file(A, 2, "data/entries.h5") == digest
    node.liar.requests.clear()
    assert pull(node.url, tmp_path / "copy").stored == [(A, 2)]
    assert node.liar.count(digest) == 0


def test_tokens_tiers_and_receipts(node: NodeUnderTest, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    node.release(A)
    node.release(B, tier="member-2")
    assert pull(node.url, copy).stored == [(A, 1)]
    reader = create(node.node.engine, "reader", scopes=("read",))
    assert "scope" in str(pull(node.url, copy, Options(token=reader)).receipts_trouble)
    token = create(node.node.engine, "platform", tier="member-2", scopes=("read", "receipts"))
    # The token's feed is another one than the public's: what was published before is in it too.
    report = pull(node.url, copy, Options(token=token, receiver="平台"))
    assert report.stored == [(B, 1)]
    assert (report.receipts, report.receipts_trouble) == (2, None)
    assert pull(node.url, copy, Options(token=token)).receipts == 0
    # Without the token again: nothing is lost, nothing is taken for a rolled-back feed.
    assert pull(node.url, copy).stored == []
    assert {d["dataset_id"]: d["tier"] for d in catalogue(copy)["datasets"]} == {A: "public", B: "member-2"}
    with pytest.raises(Exception, match="does not know the token"):
        pull(node.url, copy, Options(token="nobody"))


def test_regrade_out_of_sight_and_back(node: NodeUnderTest, tmp_path: Path) -> None:
    copy, late = tmp_path / "copy", tmp_path / "late"
    node.release(A)
    node.release(A)
    node.release(B)
    pull(node.url, copy)
    node.publication.withdraw(A, "wrong", version=1)
    node.publication.regrade(A, "members only", tier="member-1")
    pull(node.url, copy)
    pull(node.url, late)
    state = {d["dataset_id"]: d for d in catalogue(copy)["datasets"]}
    assert (state[A]["withdrawn"], state[B]["withdrawn"]) == (True, False)
    assert [d["dataset_id"] for d in catalogue(late)["datasets"]] == [B]
    node.release(A, tier="member-1")
    node.publication.regrade(A, "free again", tier="public")
    assert pull(node.url, copy).stored == [(A, 3)]
    assert pull(node.url, late).stored == [(A, 2), (A, 3)]
    for folder, versions in ((copy, [(1, True), (2, False), (3, False)]), (late, [(2, False), (3, False)])):
        state = {d["dataset_id"]: d for d in catalogue(folder)["datasets"]}
        assert [(v["version"], v["withdrawn"]) for v in state[A]["versions"]] == versions


def test_only_some(node: NodeUnderTest, tmp_path: Path) -> None:
    node.release(A)
    node.release(B)
    assert pull(node.url, tmp_path / "copy", Options(datasets=(B,))).stored == [(B, 1)]
    assert pull(node.url, tmp_path / "copy", Options(tiers=("member-1",))).stored == []
    assert pull(node.url, tmp_path / "copy").stored == [(A, 1)]


def test_one_puller_at_a_time(node: NodeUnderTest, tmp_path: Path) -> None:
    with Destination.locked(tmp_path / "copy"), pytest.raises(StoreError, match="another pull"):
        pull(node.url, tmp_path / "copy")


def test_addresses(tmp_path: Path, node: NodeUnderTest) -> None:
    with pytest.raises(InputError, match="not an address"):
        pull("ftp://node", tmp_path / "copy")
    with pytest.raises(InputError, match="plain http"):
        pull("http://192.0.2.1", tmp_path / "copy", Options(token="secret"))
    with pytest.raises(Unreachable, match="no good answer"):
        pull("http://127.0.0.1:9", tmp_path / "copy", Options(patience=0.2))
    with pytest.raises(Unreachable, match="is this the address|no node|404"):
        pull(f"{node.url}/datasets", tmp_path / "copy")


def test_the_command(node: NodeUnderTest, tmp_path: Path) -> None:
    node.release(A)
    arguments = [node.url, str(tmp_path / "copy"), "--limit-rate", "50M", "--jobs", "2"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert "first contact" in result.output
    assert "is believed" in result.output
    assert "1 versions stored" in result.output
    key = node.node.keyring.current.key_id
    result = CliRunner().invoke(command, [node.url, str(tmp_path / "other"), "--key", key])
    assert (result.exit_code, "believed" in result.output) == (0, False), result.output
    assert f"it shows the key that you gave, {key}" in " ".join(result.output.split())
    node.release(B)
    digest = node.file(B, 1, "data/entries.h5")
    node.liar.changes[f"/blobs/sha256/{digest}"] = lambda _p, _s, body: (
        200,
        body[:-1] + bytes([body[-1] ^ 1]),
    )
    result = CliRunner().invoke(command, [*arguments, "--json"])
    assert result.exit_code == 1
    refused = json.loads(result.output)["refusals"]
    assert [(r["dataset_id"], r["version"], r["code"]) for r in refused] == [(B, 1, "digest")]


def test_the_command_follows_until_it_is_told_to_stop(node: NodeUnderTest, tmp_path: Path) -> None:
    node.release(A)
    program = [sys.executable, "-c", "from matcompute.cli import main; main()"]
    process = subprocess.Popen(
        [*program, "pull", node.url, str(tmp_path / "copy"), "--follow", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["stored"] == [[A, 1]]
    node.release(B)
    assert json.loads(process.stdout.readline())["stored"] == [[B, 1]]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_a_strange_table_of_one_node_keeps_no_other_out(node: NodeUnderTest, tmp_path: Path) -> None:
    node.release(A)
    folder = tmp_path / "strange"
    shutil.copytree(node.release.scratch / "r1" / "out", folder)
    (folder / "manifest.json.sig").unlink()
    (folder / "summary.parquet").write_bytes(b"no table")
    old = node.publication.manifests(A)[0]
    files = [
        f.model_copy(update={"sha256": sha256(b"no table"), "size": 8}) if f.path == "summary.parquet" else f
        for f in old.files
    ]
    manifest = old.model_copy(
        update={
            "version": 2,
            "files": tuple(files),
            "previous": Previous(version=1, manifest_sha256=old.sha256),
        }
    )
    raw = manifest.to_bytes()
    (folder / "manifest.json").write_bytes(raw)
    (folder / "manifest.json.sig").write_bytes(sign(raw, keys.load(node.publication.keys)).to_bytes())
    node.publication.store.commit(
        A, {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}, version=2
    )
    node.publication.events.published(manifest)
    node.release(B, 15)
    report = pull(node.url, tmp_path / "copy")
    assert (len(report.stored), report.refusals) == (3, [])
    table = pq.read_table(tmp_path / "copy" / "structures.parquet")
    assert set(table["dataset_id"].to_pylist()) == {B}
    assert len(table) == 15

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matcompute.errors import InputError
from matcompute.publish import keys
from matcompute.publish.build import build
from matcompute.publish.errors import GateError, ManifestError, PublishError
from matcompute.publish.gates import Limits
from matcompute.publish.keys import Keyring
from matcompute.publish.release import Publication
from matcompute.publish.terms import Terms, terms_of

from .conftest import DATASET

Write = Callable[..., Any]
LIMITS = Limits(0.3, 0.9)


@pytest.fixture
def node(tmp_path: Path) -> Publication:
    publication = Publication(tmp_path / "node")
    keys.generate(publication.keys)
    return publication


@pytest.fixture
def shard(tmp_path: Path, write_dataset: Write) -> Path:
    path = tmp_path / "in" / "entries.h5"
    path.parent.mkdir()
    write_dataset(path, 20, dataset_id=DATASET, description="Random alloys", campaign="test")
    return path


def terms(shard: Path, **changes: str) -> Terms:
    return replace(terms_of([shard], "node-1"), **changes)  # type: ignore[arg-type]


def test_build_release_revise(node: Publication, shard: Path, tmp_path: Path, write_dataset: Write) -> None:
    steps = []
    one = build([shard], terms(shard), tmp_path / "one", progress=lambda *step: steps.append(step))
    assert (one.version, one.counts.entries, one.counts.shards) == (1, 20, 1)
    assert {"copying", "summarizing", "tabulating"} <= {text for text, _, _ in steps}
    assert one.file("data/entries.h5").size == shard.stat().st_size
    assert {
        "optimade.jsonl.gz",
        "summary.parquet",
        "croissant.json",
        "cstm.json",
        "datacite.json",
        "ro-crate-metadata.json",
    } <= {f.path for f in one.files}
    event = node.release(tmp_path / "one", limits=LIMITS)
    assert (event.seq, event.op, event.manifest_sha256) == (1, "publish", one.sha256)
    assert node.release(tmp_path / "one", limits=LIMITS) == event  # doing it again changes nothing

    two = build([shard], terms(shard, title="Better title"), tmp_path / "two", previous=node.latest(DATASET))
    assert two.previous is not None
    assert two.previous.manifest_sha256 == one.sha256
    keys.rotate(node.keys)
    assert node.release(tmp_path / "two", limits=LIMITS, reason="title").op == "revise"
    assert node.verify() == []
    shards = list(Path(node.store.root).rglob("entries.h5"))
    assert len(shards) == 1  # the second version holds the same content
    assert [e.seq for e in node.events.after(0)] == [1, 2]
    assert [e.op for e in node.events.after(1)] == ["revise"]


def test_an_interrupted_release_is_completed(node: Publication, shard: Path, tmp_path: Path) -> None:
    build([shard], terms(shard), tmp_path / "one")
    node.release(tmp_path / "one", limits=LIMITS)
    # As if the process had died between the store and the event.
    node.events.path.unlink()
    assert "not in the events" in node.verify()[0].message
    assert node.release(tmp_path / "one", limits=LIMITS).seq == 1
    assert node.verify() == []


def test_tampering_is_seen(node: Publication, shard: Path, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    build([shard], terms(shard), folder)
    data = folder / "data" / "entries.h5"
    good = data.read_bytes()
    data.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ManifestError, match="changed after the build"):
        node.release(folder, limits=LIMITS)
    data.unlink()
    with pytest.raises(ManifestError, match="is missing"):
        node.release(folder, limits=LIMITS)
    data.write_bytes(good)
    (folder / "data" / "more.txt").write_text("")
    with pytest.raises(ManifestError, match="not in the manifest"):
        node.release(folder, limits=LIMITS)
    (folder / "data" / "more.txt").unlink()
    node.release(folder, limits=LIMITS)
    stored = Path(node.store.path(DATASET, 1, "data/entries.h5"))
    stored.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert any("its SHA-256 is" in p.message for p in node.verify())
    stored.write_bytes(good)
    assert node.verify() == []
    # The keyring of another node.
    other = keys.generate(tmp_path / "other")
    (node.keys / "keyring.json").write_bytes(Keyring(keys=(other.public,)).to_bytes())
    assert any("not in the keyring" in p.message for p in node.verify())


def test_a_version_must_follow_the_newest(node: Publication, shard: Path, tmp_path: Path) -> None:
    one = build([shard], terms(shard), tmp_path / "one")
    again = build([shard], terms(shard, title="Another first"), tmp_path / "again")
    node.release(tmp_path / "one", limits=LIMITS)
    with pytest.raises(ManifestError, match="missing or doubled"):
        node.release(tmp_path / "again", limits=LIMITS)
    build([shard], terms(shard), tmp_path / "two", previous=again)
    with pytest.raises(ManifestError, match="of digest"):
        node.release(tmp_path / "two", limits=LIMITS)
    assert node.latest(DATASET) == one


def test_gates_block(node: Publication, shard: Path, tmp_path: Path) -> None:
    build([shard], terms(shard), tmp_path / "one")
    with pytest.raises(GateError, match="converged"):
        node.release(tmp_path / "one", limits=Limits(0.99, 1.0))
    build([shard], terms(shard, grade="core"), tmp_path / "core")
    with pytest.raises(GateError, match="cannot be public"):
        node.release(tmp_path / "core", limits=LIMITS)
    assert node.events.after(0) == []
    assert list(node.store.objects()) == []


def test_withdraw_and_regrade(node: Publication, shard: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="no dataset"):
        node.withdraw(DATASET, "why")
    build([shard], terms(shard), tmp_path / "one")
    node.release(tmp_path / "one", limits=LIMITS)
    with pytest.raises(InputError, match="reason"):
        node.withdraw(DATASET, " ")
    with pytest.raises(PublishError, match="no released version 2"):
        node.withdraw(DATASET, "why", version=2)
    with pytest.raises(InputError, match="did you mean 'core'"):
        node.regrade(DATASET, "scale", grade="cores")
    with pytest.raises(InputError, match="cannot be public"):
        node.regrade(DATASET, "scale", grade="core")
    node.regrade(DATASET, "scale", grade="core", tier="member-3")
    with pytest.raises(PublishError, match="already"):
        node.regrade(DATASET, "scale", grade="core")
    build([shard], terms(shard), tmp_path / "two", previous=node.latest(DATASET))
    with pytest.raises(GateError, match="regraded to 'core'"):
        node.release(tmp_path / "two", limits=LIMITS)
    event = node.withdraw(DATASET, "wrong potential")
    assert (event.seq, event.version, event.grade) == (3, None, "core")
    standing = node.events.standing(DATASET)
    assert (standing.available, standing.tier) == ((), "member-3")
    with pytest.raises(PublishError, match="withdrawn already"):
        node.withdraw(DATASET, "again", version=1)
    assert node.store.read(DATASET, 1, "manifest.json")  # the content stays
    assert node.verify() == []
    with (
        sqlite3.connect(node.events.path) as db,
        pytest.raises(sqlite3.IntegrityError, match="never changed"),
    ):
        db.execute("UPDATE events SET grade = 'general'")
    with (
        sqlite3.connect(node.events.path) as db,
        pytest.raises(sqlite3.IntegrityError, match="never deleted"),
    ):
        db.execute("DELETE FROM events")


def test_a_revision_does_not_open_what_stands_above_it(
    node: Publication, shard: Path, tmp_path: Path
) -> None:
    """Terms hold for all versions: a public version 2 would make a regraded version 1 public again."""
    build([shard], terms(shard), tmp_path / "one")
    node.release(tmp_path / "one", limits=LIMITS)
    node.regrade(DATASET, "not yet", tier="member-2")
    build([shard], terms(shard), tmp_path / "two", previous=node.latest(DATASET))
    with pytest.raises(GateError, match="stands at tier 'member-2', this version says 'public'"):
        node.release(tmp_path / "two", limits=LIMITS)
    assert node.events.standing(DATASET).tier == "member-2"
    build([shard], terms(shard, tier="member-2"), tmp_path / "three", previous=node.latest(DATASET))
    assert node.release(tmp_path / "three", limits=LIMITS).op == "revise"


def test_shards_of_one_dataset(node: Publication, shard: Path, tmp_path: Path, write_dataset: Write) -> None:
    second = shard.with_name("second.h5")
    write_dataset(second, 10, seed=5, dataset_id=DATASET, description="The rest", grade="important")
    with pytest.raises(InputError, match="disagree about description"):
        terms_of([shard, second], "node-1")
    both = terms_of([shard, second], "node-1", description="All", tier="member-1")
    assert both.grade == "important"  # the highest
    made = build([shard, second], both, tmp_path / "one")
    assert (made.counts.shards, made.counts.entries) == (2, 30)
    assert node.release(tmp_path / "one", limits=LIMITS).grade == "important"


def test_archive_of_the_processes(node: Publication, shard: Path, tmp_path: Path) -> None:
    import zipfile

    archive = tmp_path / "run.aiida"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("metadata.json", "{}")
    with pytest.raises(PublishError, match="no metadata.json or no db"):
        build([shard], terms(shard), tmp_path / "one", archive=archive)
    with pytest.raises(PublishError, match="not an AiiDA archive"):
        build([shard], terms(shard), tmp_path / "one", archive=shard)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("db.sqlite3", "")
    made = build([shard], terms(shard), tmp_path / "one", archive=archive)
    assert made.file("provenance/run.aiida").role == "provenance"
    node.release(tmp_path / "one", limits=LIMITS)
    assert node.store.read(DATASET, 1, "provenance/run.aiida") == archive.read_bytes()


def test_build_leaves_nothing_behind(shard: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(PublishError, match="exists"):
        build([shard], terms(shard), tmp_path / "there")
    with pytest.raises(PublishError, match="same name"):
        build([shard, shard], terms(shard), tmp_path / "twice")
    with pytest.raises(PublishError, match="no licence"):
        build([shard], terms(shard, licence=""), tmp_path / "free")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build([shard], terms(shard), tmp_path / "broken", progress=stop)
    assert {p.name for p in tmp_path.iterdir()} == {"in", "there"}

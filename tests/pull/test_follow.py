"""Following a node while it publishes, revises, withdraws and regrades: nothing lost, nothing doubled, order kept."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from matcompute.publish.pull import Options, Report, follow, pull
from matcompute.publish.pull.wire import Wire

from .conftest import IDS, Background, NodeUnderTest, copy_of

A, B, C, D = IDS[:4]


class Following:
    """A puller that follows in a thread; ``until(seq)`` waits for it."""

    def __init__(self, url: str, folder: Path, options: Options | None = None) -> None:
        self.reports: list[Report] = []
        self.wires: list[Wire] = []
        self._news = threading.Condition()
        self._options = options
        self.thread = Background(
            lambda: follow(url, folder, self._options, on_wire=self.wires.append, on_round=self._note)
        )

    def _note(self, report: Report) -> None:
        with self._news:
            self.reports.append(report)
            self._news.notify_all()

    @property
    def stored(self) -> list[tuple[str, int]]:
        return [item for report in self.reports for item in report.stored]

    def until(self, seq: int) -> None:
        with self._news:
            reached = self._news.wait_for(
                lambda: (bool(self.reports) and self.reports[-1].seq >= seq) or self.thread.error, timeout=120
            )
        if self.thread.error is not None:
            raise self.thread.error
        assert reached

    def end(self) -> None:
        self.wires[0].stop.set()
        self.thread.result()


def author(node: NodeUnderTest, seed: int, count: int) -> None:
    """Do random things to four datasets."""
    rng = random.Random(seed)
    events = node.publication.events
    for _ in range(count):
        known = {s.dataset_id: s for s in events.all()}
        dataset_id = rng.choice((A, B, C, D))
        standing = known.get(dataset_id)
        if standing is None or rng.random() < 0.4:
            node.release(dataset_id, rng.randrange(10, 40), tier=standing.tier if standing else "public")
        elif rng.random() < 0.5 and standing.available:
            node.publication.withdraw(dataset_id, "wrong", version=rng.choice(standing.available))
        else:
            node.publication.regrade(
                dataset_id, "else", tier="public" if standing.tier == "member-1" else "member-1"
            )


@pytest.mark.parametrize("seed", [1, 2])
def test_changes_during_a_harvest(node: NodeUnderTest, tmp_path: Path, seed: int) -> None:
    node.release(A, 100)
    node.release(B, 100)
    copy, late = tmp_path / "copy", tmp_path / "late"
    # Slow enough that the author is at work while it downloads.
    following = Following(node.url, copy, Options(rate=1.5e6, jobs=2))
    author(node, seed, 16)
    # A dataset that comes last, so that the public feed ends there.
    last = node.release(IDS[4], 10)
    following.until(last.seq)
    following.end()
    stored = following.stored
    assert len(stored) == len(set(stored)), "a version was taken twice"
    assert not following.reports[-1].refusals
    for dataset_id in (A, B, C, D):
        mine = [version for name, version in stored if name == dataset_id]
        assert mine == sorted(mine), "the order of versions was not kept"

    # What is to be had in the end is there, whoever came when.
    assert pull(node.url, late).refusals == []
    now = json.loads((copy / "catalogue.json").read_text())["datasets"]
    fresh = json.loads((late / "catalogue.json").read_text())["datasets"]

    def available(catalogue: list[dict[str, Any]]) -> set[tuple[str, int, str]]:
        return {
            (d["dataset_id"], v["version"], v["manifest_sha256"])
            for d in catalogue
            for v in d["versions"]
            if not v["withdrawn"]
        }

    expected = {
        (s.dataset_id, version, node.publication.manifests(s.dataset_id)[version - 1].sha256)
        for s in node.publication.events.all()
        if s.tier == "public"
        for version in s.available
    }
    assert available(now) == expected
    assert available(fresh) == expected
    # Pulling again changes nothing.
    before = copy_of(copy)
    assert pull(node.url, copy).stored == []
    assert copy_of(copy) == before


def test_access_that_ends_in_the_middle_of_a_download(node: NodeUnderTest, tmp_path: Path) -> None:
    node.release(A, 300)
    node.release(B, 10)
    begun, over = threading.Event(), threading.Event()

    def note(kind: str, done: int, _total: int) -> None:
        # In the middle of the first dataset (its table comes last) the download waits for what happens.
        if kind == "bytes" and done > 200_000 and not begun.is_set():
            begun.set()
            assert over.wait(120)

    reports: list[Report] = []
    options = Options(jobs=1)
    thread = Background(lambda: reports.append(pull(node.url, tmp_path / "copy", options, progress=note)))
    assert begun.wait(60)
    node.publication.regrade(A, "important", grade="important", tier="member-1")
    over.set()
    thread.result()
    (report,) = reports
    assert report.refusals == []
    assert report.stored == [(B, 1)]
    assert list((tmp_path / "copy" / ".staging").iterdir()) == []


def test_following_waits_for_a_node_that_is_away(node: NodeUnderTest, tmp_path: Path) -> None:
    node.release(A)
    away = threading.Event()
    asked = threading.Event()

    def change(_path: str, status: int, body: bytes) -> tuple[int, bytes]:
        if away.is_set():
            asked.set()
            return 503, b"{}"
        return status, body

    node.liar.changes["/node"] = change
    away.set()
    following = Following(node.url, tmp_path / "copy", Options(patience=0.2))
    assert asked.wait(60)
    away.clear()
    following.until(1)
    assert following.stored == [(A, 1)]
    following.end()

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from matcompute.publish.errors import PublishError
from matcompute.publish.events import Event, Events
from matcompute.publish.manifest import Manifest

from .conftest import DATASET

Make = Callable[..., Manifest]


def test_numbers_follow_the_order_of_commits(make_manifest: Make, tmp_path: Path) -> None:
    """A reader that follows the feed while four writers write sees every event once and in order."""
    path = tmp_path / "events.sqlite"
    manifests = [make_manifest(dataset_id=str(UUID(int=k + 1))) for k in range(60)]
    Events(path).after()  # makes the file
    seen: list[Event] = []
    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(Events(path).published, manifest) for manifest in manifests]
        while len(seen) < len(manifests):
            done = all(write.done() for write in writes)
            new = Events(path).after(seen[-1].seq if seen else 0, limit=7)
            seen += new
            if done and not new:
                break
    assert [write.exception() for write in writes] == [None] * 60
    assert [e.seq for e in seen] == list(range(1, 61))
    assert {e.dataset_id for e in seen} == {m.dataset_id for m in manifests}


def test_standing(make_manifest: Make, tmp_path: Path) -> None:
    events = Events(tmp_path / "events.sqlite")
    one = make_manifest()
    assert events.published(one) == events.published(one)
    events.withdraw(DATASET, None, "wrong")
    assert events.standing(DATASET).available == ()
    two = make_manifest(2, one, grade="important", tier="member-1")
    assert events.published(two, "mended").op == "revise"
    standing = events.standing(DATASET)
    assert (standing.available, standing.grade, standing.tier) == ((2,), "important", "member-1")
    assert [e.op for e in events.after()] == ["publish", "withdraw", "revise"]
    with pytest.raises(PublishError, match="version 1 is withdrawn already"):
        events.withdraw(DATASET, 1, "again")
    # What was refused has left no event.
    assert len(events.after()) == 3

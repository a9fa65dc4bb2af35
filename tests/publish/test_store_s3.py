"""Releases in a store on S3: killed at its requests, and what users see when S3 is not there."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matcompute.publish import keys
from matcompute.publish.errors import StoreError
from matcompute.publish.ocfl import object_path
from matcompute.publish.release import Publication
from matcompute.publish.store import Store

from .conftest import DATASET
from .s3 import Server
from .test_kill import KILLED, commands, complete
from .test_store import ocfl_valid


@pytest.mark.kill
@pytest.mark.slow
def test_a_killed_release_is_completed(s3: Server, tmp_path: Path, write_dataset: Callable[..., Any]) -> None:
    """Two versions, each released by commands that die at requests to S3, before they are sent or after."""
    url, rng, kills = f"{s3.bucket()}/node/store", random.Random(1), 0
    node = Publication(tmp_path / "node", url)
    keys.generate(node.keys)
    write_dataset(tmp_path / "entries.h5", 20, dataset_id=DATASET, campaign="test")
    with commands(tmp_path, "s3") as command:
        released: list[Any] = []
        for version in (1, 2):
            build = (
                "build",
                "entries.h5",
                "--node",
                "n",
                "--title",
                f"Title {version}",
                "--out",
                f"v{version}",
            )
            assert command("--store", url, *build)["status"] == 0
            most = 80
            for attempt in range(5):
                words = ("--store", url, "release", f"v{version}", "--min-converged", "0.3")
                done = command(*words, at=rng.randint(5, most) if attempt < 4 else 0)
                assert done["status"] in (0, KILLED), done
                now = complete(node, released)
                if done["status"] == 0:
                    break
                kills += 1
            released = now
            assert len(released) == version
            assert node.verify() == []
    assert kills > 3
    assert [e.version for e in node.events.after()] == [1, 2]
    # The same objects as files: others find them valid, and nothing that a killed command began is left.
    node.store.files.fs.get(node.store.root, str(tmp_path / "down"), recursive=True)
    ok, said = ocfl_valid(tmp_path / "down")
    assert ok, said
    listed = {
        f"{node.store.root}/{object_path(name)}/{path}"
        for name in node.store.objects()
        for path in node.store.inventory(name).content.values()
    }
    assert {name for name in node.store.files.all() if "/content/" in name} == listed


def test_two_writers_of_one_publication(s3: Server, tmp_path: Path) -> None:
    node = Publication(tmp_path / "node", f"{s3.bucket()}/store")
    (tmp_path / "x").write_text("x")
    with node.store._lock(), pytest.raises(StoreError, match="another process is writing"):
        node.store.commit("urn:a", {"x": tmp_path / "x"}, version=1)
    assert node.store.commit("urn:a", {"x": tmp_path / "x"}, version=1) == 1


def test_what_is_not_there_is_named(s3: Server, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(StoreError, match="s3://no-such-bucket/store.*bucket does not exist"):
        Store("s3://no-such-bucket/store").commit("urn:a", {"x": tmp_path / "x"}, version=1)
    # No bucket was made of a misspelt name.
    assert not Store("s3://no-such-bucket/store").is_there()
    with pytest.raises(StoreError, match="Protocol not known"):
        Store("s4://bucket/store")
    quick = {"retries": {"max_attempts": 0}}
    nobody = Store("s3://bucket/store", endpoint_url="http://127.0.0.1:9", config_kwargs=quick)
    nobody.files.fs.retries = 1
    with pytest.raises(StoreError, match="127.0.0.1:9") as caught:
        nobody.has("urn:a")
    assert caught.value.hint is not None
    assert "AWS_ENDPOINT_URL" in caught.value.hint

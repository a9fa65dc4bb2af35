"""Kill -9 at seeded points of build and release: nothing is lost, nothing is doubled, order is kept."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from matcompute.publish import keys
from matcompute.publish.manifest import Manifest
from matcompute.publish.release import Publication, read_folder

from .conftest import DATASET
from .validators import need_program, run

Command = Callable[..., dict[str, int]]
KILLED = -9


@contextlib.contextmanager
def commands(folder: Path, *kind: str) -> Iterator[Command]:
    """Run ``matcompute publish`` commands on the publication ``node``, each killed at an operation (0: never)."""
    script = Path(__file__).with_name("killable.py")
    with subprocess.Popen(
        [sys.executable, str(script), *kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def call(*words: str | Path, at: int = 0) -> dict[str, int]:
            order = {"arguments": ["-d", "node", *map(str, words)], "at": at}
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            answer: dict[str, int] = json.loads(process.stdout.readline())
            return answer

        yield call
        process.stdin.close()


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    with commands(tmp_path) as found:
        yield found


def complete(node: Publication, before: list[Manifest]) -> list[Manifest]:
    """Check that what is in the store is whole and begins with what was there; return it."""
    there = node.manifests(DATASET)
    assert there[: len(before)] == before
    assert len(there) - len(before) in (0, 1)
    # The copy of the inventory in the root may still be the old one; readers use that of the version.
    assert {d.path for d in node.store.fixity()} <= {"inventory.json"}
    for manifest in there:
        for file in manifest.files:
            node.store.read(DATASET, manifest.version, file.path)
    seen = [e.version for e in node.events.after()]
    assert seen == list(range(1, len(seen) + 1))
    assert len(there) - len(seen) in (0, 1)
    return there


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("MATCOMPUTE_SEEDS", "2"))))
def test_killed_builds_and_releases(
    seed: int, command: Command, tmp_path: Path, write_dataset: Callable[..., Any]
) -> None:
    rng, node, kills = random.Random(seed), Publication(tmp_path / "node"), 0
    keys.generate(node.keys)
    write_dataset(tmp_path / "entries.h5", 20, dataset_id=DATASET, campaign="test")
    most = {"build": 30, "release": 30}
    released: list[Manifest] = []
    for version in range(1, 4):
        folder = tmp_path / f"v{version}"
        build = ("build", "entries.h5", "--node", "n", "--title", f"Title {version}", "--out", folder.name)
        release = ("release", folder.name, "--min-converged", "0.3")
        for words in (build, release):
            name = str(words[0])
            for attempt in range(6):
                # At the last attempt nobody kills; a point beyond the last operation is none either.
                done = command(*words, at=rng.randint(1, most[name]) if attempt < 5 else 0)
                assert done["status"] in (0, KILLED), done
                if name == "build":
                    # The folder is whole or not there.
                    assert folder.exists() == (done["status"] == 0) or read_folder(folder).version == version
                released_now = complete(node, released)
                if done["status"] == 0:
                    most[name] = done["operations"]
                    break
                kills += 1
                if name == "build" and folder.exists():
                    break  # it was killed after the rename: a second build would refuse
        released = released_now
        assert len(released) == version
        assert node.verify() == []
        assert command(*release)["status"] == 0  # once more: nothing happens
    assert [e.version for e in node.events.after()] == [1, 2, 3]
    assert node.verify() == []
    assert kills > 5
    # Nothing is left beside what was asked for, but the lock.
    assert {p.name for p in tmp_path.iterdir()} == {"entries.h5", "node", "v1", "v2", "v3"}
    assert {p.name for p in (tmp_path / "node").iterdir()} <= {
        *("events.sqlite", "events.sqlite-wal", "events.sqlite-shm"),
        *("keys", "store", ".store.lock"),
    }
    need_program("ocfl-root.py")
    done = run("ocfl-root.py", "validate", "--root", tmp_path / "node" / "store", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " is VALID" in done.stdout + done.stderr

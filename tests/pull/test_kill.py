"""Kill -9 of puller and server at seeded random steps: the copy ends the same, and nothing whole is fetched twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from matcompute.publish.store import Store
from matcompute.server.node import Node
from matcompute.server.tokens import create

from .conftest import IDS, copy_of, load, server_tests

SEEDS = int(os.environ.get("MATCOMPUTE_SEEDS", "6"))
A, B, C = IDS[:3]
pytestmark = [pytest.mark.kill, pytest.mark.slow]


class Actor:
    """A process that forks a child for each order."""

    def __init__(self, which: str, folder: Path) -> None:
        self.errors = folder / f"{which}.err"
        self._file = self.errors.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("actors.py")), which],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._file,
            text=True,
        )
        self.child = 0

    def start(self, **order: Any) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        self.child = int(self.process.stdout.readline())

    def wait(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def kill(self) -> None:
        os.kill(self.child, signal.SIGKILL)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)
        self._file.close()


class Ground:
    """A publication and the two actors; the server is started again whenever it dies, until it is told to stay dead."""

    def __init__(self, folder: Path, sizes: Sequence[tuple[str, int]], store: str | None = None) -> None:
        self.folder, self.store = folder, store
        release = server_tests.Releaser(folder / "publication", folder / "scratch", store)
        for dataset_id, n in sizes:
            release(dataset_id, n)
        node = Node(release.publication)
        node.create_tables()
        self.token = create(node.engine, "platform", scopes=("read", "receipts"))
        self.log = folder / "requests.log"
        self.log.touch()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.puller, self.server = Actor("puller", folder), Actor("server", folder)
        self.deaths = 0
        self._over, self._alive = False, threading.Event()
        self._kills: list[int] = []
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _keep(self) -> None:
        failures = 0
        while not self._over:
            steps = self._kills.pop() if self._kills else 0
            self.server.start(
                steps=steps,
                publication=str(self.folder / "publication"),
                store=self.store,
                log=str(self.log),
                port=self.port,
            )
            self._alive.set()
            code = self.server.wait()
            self._alive.clear()
            self.deaths += 1
            if code != -signal.SIGKILL:
                # Somebody may have the port for a moment; else it is broken, and the puller will find nobody.
                failures += 1
                if failures > 5:
                    return
                time.sleep(0.5)

    def kill_server_at(self, steps: list[int]) -> None:
        """Let the server live through so many steps, in its next lives."""
        self._kills = steps
        self._kill_server()

    def _kill_server(self) -> None:
        assert self._alive.wait(60)
        with contextlib.suppress(ProcessLookupError):  # it died by itself just now
            self.server.kill()

    def pull(self, dest: Path, steps: int = 0, *, jobs: int = 4) -> int:
        self.puller.start(
            steps=steps,
            url=f"http://127.0.0.1:{self.port}",
            dest=str(dest),
            token=self.token,
            jobs=jobs,
            rate=None,
            report=str(dest.with_suffix(".json")),
        )
        return self.puller.wait()

    def close(self) -> None:
        self._over = True
        self._kill_server()
        self._keeper.join(60)
        self.puller.close()
        self.server.close()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    sizes = ((A, 60), (B, 200), (A, 80), (C, 20), (A, 40))
    found = Ground(tmp_path_factory.mktemp("ground"), sizes)
    yield found
    found.close()


def undisturbed(ground: Ground) -> dict[str, Any]:
    """Pull once; return the copy and how many steps it took."""
    dest = ground.folder / "reference"
    assert ground.pull(dest) == 0, ground.puller.errors.read_text() + ground.server.errors.read_text()
    report = json.loads(dest.with_suffix(".json").read_text())
    return {
        "copy": copy_of(dest),
        "steps": report["steps"],
        "stored": sorted(map(tuple, report["stored"])),
        "requests": len(ground.log.read_text().splitlines()),
    }


@pytest.fixture(scope="module")
def reference(ground: Ground) -> dict[str, Any]:
    """A copy that nobody disturbed, and how many steps it took."""
    found = undisturbed(ground)
    assert found["stored"] == [(A, 1), (A, 2), (A, 3), (B, 1), (C, 1)]
    return found


def finished(dest: Path) -> set[str]:
    """Digests of all blobs that are whole in the copy."""
    store = Store(dest / "store")
    there = {digest for name in store.objects() for digest in store.inventory(name).content}
    staging = dest / ".staging"
    return there | ({p.name for p in staging.iterdir() if p.suffix != ".part"} if staging.is_dir() else set())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_at_random_steps(seed: int, ground: Ground, reference: dict[str, Any]) -> None:
    pull_with_kills(seed, ground, reference)


def pull_with_kills(seed: int, ground: Ground, reference: dict[str, Any]) -> None:
    """Pull into a new copy while puller and server are killed; it must become that of ``reference``."""
    rng = random.Random(seed)
    dest = ground.folder / f"copy-{seed}"
    deaths = ground.deaths
    # About three steps of the server for a request: its begin, the answer's head and body.
    ground.kill_server_at([rng.randrange(1, 3 * reference["requests"]) for _ in range(2)])
    log, kills = ground.log.stat().st_size, 0
    whole: set[str] = set()
    while True:
        # The first kills come early or late; in the end it is left alone.
        # (Not in the last fifth: what a run counts differs a little with the cutting of streams.)
        steps = rng.randrange(1, reference["steps"] * 4 // 5) if kills < 4 else 0
        code = ground.pull(dest, steps, jobs=rng.choice((1, 2, 4)))
        with ground.log.open() as file:
            file.seek(log)
            asked = [line.split()[1].rsplit("/", 1)[1] for line in file if "/blobs/sha256/" in line]
            log = file.tell()
        assert not whole & set(asked), "a whole blob was fetched again"
        whole = finished(dest)
        if code == 0:
            break
        assert code == -signal.SIGKILL, ground.puller.errors.read_text()
        kills += 1
    if code == 0 and steps:
        # It was through before its step came: nothing is left to do.
        assert ground.pull(dest) == 0
    assert copy_of(dest) == reference["copy"]
    assert Store(dest / "store").fixity() == []
    assert list((dest / ".staging").iterdir()) == []
    assert ground.deaths > deaths
    assert kills > 0


def test_others_call_the_copy_valid(ground: Ground, reference: dict[str, Any]) -> None:
    """ocfl-py, of the OCFL editors, validates the whole root."""
    validators = load("validators", Path(__file__).parents[1] / "publish" / "validators.py")
    validators.need_program("ocfl-root.py")
    root = ground.folder / "reference" / "store"
    done = validators.run("ocfl-root.py", "validate", "--root", root, cwd=ground.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " is VALID" in done.stdout + done.stderr

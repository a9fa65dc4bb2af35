"""Small publications, and a server over them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn

from matcompute.publish import keys
from matcompute.publish.build import build
from matcompute.publish.gates import Limits as GateLimits
from matcompute.publish.release import Publication
from matcompute.publish.terms import terms_of
from matcompute.server.app import create_app
from matcompute.server.guard.alerts import AlertRules
from matcompute.server.node import Node
from matcompute.server.settings import Limits as RateLimits
from matcompute.server.settings import NodeSettings

#: Ids of datasets: ``IDS[0]`` …
IDS = [f"{k}{k}{k}{k}{k}{k}{k}{k}-0000-4000-8000-00000000000{k}" for k in range(1, 10)]
LIMITS = GateLimits(0.3, 0.9)
#: Tests ask more often than anybody may.
FREE = RateLimits(anonymous_per_minute=10**7, member_per_minute=10**7)
Release = Callable[..., Any]


@pytest.fixture(scope="session", autouse=True)
def _tests_run_at_noon() -> Iterator[None]:
    """What is read now is not read at odd hours, whenever the tests run; records with other times are judged."""
    judge = AlertRules.odd

    def odd(rules: AlertRules, at: datetime) -> bool:
        return abs(datetime.now(UTC) - at) > timedelta(hours=2) and judge(rules, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AlertRules, "odd", odd)
        yield


def load(name: str, path: Path) -> ModuleType:
    """Load a module that is not of this package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _write_dataset() -> Callable[..., Any]:
    path = Path(__file__).parents[1] / "dataset" / "conftest.py"
    return load("dataset_test_helpers", path).write  # type: ignore[no-any-return]


#: What was built → its folder, which nobody changes.
_BUILT: dict[tuple[Any, ...], Path] = {}


@functools.cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="matcompute-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Releaser:
    """Makes releases of small datasets in a publication."""

    def __init__(self, folder: Path, scratch: Path, store: str | None = None) -> None:
        self.publication = Publication(folder, store)
        keys.generate(self.publication.keys)
        self.scratch = scratch
        self._count = 0
        self._write = _write_dataset()

    def __call__(
        self,
        dataset_id: str,
        n: int = 20,
        *,
        seed: int | None = None,
        archive: Path | None = None,
        **terms: str,
    ) -> Any:
        """Release the next version of a dataset (new structures unless a seed is given); return the event."""
        self._count += 1
        folder = self.scratch / f"r{self._count}"
        facts = {
            "title": f"Dataset {dataset_id[0]}",
            "description": "Random alloys",
            "campaign": "test",
        } | terms
        chosen = self._count * 10 if seed is None else seed
        previous = self.publication.latest(dataset_id)
        if previous is None and archive is None:
            # The folder of a first version knows nothing of its publication: many tests begin with the same ones.
            wanted = (dataset_id, n, chosen, repr(sorted(facts.items())))
            if wanted not in _BUILT:
                _BUILT[wanted] = _scratch() / str(len(_BUILT))
                self._build(_BUILT[wanted], dataset_id, n, chosen, facts, None, None)
            shutil.copytree(_BUILT[wanted], folder)
        else:
            self._build(folder, dataset_id, n, chosen, facts, previous, archive)
        return self.publication.release(folder / "out", limits=LIMITS, reason="test")

    def _build(
        self,
        folder: Path,
        dataset_id: str,
        n: int,
        seed: int,
        facts: dict[str, str],
        previous: Any,
        archive: Path | None,
    ) -> None:
        folder.mkdir(parents=True)
        shard = folder / "entries.h5"
        self._write(shard, n, seed, dataset_id=dataset_id, **facts)
        build([shard], terms_of([shard], "node-1"), folder / "out", previous=previous, archive=archive)


@pytest.fixture
def release(tmp_path: Path) -> Releaser:
    """``release(dataset_id, n, grade=…, tier=…)`` in ``tmp_path/publication``."""
    return Releaser(tmp_path / "publication", tmp_path / "scratch")


@pytest.fixture
def node(release: Releaser) -> Node:
    """The node over that publication, empty as long as nothing is released."""
    return Node(release.publication, NodeSettings(id="test-node", limits=FREE))


@pytest.fixture
def enter() -> Iterator[Callable[[Any], Any]]:
    """``enter(manager)`` → what it yields, until the end of the test."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


class Served:
    """A server that runs in a thread of this process."""

    def __init__(self, node: Node, app: Any = None, **options: Any) -> None:
        from matcompute.server.serve import configuration

        self.node = node
        self.app = app or create_app(node, follow_seconds=0.1)
        self._server = uvicorn.Server(
            configuration(self.app, node, host="127.0.0.1", port=0, timeout_graceful_shutdown=1, **options)
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """``serve(node)`` → running server with ``.url`` and ``.port``; stopped after the test."""
    with contextlib.ExitStack() as stack:

        def start(node: Node, app: Any = None, **options: Any) -> Served:
            served = Served(node, app, **options)
            served.start()
            stack.callback(served.stop)
            return served

        yield start

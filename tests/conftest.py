"""Shared by all tests: one workspace with a running daemon per session, and batches to run in it.

Importing AiiDA makes a configuration folder where ``AIIDA_PATH`` points, so it is set here, before any test module is
imported. AiiDA has one profile per process: tests that need another workspace use the command line in a subprocess.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

    from matcompute.centres import RegisteredCentre
    from matcompute.workspace import Workspace
    from matcompute_workflows import ShardData

_SCRATCH = tempfile.mkdtemp(prefix="matcompute-tests-")
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
os.environ["AIIDA_PATH"] = str(Path(_SCRATCH) / "aiida")
os.environ["MPLCONFIGDIR"] = str(Path(_SCRATCH) / "matplotlib")
os.environ["MPLBACKEND"] = "agg"
os.environ.pop("MATCOMPUTE_WORKSPACE", None)

#: The environment's programs.
BIN = Path(sys.executable).parent
#: Tests that share what takes long to make, or a machine's ports: under ``pytest -n`` one worker has them all. Every
#: other file goes to the next worker that is free.
TOGETHER = {
    "cluster": ("tests/cluster/",),
    "engine": ("tests/engine/",),
    "daemon": (
        "tests/workspace/",
        "tests/workflows/",
        "tests/centres/test_centres.py",
        "tests/centres/test_registry.py",
    ),
    "docs": ("tests/docs/",),
}


def _place(nodeid: str) -> str:
    """Return what is given to one worker as a whole: a group, or the file."""
    for place, beginnings in TOGETHER.items():
        if nodeid.startswith(beginnings):
            return place
    return nodeid.split("::")[0]


def _turn(item: pytest.Item) -> int:
    """Return when it is begun: schedulers that wait beside kernels that compute; small files fill the end."""
    place = _place(item.nodeid)
    if place == "cluster":
        return 0
    if place.startswith("tests/kernels/"):
        return 1
    return 2 if place in TOGETHER else 3


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests into the order in which several workers begin them."""
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give tests to workers by place, in our order."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPlace(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _place(nodeid)

    config.option.loadscopereorder = False
    return ByPlace(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that needs a Debian or Python package may not skip: .ci/run has installed it."""
    report = yield
    installed = item.get_closest_marker("apt") or "Skipped: could not import" in str(report.longrepr)
    if report.skipped and os.environ.get("MATCOMPUTE_NO_SKIP") and installed:
        report.outcome = "failed"
        report.longrepr = f"skipped although MATCOMPUTE_NO_SKIP is set: {report.longrepr}"
    return report


def end_processes_in(folder: Path) -> None:
    """Kill what a workspace has left: every process that works inside its folder."""
    import psutil

    root = str(folder.resolve())
    for process in psutil.process_iter():
        try:
            inside = process.cwd().startswith(root) or any(root in part for part in process.cmdline())
            if inside and process.pid != os.getpid():
                process.kill()
        except (psutil.Error, OSError):
            continue


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with its profile loaded in this process and its daemon running."""
    from aiida.manage.configuration import get_config

    from matcompute.centres import local_centre, register
    from matcompute.workspace import Workspace

    root = tmp_path_factory.mktemp("session") / "workspace"
    made = Workspace.create(root, title="tests")
    register(made, local_centre(made))
    # A transport task that fails is tried three times within three seconds, not five times within half a minute.
    config = get_config()
    for option, value in (
        ("transport.task_maximum_attempts", 3),
        ("transport.task_retry_initial_interval", 1),
    ):
        config.set_option(option, value, scope=made.profile_name)
    config.store()
    made.ensure_daemon()
    yield made
    made.stop_daemon()
    end_processes_in(root)


@pytest.fixture(scope="session")
def centre(workspace: Workspace) -> RegisteredCentre:
    """The local centre of the session's workspace."""
    from matcompute.centres import local_centre, register

    return register(workspace, local_centre(workspace))


@pytest.fixture
def write_shard(tmp_path: Path) -> Callable[..., Path]:
    """Write structures (ASE Atoms) as a dataset v1 file; by default copper and aluminium."""

    def write(atoms: Sequence[Any] | None = None, name: str = "shard.h5") -> Path:
        from ase.build import bulk

        from matcompute.dataset import DatasetWriter, Metadata
        from matcompute_kernels import Batch

        chosen = [bulk("Cu", a=3.55), bulk("Al", a=4.1)] if atoms is None else list(atoms)
        path = tmp_path / name
        with DatasetWriter(path, Metadata(title="test")) as writer:
            writer.append(Batch.from_atoms(chosen))
        return path

    return write


@pytest.fixture
def emt_task() -> dict[str, Any]:
    """The task of the quickest batch: relax with EMT."""
    return {
        "task": "relax",
        "parameters": {},
        "calculator": {"name": "emt", "parameters": {}},
        "stage": "relax",
    }


@pytest.fixture
def submit_batch(
    workspace: Workspace, centre: RegisteredCentre, emt_task: dict[str, Any]
) -> Callable[..., ProcessNode]:
    """Submit a BatchWorkChain to the session's daemon."""
    counter = iter(range(1_000_000))

    def submit(
        shard: ShardData | Path, task: Mapping[str, Any] | None = None, **resources: Any
    ) -> ProcessNode:
        from aiida.engine import submit

        from matcompute_workflows import ShardData, build_batch

        node = shard if isinstance(shard, ShardData) else ShardData(shard)
        label = f"test/{time.time_ns()}/{next(counter)}"
        return submit(build_batch(centre, node, task or emt_task, label=label, resources=resources))

    return submit


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """Wait until processes have ended; fail with their report if they do not."""

    def wait(*nodes: ProcessNode, timeout: float = 300.0, each: Callable[[], None] | None = None) -> None:
        deadline = time.monotonic() + timeout
        while not all(node.is_terminated for node in nodes):
            if time.monotonic() > deadline:
                from aiida.cmdline.utils.common import get_workchain_report

                reports = [get_workchain_report(node, "REPORT") for node in nodes if not node.is_terminated]
                pytest.fail(f"not finished after {timeout:.0f} s:\n" + "\n".join(reports))
            if each is not None:
                each()
            time.sleep(0.05)

    return wait


@pytest.fixture(scope="session")
def matcompute() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a subprocess."""

    def run(
        *arguments: str | Path, cwd: Path | None = None, check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(BIN / "matcompute"), *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if check and done.returncode != 0:
            pytest.fail(
                f"matcompute {' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    return run

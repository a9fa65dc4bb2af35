"""Two Slurm clusters and a Grid Engine, each reached over SSH as an ordinary user.

They start when a test asks for them (a few seconds) and live as long as the test run; a run that is killed takes
them with it. Tests that need another state of a centre bring it back themselves.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .services import SSHD, GridEngine, Partition, Site, SlurmCluster, missing, new_folder

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster: runs on real schedulers that the test run starts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.apt)
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def cluster_folder() -> Iterator[Path]:
    """A folder that the centres' ordinary user can reach; what an earlier, killed run has left is removed first."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the centres are made of namespaces and run jobs as another user")
    require(missing("nsenter", "ssh", "ssh-keygen", SSHD, "modulecmd"))
    folder, lock = new_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    lock.close()


def require(absent: list[str]) -> None:
    """Skip the test where programs are not installed."""
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}; .ci/run installs them")


@pytest.fixture(scope="session")
def compiled(cluster_folder: Path) -> Path:
    """Return a folder with the machine code of the kernels that a batch needs: compiled once, for all centres."""
    from ase.build import bulk

    from matcompute.dataset import DatasetWriter, Metadata
    from matcompute_kernels import Batch
    from matcompute_workflows.taskfile import FILES, task_file

    job, cache = cluster_folder / "first-job", cluster_folder / "numba"
    job.mkdir()
    with DatasetWriter(job / FILES["structures"], Metadata(title="test")) as writer:
        writer.append(Batch.from_atoms([bulk("Cu", a=3.55, cubic=True)]))
    task = {"task": "relax", "calculator": {"name": "emt", "parameters": {}}, "stage": "relax"}
    (job / FILES["task"]).write_text(json.dumps(task_file(task)))
    program = Path(sys.executable).parent / "matcompute-node"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    subprocess.run([str(program), "run", FILES["task"]], cwd=job, env=environment, check=True)
    return cache


def start(site: Callable[[], Site], absent: list[str], compiled: Path) -> Iterator[Site]:
    """Start a centre, end it after the last test."""
    require(absent)
    made = site()
    made.give_cache(compiled)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def slurm_a(cluster_folder: Path, compiled: Path) -> Iterator[Site]:
    """Slurm with accounting: nodes a1, a2 of 4 cores in partition ``cpu``; a2, with two GPUs, also in ``gpu``."""
    partitions = [Partition("cpu", ("a1", "a2"), default=True), Partition("gpu", ("a2",))]
    yield from start(
        lambda: SlurmCluster(
            cluster_folder / "a",
            "slurm-a",
            ["a1", "a2"],
            gpus={"a2": 2},
            accounting=True,
            partitions=partitions,
            clearance="important",
        ),
        missing(*SlurmCluster.programs, *SlurmCluster.accounting_programs),
        compiled,
    )


@pytest.fixture(scope="session")
def slurm_b(cluster_folder: Path, compiled: Path) -> Iterator[Site]:
    """Slurm without accounting: one node b1 of 4 cores, partition ``main``; ``urgent`` ends jobs of ``main``."""
    partitions = [
        Partition("main", ("b1",), default=True),
        Partition("urgent", ("b1",), tier=10, told=False),
    ]
    yield from start(
        lambda: SlurmCluster(cluster_folder / "b", "slurm-b", ["b1"], partitions=partitions),
        missing(*SlurmCluster.programs),
        compiled,
    )


@pytest.fixture(scope="session")
def sge(cluster_folder: Path, compiled: Path) -> Iterator[Site]:
    """Grid Engine: one host ``sge`` with 4 slots, queue ``all.q``, parallel environment ``smp``."""
    yield from start(
        lambda: GridEngine(cluster_folder / "sge", "sge"), missing(*GridEngine.programs), compiled
    )


@pytest.fixture(params=["slurm_a", "slurm_b", "sge"])
def site(request: pytest.FixtureRequest) -> Site:
    """Each centre in turn, in order; ``parametrize("site", [...], indirect=True)`` chooses."""
    found: Site = request.getfixturevalue(request.param)
    found.settle()
    return found

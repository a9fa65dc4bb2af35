"""Two Slurm clusters and a Grid Engine, each reached over SSH as an ordinary user.

They start when a test asks for them (a few seconds) and live as long as the test run; a run that is killed takes
them with it. Tests that need another state of a centre bring it back themselves.
"""

from __future__ import annotations

import os
import shutil
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


def start(site: Callable[[], Site], absent: list[str]) -> Iterator[Site]:
    """Start a centre, end it after the last test."""
    require(absent)
    made = site()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def slurm_a(cluster_folder: Path) -> Iterator[Site]:
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
    )


@pytest.fixture(scope="session")
def slurm_b(cluster_folder: Path) -> Iterator[Site]:
    """Slurm without accounting: one node b1 of 4 cores, partition ``main``."""
    yield from start(
        lambda: SlurmCluster(cluster_folder / "b", "slurm-b", ["b1"]), missing(*SlurmCluster.programs)
    )


@pytest.fixture(scope="session")
def sge(cluster_folder: Path) -> Iterator[Site]:
    """Grid Engine: one host ``sge`` with 4 slots, queue ``all.q``, parallel environment ``smp``."""
    yield from start(lambda: GridEngine(cluster_folder / "sge", "sge"), missing(*GridEngine.programs))


@pytest.fixture(params=["slurm_a", "slurm_b", "sge"])
def site(request: pytest.FixtureRequest) -> Site:
    """Each centre in turn; ``parametrize("site", [...], indirect=True)`` chooses."""
    return request.getfixturevalue(request.param)

"""Whole campaigns over two Slurm clusters and a Grid Engine, while things go wrong."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from matcompute.dataset import Dataset, Status

from .desk import Desk, events, job_folders, write_structures
from .services import Site

#: Structures of the long campaign, and of one of its batches.
COUNT, SIZE = 504, 28
#: Shortest time that sshd is away, in s.
AWAY_S = 30.0


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, slurm_a: Site, slurm_b: Site, sge: Site) -> Iterator[Desk]:
    """A workspace that knows the three centres."""
    desk = Desk(tmp_path_factory.mktemp("campaign"))
    for site in (slurm_a, slurm_b, sge):
        desk.register(site)
    yield desk
    desk.stop()


@pytest.fixture(autouse=True)
def settled(slurm_a: Site, slurm_b: Site, sge: Site) -> None:
    """All centres are in order."""
    for site in (slurm_a, slurm_b, sge):
        site.settle()


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(1500)
def test_campaign_over_three_centres_while_they_fail(
    desk: Desk, slurm_a: Site, slurm_b: Site, sge: Site
) -> None:
    """A slurmctld is killed, a node drained, sshd away for 30 s, the dispatcher killed: nothing lost, nothing twice."""
    sites = (slurm_a, slurm_b, sge)
    structures = write_structures(desk.folder / "alloys.extxyz", COUNT, small=True)
    before = job_folders(sites)

    def done(*where: Site) -> int:
        return len(events(job_folders(where or sites) - before, "done"))

    run = desk.start("campaign", "run", desk.campaign("many", structures, size=SIZE))
    desk.until(lambda: all(done(site) for site in sites), "work at all three centres", 300)

    sge.sshd_down()
    away = time.monotonic()
    slurm_b.drain("b1")
    slurm_a.kill_controller()
    try:
        time.sleep(5)
    finally:
        slurm_a.start_controller()
    dispatcher = desk.dispatcher()
    assert dispatcher is not None
    os.kill(dispatcher, signal.SIGKILL)
    log = desk.root / "logs/dispatcher.log"
    desk.until(
        lambda: "centre 'sge' is down" in log.read_text(), "the dispatcher's notice that sge is away", 240
    )
    time.sleep(max(0.0, AWAY_S - (time.monotonic() - away)))
    sge.sshd_up()
    slurm_b.resume("b1")
    assert desk.state("many") != "finished", "all was done before anything failed; the campaign is too short"

    # Whoever watches starts the dispatcher again; had nobody watched, `resume` would.
    output, _ = run.communicate(timeout=600)
    if run.returncode != 0:
        desk.matcompute("campaign", "resume", "many")
    assert desk.state("many") == "finished", output + desk.log()

    counts = events(job_folders(sites) - before, "done")
    assert len(counts) == COUNT
    assert set(counts.values()) == {1}, "structures were computed twice"
    with Dataset(desk.dataset("many")) as dataset:
        assert len(dataset) == COUNT
        assert set(dataset.ids) == set(counts)
        assert (dataset.status("energy") == Status.OK).all()
    assert set(desk.centres_used("many")) == {"slurm-a", "slurm-b", "sge"}
    assert len(re.findall(r"dispatcher \d+ starts", log.read_text())) >= 2
    assert "centre 'sge' is back" in log.read_text()


@pytest.mark.slow
def test_important_data_never_touch_a_centre_of_lower_clearance(
    desk: Desk, slurm_a: Site, slurm_b: Site, sge: Site
) -> None:
    """slurm-a may hold important data; the two others are free, and stay so."""
    structures = write_structures(desk.folder / "alloys.extxyz", 24, seed=6, small=True)
    before = {site: job_folders([site]) for site in (slurm_a, slurm_b, sge)}
    files = {site: _files(site) for site in (slurm_b, sge)}
    desk.matcompute("campaign", "run", desk.campaign("secret", structures, size=4, grade="important"))
    assert set(desk.centres_used("secret")) == {"slurm-a"}
    assert len(job_folders([slurm_a]) - before[slurm_a]) == 6
    for site in (slurm_b, sge):
        assert _files(site) == files[site], f"files at {site.name}"
    with Dataset(desk.dataset("secret")) as dataset:
        assert (dataset.status("energy") == Status.OK).all()
        assert dataset.metadata.grade == "important"


def _files(site: Site) -> set[Path]:
    return {path for path in site.home.rglob("*") if path.is_file()}

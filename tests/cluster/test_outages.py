"""Connections that break at the worst moment: login hosts that go down, jobs that the scheduler has and AiiDA does not.

A shim around ``sbatch`` holds its answer back: a test can do what it wants after the scheduler has accepted a job.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from matcompute.campaign.state import State
from matcompute.campaign.state.centres import end_submission
from matcompute.centres import Centre
from matcompute.centres.remote import LoginError, Remote
from matcompute.dataset import Dataset, Status

from .desk import Desk, events, job_folders, write_structures
from .services import HOSTS, Site

pytestmark = [pytest.mark.slow, pytest.mark.kill, pytest.mark.timeout(1500)]

#: While ``~/slow`` is there, the answer of one submission is held back until ``~/slow`` is gone.
SHIM = """\
#!/bin/bash
out=$(/usr/bin/sbatch "$@"); code=$?
if [ -e ~/slow ]; then
  mv ~/slow ~/held
  for n in {1..600}; do [ -e ~/held ] || break; sleep 0.1; done
fi
echo "$out"
exit $code
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("outages"))
    yield desk
    desk.stop()


class Shim:
    """Holds back the answer to a submission."""

    def __init__(self, site: Site) -> None:
        self.site, self.slow, self.held = site, site.home / "slow", site.home / "held"

    def release(self) -> None:
        """Let it be given."""
        self.slow.unlink(missing_ok=True)
        self.held.unlink(missing_ok=True)


@pytest.fixture
def shim(slurm_b: Site) -> Iterator[Shim]:
    """Have the next submission at ``slurm-b`` answered when the test allows it."""
    slurm_b.settle()
    programs, start = slurm_b.home / "bin", slurm_b.home / ".bashrc"
    programs.mkdir(exist_ok=True)
    (programs / "sbatch").write_text(SHIM)
    (programs / "sbatch").chmod(0o755)
    start.write_text("PATH=$HOME/bin:$PATH\n")
    shim = Shim(slurm_b)
    slurm_b("touch slow")
    yield shim
    start.unlink()
    shim.release()
    slurm_b.cancel_all()


def names(site: Site) -> Counter[str]:
    """Count the jobs that the scheduler has had in the last minutes by name."""
    return Counter(site("squeue -h -t all --me -o %j").split())


def computed_once(site: Site, before: set[Path], count: int) -> None:
    counts = events(job_folders([site]) - before, "done")
    assert len(counts) == count
    assert set(counts.values()) == {1}, "structures were computed twice"


def killed(desk: Desk) -> int:
    """Return how many jobs AiiDA has killed."""
    database = f"file:{desk.root / 'aiida/storage/database.sqlite'}?mode=ro"
    with contextlib.closing(sqlite3.connect(database, uri=True, timeout=30)) as connection:
        query = "SELECT attributes FROM db_dbnode WHERE node_type LIKE 'process.calculation.calcjob%'"
        rows = [json.loads(row[0]) for row in connection.execute(query)]
    return sum(row.get("process_state") == "killed" for row in rows)


# ---------------------------------------------------------------------- two login hosts
def test_the_other_login_host_is_used(slurm_b: Site, tmp_path: Path) -> None:
    centre = Centre.load(slurm_b.profile(tmp_path, login={"hosts": list(HOSTS)}))
    try:
        with Remote(centre) as remote:
            assert remote.host == HOSTS[0]
        slurm_b.sshd_down(HOSTS[0])
        with Remote(centre) as remote:
            assert remote.run("echo here").stdout == "here\n"
            assert remote.host == HOSTS[1]
        slurm_b.sshd_up(HOSTS[0])
        with Remote(centre) as remote:
            assert remote.host == HOSTS[1], "a connection that is open is used"
        slurm_b.sshd_down(HOSTS[1])
        with Remote(centre) as remote:
            assert remote.host == HOSTS[0]
        slurm_b.sshd_down()
        with pytest.raises(LoginError, match=rf"{HOSTS[0]}:.*{HOSTS[1]}:"):
            Remote(centre).open()
    finally:
        slurm_b.sshd_up()
        Remote(centre).drop()


def test_jobs_go_on_through_the_other_login_host(desk: Desk, slurm_b: Site) -> None:
    slurm_b.settle()
    desk.only(slurm_b, login={"hosts": list(HOSTS)})
    structures = write_structures(desk.folder / "alloys.extxyz", 40, seed=21)
    before = job_folders([slurm_b])
    run = desk.start("campaign", "run", desk.campaign("hosts", structures, size=8))
    desk.until(lambda: events(job_folders([slurm_b]) - before, "done"), "some results")
    slurm_b.sshd_down(HOSTS[0])
    try:
        output, _ = run.communicate(timeout=3000)
    finally:
        slurm_b.sshd_up()
    assert desk.state("hosts") == "finished", output + desk.log()
    assert f"centre 'slurm-b' is now reached through {HOSTS[1]}" in desk.log()
    computed_once(slurm_b, before, 40)
    Remote(Centre.load(slurm_b.profile(desk.folder, login={"hosts": list(HOSTS)}))).drop()


# ---------------------------------------------------------------------- a job that nobody knows
@pytest.mark.parametrize("dies", [False, True], ids=["shell lives", "shell dies"])
def test_ssh_is_cut_while_a_job_is_submitted(desk: Desk, slurm_b: Site, shim: Shim, dies: bool) -> None:
    """The scheduler has it, the connection breaks: it is not submitted a second time."""
    name = "dies" if dies else "lives"
    desk.only(slurm_b)
    structures = write_structures(desk.folder / "alloys.extxyz", 6, seed=22)
    before, jobs = job_folders([slurm_b]), names(slurm_b)
    run = desk.start("campaign", "run", desk.campaign(name, structures, size=6))
    desk.until(shim.held.exists, "a submission")
    slurm_b.sshd_down()
    if dies:
        slurm_b.container.run("pkill", "-KILL", "-u", slurm_b.container.user.name, "-f", "submit.begun")
    shim.release()
    slurm_b.sshd_up()
    output, _ = run.communicate(timeout=3000)
    assert desk.state(name) == "finished", output + desk.log()
    computed_once(slurm_b, before, 6)
    assert sorted((names(slurm_b) - jobs).values()) == [1]


def test_a_job_of_a_cancelled_campaign_does_not_run_on(desk: Desk, slurm_b: Site, shim: Shim) -> None:
    desk.only(slurm_b)
    structures = write_structures(desk.folder / "alloys.extxyz", 6, seed=23)
    before, dead = job_folders([slurm_b]), killed(desk)
    run = desk.start("campaign", "run", desk.campaign("stop", structures, size=6))
    desk.until(shim.held.exists, "a submission")
    # So that it waits in the queue when its campaign is cancelled.
    slurm_b.drain("b1")
    cancel = desk.start("campaign", "cancel", "stop", "--yes")
    desk.until(lambda: killed(desk) > dead, "the end of the process")
    assert slurm_b.jobs()
    shim.release()
    desk.until(lambda: desk.state("stop") == "cancelled", "the end of the campaign")
    assert slurm_b.jobs() == []
    slurm_b.resume("b1")
    for process in (run, cancel):
        process.communicate(timeout=300)
    assert not events(job_folders([slurm_b]) - before, "done")


def test_a_batch_that_leaves_while_it_is_submitted(
    desk: Desk, slurm_a: Site, slurm_b: Site, shim: Shim
) -> None:
    """AiiDA kills its process and does not know that the scheduler has the job: it must not run at both centres."""
    slurm_a.settle()
    desk.only(slurm_b)
    structures = write_structures(desk.folder / "alloys.extxyz", 6, seed=24)
    before, dead = job_folders([slurm_a, slurm_b]), killed(desk)
    run = desk.start("campaign", "run", desk.campaign("leave", structures, size=6))
    desk.until(shim.held.exists, "a submission")
    slurm_b.drain("b1")
    (process,) = desk.processes("leave")
    desk.register(slurm_a)
    # What the dispatcher does when it has seen, a moment too early, that the job is not submitted yet.
    ((number,),) = desk.query("SELECT id FROM batch WHERE process_uuid = ?", process)
    with State(desk.root / "state.sqlite") as state, state.write() as connection:
        end_submission(connection, number, "rerouting", "draining", process)
    desk.matcompute("verdi", "process", "kill", process)
    desk.until(lambda: killed(desk) > dead, "the end of the process")
    shim.release()
    desk.until(lambda: desk.centres_used("leave").get("slurm-a"), "the other centre")
    assert slurm_b.jobs() == [], "its job is out of the queue before it goes elsewhere"
    slurm_b.resume("b1")
    output, _ = run.communicate(timeout=3000)
    assert desk.state("leave") == "finished", output + desk.log()
    counts = events(job_folders([slurm_a, slurm_b]) - before, "done")
    assert sorted(counts.values()) == [1] * 6
    with Dataset(desk.dataset("leave")) as dataset:
        assert (dataset.status("energy") == Status.OK).all()

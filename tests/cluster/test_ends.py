"""How jobs end that a centre does not let end by themselves, and what a campaign then does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from matcompute.dataset import Dataset, Status

from .desk import Desk, events, job_folders, write_structures
from .services import Site, SlurmCluster

COUNT = 120


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("ends"))
    yield desk
    desk.stop()


def running(site: Site) -> list[tuple[str, str]]:
    """Return number and node of the user's running jobs."""
    lines = site("squeue -h --me -t RUNNING -o '%i %N'").splitlines()
    return [(line.split()[0], line.split()[1]) for line in lines]


def one_campaign(desk: Desk, site: Site, name: str, disturb: Callable[[str, str], None]) -> str:
    """Run a campaign of one batch, disturb its job once it has results; return what the work chain reported."""
    site.settle()
    desk.only(site)
    structures = write_structures(desk.folder / "alloys.extxyz", COUNT, seed=11)
    before = job_folders([site])
    run = desk.start("campaign", "run", desk.campaign(name, structures, size=COUNT))
    desk.until(lambda: sum(events(job_folders([site]) - before, "done").values()) >= 2, "some results")
    job, node = desk.until(lambda: running(site), "a running job")[0]
    disturb(job, node)
    output, _ = run.communicate(timeout=600)
    assert desk.state(name) == "finished", output + desk.log()
    folders = job_folders([site]) - before
    assert len(folders) >= 2, "the job was not disturbed"
    counts = events(folders, "done")
    assert len(counts) == COUNT
    assert set(counts.values()) == {1}, "structures were computed twice"
    with Dataset(desk.dataset(name)) as dataset:
        assert (dataset.status("energy") == Status.OK).all()
    (process,) = desk.processes(name)
    return desk.matcompute("verdi", "process", "report", process).stdout


@pytest.mark.slow
@pytest.mark.kill
def test_a_preempted_job_goes_on(desk: Desk, slurm_b: Site) -> None:
    def disturb(_job: str, _node: str) -> None:
        slurm_b("sbatch -p urgent -n1 -c4 -t 1 -o /dev/null --wrap 'sleep 2'")

    assert "had to make way" in one_campaign(desk, slurm_b, "preempted", disturb)


@pytest.mark.slow
@pytest.mark.kill
def test_a_job_whose_node_fails_goes_on(desk: Desk, slurm_a: Site) -> None:
    def disturb(_job: str, node: str) -> None:
        assert isinstance(slurm_a, SlurmCluster)
        slurm_a.container.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=power")
        desk.until(lambda: all(where != node for _, where in running(slurm_a)), "the end of the job")
        slurm_a.resume(node)

    assert "was ended by the centre" in one_campaign(desk, slurm_a, "node-fail", disturb)


@pytest.mark.slow
@pytest.mark.kill
def test_a_job_that_an_administrator_cancelled_goes_on(desk: Desk, slurm_a: Site) -> None:
    def disturb(job: str, _node: str) -> None:
        slurm_a.container.run("scancel", job)

    assert "was ended by the centre" in one_campaign(desk, slurm_a, "cancelled", disturb)


@pytest.mark.slow
def test_a_quota_holds(desk: Desk, slurm_a: Site) -> None:
    """A campaign ends at the quota of its project: what was used is at most the quota and what was in flight."""
    quota = 0.004
    slurm_a.settle()
    # The project has been used by the tests before.
    quota += sum(value for (value,) in desk.query("SELECT core_s FROM usage WHERE centre = 'slurm-a'")) / 3600
    desk.only(slurm_a, projects=[{"account": "materials", "default": True, "quota_core_h": quota}])
    structures = write_structures(desk.folder / "alloys.extxyz", 120, seed=12)
    done = desk.matcompute("campaign", "run", desk.campaign("poor", structures, size=10), check=False)
    assert done.returncode != 0
    assert desk.state("poor") == "over-budget", done.stdout + desk.log()
    assert "the quota of its centres is used up" in done.stdout
    batches = desk.query(
        "SELECT b.state, count(*) FROM batch b JOIN campaign c ON c.id = b.campaign_id WHERE c.name = 'poor' GROUP BY 1"
    )
    assert dict(batches)["finished"] >= 1
    assert dict(batches)["planned"] >= 1
    used = desk.query("SELECT core_s FROM usage WHERE centre = 'slurm-a'")
    core_h = [value / 3600 for (value,) in used]
    # At most four jobs are in flight at once there (max_submitted).
    assert sum(core_h) <= quota + sum(sorted(core_h)[-4:])
    # With a larger quota it goes on.
    desk.register(slurm_a, projects=[{"account": "materials", "default": True, "quota_core_h": quota + 1}])
    desk.matcompute("campaign", "resume", "poor")
    assert desk.state("poor") == "finished"

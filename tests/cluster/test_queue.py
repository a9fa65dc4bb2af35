"""Live queues and accounting of real schedulers: what waits and runs there, and what jobs have used."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from matcompute.centres import Centre
from matcompute.centres.remote import Remote
from matcompute.centres.schedulers.accounting import AccountingError, JobUsage, accounting_of, usage
from matcompute.centres.schedulers.queue import QueueError, look

from .services import Site


@pytest.fixture
def centre(site: Site, tmp_path: Path) -> Centre:
    return Centre.load(site.profile(tmp_path))


def submit(site: Site, command: str, *, cores: int = 1, options: str = "") -> str:
    """Submit a one-line script; return the job's number."""
    if site.scheduler == "slurm":
        return site(f"sbatch --parsable -n1 -c{cores} {options} -o /dev/null --wrap {command!r}").strip()
    return site(
        f"echo {command!r} | qsub -terse -pe smp {cores} {options} -S /bin/bash -o /dev/null -j y"
    ).strip()


def cancel(site: Site, *jobs: str) -> None:
    site(f"{'scancel' if site.scheduler == 'slurm' else 'qdel'} {' '.join(jobs)}", check=False)


def settled(centre: Centre, job: str, timeout: float = 300) -> JobUsage:
    """Wait for the accounting of a job."""
    with Remote(centre) as remote:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = usage(remote, accounting_of(centre), [job])
            if job in found:
                return found[job]
            time.sleep(0.5)
    raise AssertionError(f"job {job} is not accounted for")


def test_the_queue(site: Site, centre: Centre) -> None:
    """One job runs on all cores, a second one waits."""
    nodes, cores = len(site.nodes), 4
    jobs = [submit(site, "sleep 60", cores=cores) for _ in range(nodes)]
    jobs += [submit(site, "sleep 60", cores=cores)]
    try:
        with Remote(centre) as remote:
            deadline = time.monotonic() + 90
            while time.monotonic() < deadline:
                seen = look(remote, centre.scheduler.type)
                assert seen.jobs is not None
                mine = {job.job_id: job.state for job in seen.jobs if job.job_id in jobs}
                if sorted(mine.values()) == ["pending", *["running"] * nodes]:
                    break
                time.sleep(0.5)
            assert sorted(mine.values()) == ["pending", *["running"] * nodes]
            partition = seen.partitions[centre.partitions[0].name]
            assert partition.starts
            assert partition.cores == nodes * cores
            assert partition.idle == 0
            assert partition.pending_jobs == 0, "the one that waits is ours, not somebody else's"
            assert seen.to_json()["user_jobs"] == len(seen.jobs)
    finally:
        cancel(site, *jobs)


def starts(centre: Centre, expected: bool) -> bool:
    """Whether the first partition comes to start jobs, or not to, within a while: nodes take time to answer."""
    name = centre.partitions[0].name
    with Remote(centre) as remote:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if look(remote, centre.scheduler.type).partitions[name].starts == expected:
                return True
            time.sleep(0.5)
    return False


def test_a_drained_node(site: Site, centre: Centre) -> None:
    assert starts(centre, True)
    for node in site.nodes:
        site.drain(node)
    try:
        assert starts(centre, False)
    finally:
        for node in site.nodes:
            site.resume(node)
    assert starts(centre, True)


@pytest.mark.parametrize("site", ["slurm_b", "sge"], indirect=True)
def test_a_dead_controller(site: Site, centre: Centre) -> None:
    site.kill_controller()
    try:
        with Remote(centre) as remote, pytest.raises(QueueError, match="does not answer"):
            look(remote, centre.scheduler.type)
    finally:
        site.start_controller()


@pytest.mark.parametrize("site", ["slurm_a", "sge"], indirect=True)
def test_what_a_job_used(site: Site, centre: Centre) -> None:
    found = settled(centre, submit(site, "sleep 3", cores=2))
    assert found.state == "COMPLETED"
    assert found.exit == 0
    assert 2.0 <= found.elapsed_s <= 20.0
    assert found.core_s == pytest.approx(2 * found.elapsed_s)
    assert found.queue_s is not None
    assert found.queue_s < 60
    assert found.node in site.nodes


@pytest.mark.parametrize("site", ["slurm_a", "sge"], indirect=True)
def test_a_job_that_failed(site: Site, centre: Centre) -> None:
    found = settled(centre, submit(site, "exit 3"))
    assert (found.state, found.exit) == ("FAILED", 3)
    assert "3" in found.reason


@pytest.mark.slow
@pytest.mark.parametrize("site", ["slurm_a", "sge"], indirect=True)
def test_a_job_that_was_too_long(site: Site, centre: Centre) -> None:
    job = submit(site, "sleep 300", options="" if site.scheduler == "slurm" else "-l h_rt=5")
    if (
        site.scheduler == "slurm"
    ):  # counts minutes, and looks every half a minute: its time is cut when it runs
        site.container.until(lambda: site(f"squeue -h -t R -j {job}"), f"job {job}")
        site.container.run("scontrol", "update", f"JobId={job}", "TimeLimit=0")
    assert settled(centre, job, timeout=400).state == "TIMEOUT"


@pytest.mark.parametrize("site", ["slurm_a"], indirect=True)
def test_gpus_and_accounts_are_counted(site: Site, centre: Centre) -> None:
    found = settled(centre, submit(site, "sleep 2", options="-p gpu --gres=gpu:2"))
    assert found.gpu_s == pytest.approx(2 * found.elapsed_s)
    assert found.node == "a2"


@pytest.mark.parametrize("site", ["slurm_a", "sge"], indirect=True)
def test_a_job_that_is_unknown_yet(site: Site, centre: Centre) -> None:
    with Remote(centre) as remote:
        assert usage(remote, accounting_of(centre), ["999999"]) == {}
        with pytest.raises(AccountingError, match="not the number of a job"):
            usage(remote, accounting_of(centre), ["1; rm -rf /"])


@pytest.mark.parametrize("site", ["slurm_b"], indirect=True)
def test_no_accounting(site: Site, centre: Centre) -> None:
    with Remote(centre) as remote, pytest.raises(AccountingError, match="sacct does not answer"):
        usage(remote, "sacct", ["1"])

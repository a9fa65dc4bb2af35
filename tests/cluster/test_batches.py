"""Batches on real schedulers, submitted by AiiDA over SSH."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .services import Site

if TYPE_CHECKING:
    from aiida.orm import ProcessNode

    from matcompute.centres import RegisteredCentre
    from matcompute.workspace import Workspace


@pytest.fixture
def registered(workspace: Workspace, tmp_path: Path) -> Callable[..., RegisteredCentre]:
    """Make a centre known to the session's workspace."""
    from matcompute.centres import Centre, register

    def make(site: Site, **overrides: Any) -> RegisteredCentre:
        return register(workspace, Centre.load(site.profile(tmp_path, **overrides)))

    return make


@pytest.fixture
def submit(write_shard: Callable[..., Path], emt_task: dict[str, Any]) -> Callable[..., ProcessNode]:
    """Submit an EMT relaxation to a centre."""

    def submit(centre: RegisteredCentre, label: str, **resources: Any) -> ProcessNode:
        from aiida.engine import submit

        from matcompute_workflows import ShardData, build_batch

        shard = ShardData(write_shard(name=f"{label}.h5"))
        return submit(build_batch(centre, shard, emt_task, label=f"test/{label}", resources=resources))

    return submit


def test_batch_on_each_centre(
    slurm_a: Site,
    slurm_b: Site,
    sge: Site,
    registered: Callable[..., RegisteredCentre],
    submit: Callable[..., ProcessNode],
    wait_for: Callable[..., None],
) -> None:
    """Three schedulers at once: over SSH, as the ordinary user, results and accounting come back."""
    from aiida.orm import CalcJobNode

    sites = (slurm_a, slurm_b, sge)
    nodes = {site: submit(registered(site), site.name, processes=2) for site in sites}
    wait_for(*nodes.values(), timeout=600)
    for site, node in nodes.items():
        assert node.is_finished_ok, (site.name, node.exit_status, node.exit_message)
        assert node.outputs.results.n_entries == 2, site.name
        summary = node.outputs.summary.get_dict()
        assert summary["host"] == site.name
        assert summary["counts"] == {"ok": 2}
        (job,) = (called for called in node.called if isinstance(called, CalcJobNode))
        assert job.computer.hostname == "127.0.0.1"
        folder = site.home / Path(job.get_remote_workdir()).relative_to("/home/mcuser")
        assert folder.stat().st_uid == site.container.user.uid
        question = {
            "slurm-a": f"sacct -nPX -j {job.get_job_id()} -o Account,NCPUS,State | grep -x 'materials|2|COMPLETED'",
            "slurm-b": f"scontrol show job {job.get_job_id()} | grep JobState=COMPLETED",
            "sge": f"qacct -j {job.get_job_id()} | grep '^slots *2'",
        }[site.name]
        site.container.until(lambda ask=question, there=site: there(ask, check=False), question)


def test_mpi_batch_in_a_partition(
    slurm_a: Site,
    registered: Callable[..., RegisteredCentre],
    submit: Callable[..., ProcessNode],
    wait_for: Callable[..., None],
) -> None:
    """Ranks, GPUs, partition, account and a directive of one's own reach Slurm."""
    centre = registered(slurm_a)
    extra = ["#SBATCH --comment=mine"]
    node = submit(
        centre,
        "mpi",
        ranks=2,
        gpus=1,
        partition="gpu",
        account="materials",
        walltime_s=90,
        extra_directives=extra,
    )
    wait_for(node, timeout=600)
    assert node.is_finished_ok, (node.exit_status, node.exit_message)
    summary = node.outputs.summary.get_dict()
    assert summary["ranks"] == 2
    job = node.called[0]
    # sacct shows what is known of a job that has just ended, and the rest a moment later.
    fields = "Partition,Account,Timelimit,Comment,State,AllocTRES"
    ask = f"sacct -nPX -j {job.get_job_id()} -o {fields} | grep '^gpu|materials|00:02:00|mine|COMPLETED|.*gres/gpu=1'"
    line = slurm_a.container.until(lambda: slurm_a(ask, check=False), ask)
    assert "cpu=2" in line

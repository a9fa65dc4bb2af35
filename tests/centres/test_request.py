"""From what a job needs to a scheduler's words: checked in the scripts that AiiDA's own plugins write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matcompute.centres import Centre, CentreError, Request, job_options
from matcompute.centres.request import script_header

CONFIGS = Path(__file__).parents[2] / "cluster_configs"
VALUES = {"user": "ada", "project": "steel"}


def load(name: str) -> Centre:
    centre = Centre.load(CONFIGS / f"{name}.yaml")
    return Centre.load(CONFIGS / f"{name}.yaml", {key: VALUES[key] for key in centre.variables})


def script(centre: Centre, options: dict[str, Any]) -> list[str]:
    """The head of a job script, by AiiDA's plugin of the scheduler."""
    from aiida.plugins import SchedulerFactory
    from aiida.schedulers.datastructures import JobTemplate

    from matcompute.centres.computers import SCHEDULERS

    scheduler = SchedulerFactory(SCHEDULERS[centre.scheduler.type])()
    template = JobTemplate()
    template.job_resource = scheduler.create_job_resource(**options["resources"])
    for name in (
        "queue_name",
        "account",
        "qos",
        "max_memory_kb",
        "max_wallclock_seconds",
        "custom_scheduler_commands",
    ):
        if name in options:
            template[name] = options[name]
    template.working_directory = "/tmp"
    template.codes_info = []
    template.codes_run_mode = 0
    return scheduler._get_submit_script_header(template).splitlines()


def test_slurm_ranks_over_nodes() -> None:
    centre = load("slurm-cpu")
    request = Request(ranks=96, cores=2, memory_gb=200, walltime_s=5400)
    lines = script(centre, job_options(centre, request, partition="bigmem"))
    assert "#SBATCH --partition=bigmem" in lines
    assert "#SBATCH --account=steel" in lines
    assert "#SBATCH --nodes=3" in lines  # 32 ranks of two cores fit a node
    assert "#SBATCH --ntasks-per-node=32" in lines
    assert "#SBATCH --cpus-per-task=2" in lines
    assert "#SBATCH --time=01:30:00" in lines
    assert f"#SBATCH --mem={round(200e6 / 3) // 1024}" in lines
    assert "#SBATCH --constraint=bigmem" in lines


def test_slurm_processes_share_one_task() -> None:
    centre = load("slurm-cpu")
    lines = script(centre, job_options(centre, Request(cores=8), account="other"))
    assert "#SBATCH --nodes=1" in lines
    assert "#SBATCH --ntasks-per-node=1" in lines
    assert "#SBATCH --cpus-per-task=8" in lines
    assert "#SBATCH --account=other" in lines
    assert not any("--time" in line or "--mem" in line for line in lines)


def test_gpus_are_asked_in_the_scheduler_s_own_name() -> None:
    gpu = load("slurm-gpu")
    assert "#SBATCH --gres=gpu:a100:2" in script(gpu, job_options(gpu, Request(gpus=2)))
    assert "#SBATCH --qos=debug" in script(gpu, job_options(gpu, Request(gpus=1), partition="gpu-debug"))
    pbs = load("pbs")
    assert "#PBS -l ngpus=2" in script(pbs, job_options(pbs, Request(gpus=2), partition="gpuq"))
    lsf = load("lsf")
    assert '#BSUB -gpu "num=4"' in script(lsf, job_options(lsf, Request(gpus=4), partition="gpu"))
    with pytest.raises(CentreError, match="partition 'short' of centre 'hpc-cpu' has no GPUs"):
        job_options(load("slurm-cpu"), Request(gpus=1))


@pytest.mark.parametrize(
    ("request_", "expected", "tot"),
    [
        (Request(cores=8), "#$ -pe smp 8", 8),
        (Request(ranks=8), "#$ -pe smp 8", 8),
        (Request(ranks=4, cores=3), "#$ -pe smp 12", 4),
    ],
)
def test_grid_engine_has_one_parallel_environment_line(request_: Request, expected: str, tot: int) -> None:
    centre = load("sge")
    options = job_options(centre, request_)
    lines = script(centre, options)
    assert [line for line in lines if line.startswith("#$ -pe")] == [expected]
    assert options["resources"]["tot_num_mpiprocs"] == tot  # what the MPI line is given


def test_grid_engine_memory_is_asked_a_slot() -> None:
    centre = load("sge")
    lines = script(centre, job_options(centre, Request(cores=4, memory_gb=8, walltime_s=90)))
    assert "#$ -l h_vmem=1908M" in lines
    assert "#$ -l h_rt=00:01:30" in lines
    assert "#$ -q all.q" in lines


def test_pbs_selects_cores_of_a_node() -> None:
    centre = load("pbs")
    lines = script(centre, job_options(centre, Request(ranks=4, cores=2, memory_gb=10, walltime_s=3600)))
    (select,) = [line for line in lines if "select=" in line]
    assert "select=1:mpiprocs=4:ncpus=8" in select
    assert "#PBS -q normal" in lines
    assert "#PBS -A steel" in lines
    assert "#PBS -l place=pack" in lines


def test_lsf_ranks_with_threads() -> None:
    centre = load("lsf")
    lines = script(centre, job_options(centre, Request(ranks=4, cores=2)))
    assert "#BSUB -n 4" in lines
    assert '#BSUB -R "affinity[core(2)]"' in lines
    assert "#BSUB -n 8" in script(centre, job_options(centre, Request(cores=8)))


def test_a_machine_without_a_scheduler_gets_no_directives() -> None:
    centre = load("workstation")
    options = job_options(centre, Request(ranks=64, walltime_s=60))
    assert options == {
        "resources": {"num_machines": 1, "num_mpiprocs_per_machine": 64},
        "max_wallclock_seconds": 60,
    }


@pytest.mark.parametrize("ranks", range(1, 200, 7))
def test_ranks_are_spread_evenly(ranks: int) -> None:
    part = load("slurm-cpu").partition("standard")
    nodes = Request(ranks=ranks, cores=4).nodes(part)
    assert ranks % nodes == 0
    assert ranks // nodes * 4 <= part.cores


def test_our_own_scripts_ask_for_the_same() -> None:
    slurm = script_header(load("slurm-gpu"), Request(gpus=1, memory_gb=4, walltime_s=60), name="x")
    assert slurm[0] == "#!/bin/bash"
    assert {
        "#SBATCH --partition=gpu",
        "#SBATCH --account=steel",
        "#SBATCH --gres=gpu:a100:1",
        "#SBATCH --mem=3815M",
        "#SBATCH --time=00:01:00",
    } <= set(slurm)
    sge = script_header(load("sge"), Request(cores=2, walltime_s=3600), name="x", partition="mpi.q")
    assert sge[0] == "#!/bin/bash -l"
    assert {"#$ -q mpi.q", "#$ -pe orte 2", "#$ -l h_rt=01:00:00"} <= set(sge)
    with pytest.raises(CentreError, match="no job script of our own for scheduler 'pbs'"):
        script_header(load("pbs"), Request(), name="x")

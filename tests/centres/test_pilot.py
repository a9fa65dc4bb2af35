"""Keywords for dask_jobqueue: checked in the job scripts that it writes from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from matcompute.centres import Centre, CentreError
from matcompute.centres.pilot import dask_keywords

CONFIGS = Path(__file__).parents[2] / "cluster_configs"
VALUES = {"user": "ada", "project": "steel"}
CLASSES = {"slurm": "SLURMCluster", "sge": "SGECluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
EXPECTED = {
    "slurm-cpu": {
        "#SBATCH -p short",
        "#SBATCH -A steel",
        "#SBATCH --cpus-per-task=64",
        "#SBATCH -t 01:00:00",
        "module load gcc/13 python/3.11",
    },
    "slurm-gpu": {"#SBATCH -p gpu", "#SBATCH --gres=gpu:a100:4", "#SBATCH -t 1-00:00:00"},
    "sge": {"#$ -q all.q", "#$ -pe smp 32", "#$ -l h_vmem=3577M", "#$ -l h_rt=48:00:00"},
    "pbs": {"#PBS -q normal", "#PBS -A steel", "#PBS -l select=1:ncpus=48:mem=190GB"},
    "lsf": {"#BSUB -q normal", "#BSUB -n 40", "#BSUB -W 24:00"},
}


def load(name: str) -> Centre:
    centre = Centre.load(CONFIGS / f"{name}.yaml")
    return Centre.load(CONFIGS / f"{name}.yaml", {key: VALUES[key] for key in centre.variables})


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_job_script_of_a_pilot(name: str) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue")
    centre = load(name)
    keywords = dask_keywords(centre)
    job = getattr(jobqueue, CLASSES[centre.scheduler.type]).job_cls
    keywords.pop("interface", None)  # this machine has no ib0
    lines = job("tcp://10.0.0.1:8786", name="w", **keywords).job_script().splitlines()
    assert EXPECTED[name] <= set(lines)
    assert not [line for line in lines[1:] if line.startswith("#") and line.endswith((" ", "-l"))], (
        "an option without a value"
    )
    node = centre.code()
    assert node is not None
    python = node.executable.replace("matcompute-node", "python")
    assert f"{python} -m distributed.cli.dask_worker" in "\n".join(lines)
    if node.container is not None:
        assert "apptainer exec --bind $PWD:$PWD --pwd $PWD /lustre/steel/images/matcompute.sif" in lines[-1]


def test_without_a_consumable_grid_engine_is_not_asked_for_memory() -> None:
    jobqueue = pytest.importorskip("dask_jobqueue")
    centre = load("sge")
    centre = centre.model_copy(
        update={"scheduler": centre.scheduler.model_copy(update={"memory_resource": None})}
    )
    lines = (
        jobqueue.SGECluster.job_cls("tcp://10.0.0.1:8786", name="w", **dask_keywords(centre))
        .job_script()
        .splitlines()
    )
    assert [line for line in lines if line.startswith("#$ -l")] == ["#$ -l h_rt=48:00:00"]


def test_a_pilot_needs_memory() -> None:
    centre = load("slurm-cpu")
    small = centre.model_copy(
        update={"pilot": centre.pilot.model_copy(update={"memory_gb": 1.0, "processes": 2})}
    )
    with pytest.raises(CentreError, match=r"1 GB for 2 processes, each needs 0.75 GB") as caught:
        dask_keywords(small)
    assert "pilot.memory_gb to 1.5" in str(caught.value.hint)


def test_a_machine_without_a_scheduler_has_no_pilots() -> None:
    with pytest.raises(CentreError, match="has no scheduler"):
        dask_keywords(load("workstation"))

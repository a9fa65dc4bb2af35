"""Job scripts for PBS and LSF, of which no scheduler can be had here: Slurm's ``sbatch`` reads their directives too.

It is somebody else's reading of them, and the job runs. What it shows is what Slurm was asked for; that PBS and LSF
understand the same is not shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matcompute.centres import Centre, Request, job_options

from .services import Site

CONFIGS = Path(__file__).parents[2] / "cluster_configs"
VALUES = {"user": "ada", "project": "steel"}
NAME = "mc-c6192bef8aae"
#: A queue of Slurm's cluster, and what the profiles call theirs.
QUEUE, THEIRS = "main", "normal"


@pytest.fixture
def folder(slurm_b: Site) -> Iterator[Path]:
    slurm_b.settle()
    folder = slurm_b.home / "foreign"
    folder.mkdir()
    os.chown(folder, slurm_b.container.user.uid, slurm_b.container.user.gid)
    yield folder
    slurm_b("rm -rf foreign")


def header(name: str, request: Request) -> str:
    """Return the directives of a job at a ready centre, as AiiDA writes them."""
    from aiida.plugins import SchedulerFactory
    from aiida.schedulers.datastructures import JobTemplate

    centre = Centre.load(CONFIGS / f"{name}.yaml", VALUES)
    options = job_options(centre, request, partition=THEIRS)
    scheduler = SchedulerFactory(f"matcompute.{centre.scheduler.type}")()
    job: Any = JobTemplate()
    job.job_name, job.sched_output_path, job.sched_error_path = NAME, "out.txt", "err.txt"
    job.rerunnable, job.import_sys_environment = False, True
    job.job_resource = scheduler.create_job_resource(**options["resources"])
    for key in (
        "queue_name",
        "max_wallclock_seconds",
        "max_memory_kb",
        "account",
        "custom_scheduler_commands",
    ):
        job[key] = options.get(key)
    text: str = scheduler._get_submit_script_header(job)
    return text


@pytest.mark.parametrize("name", ["pbs", "lsf"])
def test_another_reads_the_directives_as_they_are_meant(
    slurm_b: Site, folder: Path, name: str, workspace: object
) -> None:
    text = header(name, Request(ranks=2, cores=2, memory_gb=1.0, walltime_s=600))
    text = text.replace(f"-q {THEIRS}", f"-q {QUEUE}")
    for unknown in (r"#BSUB -rn\n", r"#BSUB -G steel\n", r"#BSUB -R .*\n"):  # to sbatch
        text, found = re.subn(unknown, "", text)
        assert bool(found) == (name == "lsf"), unknown
    (folder / "job.sh").write_text(f"#!/bin/bash\n{text}\necho ran\n")
    number = slurm_b("cd foreign && sbatch --parsable job.sh").strip()
    told = slurm_b(f"scontrol show job {number}")
    asked = dict(re.findall(r"(\S+?)=(\S+)", told))
    assert asked["JobName"] == NAME
    assert (asked["Partition"], asked["NumTasks"]) == (QUEUE, "2")
    if name == "pbs":
        assert asked["TimeLimit"] == "00:10:00"
        assert (asked["Account"], asked["NumCPUs"], asked["MinMemoryNode"]) == ("steel", "4", "977M")
    else:  # hours and minutes to LSF, minutes and seconds to Slurm; nor do affinity and memory say the same to both
        assert "#BSUB -W 00:10\n" in text
    slurm_b.container.until((folder / "out.txt").exists, f"job {number}")
    slurm_b.container.until(
        lambda: (folder / "out.txt").read_text() == "ran\n", f"the output of job {number}"
    )

"""What ``dask_jobqueue`` needs to know of a centre for Dask pilots: worker jobs for kernel stages."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from matcompute.centres.durations import format_duration
from matcompute.centres.errors import CentreError
from matcompute.centres.launch import (
    code_lines,
    directives,
    engine_command,
    environment_lines,
    quote,
    start_lines,
)

if TYPE_CHECKING:
    from dask_jobqueue import JobQueueCluster

    from matcompute.centres.model import Centre

__all__ = ["dask_keywords", "pilot_cluster"]

_CLASSES = {"slurm": "SLURMCluster", "sge": "SGECluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
_PREFIXES = ("#SBATCH", "#$", "#PBS", "#BSUB")
#: A worker process has the interpreter, Numba and the kernels in memory (0.3 GB), and more while it compiles them.
LEAST_GB = 0.75
#: Dask pauses a worker that is short of memory, for ever if what fills it is no result of a task, and nobody is told.
#: Without, the worker is killed at its limit and what it did is tried again, three times; then an error says so.
_MEMORY = {
    "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False",
}


def dask_keywords(
    centre: Centre, partition: str | None = None, *, account: str | None = None
) -> dict[str, Any]:
    """Return the keywords of ``dask_jobqueue``'s cluster class for a centre.

    Parameters
    ----------
    centre
        The profile; its block ``pilot`` decides, and the partition where that is silent.
    partition
        In place of ``pilot.partition``.
    account
        In place of the default project.

    Raises
    ------
    CentreError
        If the centre has no scheduler, or no such partition, or a pilot has too little memory.
    """
    kind, pilot = centre.scheduler.type, centre.pilot
    if kind not in _CLASSES:
        raise CentreError(
            f"centre '{centre.id}' has no scheduler; pilots are jobs", hint="use dask's LocalCluster there"
        )
    part = centre.partition(partition or pilot.partition)
    cores = pilot.cores or part.cores
    memory_gb = pilot.memory_gb or part.mem_gb * cores / part.cores
    if memory_gb < LEAST_GB * pilot.processes:
        raise CentreError(
            f"centre '{centre.id}': a pilot has {memory_gb:g} GB for {pilot.processes} processes, "
            f"each needs {LEAST_GB:g} GB at least",
            hint=f"raise pilot.memory_gb to {LEAST_GB * pilot.processes:g}, or pilot.cores, or lower pilot.processes",
        )
    walltime = pilot.walltime or part.max_wall
    charged = account or part.account
    if charged is None:
        project = centre.project()
        charged = project.account if project is not None else None
    extra = [_bare(line) for line in directives(centre, part)]
    lines = start_lines(centre).splitlines() + environment_lines(_MEMORY)
    node = centre.code()
    if node is not None:
        lines += code_lines(node).splitlines()
    keywords: dict[str, Any] = {
        "queue": part.name,
        "cores": cores,
        "processes": pilot.processes,
        "memory": f"{memory_gb:g}GB",
        "job_name": f"mc-pilot-{centre.id}",
        "job_script_prologue": lines,
        "shebang": "#!/bin/bash -l" if centre.login.use_login_shell else "#!/bin/bash",
    }
    if walltime is not None:
        keywords["walltime"] = _walltime(kind, walltime)
    if pilot.interface is not None:
        keywords["interface"] = pilot.interface
    if pilot.local_directory is not None:
        keywords["local_directory"] = pilot.local_directory
    if node is not None and node.executable.startswith("/"):
        # The Python that the node program is installed for: it has our kernels.
        keywords["python"] = str(PurePosixPath(node.executable).with_name("python"))
        if node.container is not None:
            engine = engine_command(node).format(image_name=quote(node.container.image))
            keywords["python"] = f"{engine} {keywords['python']}"
    if charged is not None:
        keywords["project" if kind in ("sge", "lsf") else "account"] = charged
    if part.n_gpus and kind == "slurm":
        extra.append(f"--gres={part.gpus.resource or 'gpu'}:{part.n_gpus}")
    if part.qos:
        extra.append(f"--qos={part.qos}")
    if kind == "sge":
        extra.append(f"-pe {part.parallel_environment} {cores}")
        resource = centre.scheduler.memory_resource
        if resource is not None:
            each = math.ceil(memory_gb * 1e9 / 1024**2 / cores)
            keywords["resource_spec"] = f"{resource}={each}M"
    if kind == "pbs":
        keywords["resource_spec"] = f"select=1:ncpus={cores}:mem={memory_gb:g}GB"
    if kind == "lsf":
        keywords |= {"ncpus": cores, "mem": round(memory_gb * 1e9)}
    if extra:
        keywords["job_extra_directives"] = extra
    return keywords


def pilot_cluster(
    centre: Centre, partition: str | None = None, *, account: str | None = None, **keywords: Any
) -> JobQueueCluster:
    """Return a Dask cluster whose workers are jobs of a centre; ``scale(jobs=n)`` submits them.

    :func:`matcompute.centres.pilots.pilots` does that, waits for them and says why they do not come. The process must
    be where the scheduler's commands are: on a login node, or in a job.

    Parameters
    ----------
    centre, partition, account
        As in :func:`dask_keywords`.
    **keywords
        More of ``dask_jobqueue``, or others in place of the profile's.

    Raises
    ------
    CentreError
        If ``dask_jobqueue`` is not installed.
    """
    try:
        import dask_jobqueue
    except ImportError as error:
        raise CentreError("pilots need dask_jobqueue", hint="pip install dask-jobqueue") from error
    cluster = getattr(dask_jobqueue, _CLASSES.get(centre.scheduler.type, ""), None)
    made = {**dask_keywords(centre, partition, account=account), **keywords}
    assert cluster is not None
    found: JobQueueCluster = cluster(**made)
    return found


def _bare(line: str) -> str:
    """Return a directive without the word that begins it: ``dask_jobqueue`` writes that itself."""
    for prefix in _PREFIXES:
        if line.startswith(prefix):
            return line.removeprefix(prefix).strip()
    return line


def _walltime(kind: str, seconds: float) -> str:
    if kind == "slurm":
        return format_duration(seconds)
    total = math.ceil(seconds / 60)
    hours, minutes = divmod(total, 60)
    return f"{hours:02d}:{minutes:02d}" if kind == "lsf" else f"{hours:02d}:{minutes:02d}:00"

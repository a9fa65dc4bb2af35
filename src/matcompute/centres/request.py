"""From what a job needs to the words of a scheduler: AiiDA's options, and the directives of a script of our own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matcompute.centres.durations import format_duration
from matcompute.centres.errors import CentreError
from matcompute.centres.launch import directives

if TYPE_CHECKING:
    from matcompute.centres.model import Centre, PartitionBlock

__all__ = ["Request", "job_options", "script_header"]

#: Names by which a GPU is asked where the profile gives none.
_GPU_RESOURCE = {"slurm": "gpu", "sge": "gpu", "pbs": "ngpus", "lsf": "gpu"}


@dataclass(frozen=True)
class Request:
    """What one job needs.

    Parameters
    ----------
    ranks
        MPI ranks; 0 is without MPI.
    cores
        Cores of a rank; without MPI, of the whole job.
    gpus
        GPUs of the whole job.
    memory_gb
        Memory of the whole job, in GB; None leaves it to the scheduler.
    walltime_s
        In s; None leaves it to the scheduler.
    """

    ranks: int = 0
    cores: int = 1
    gpus: int = 0
    memory_gb: float | None = None
    walltime_s: float | None = None

    @property
    def slots(self) -> int:
        """Cores of the whole job."""
        return max(1, self.ranks) * self.cores

    def nodes(self, partition: PartitionBlock) -> int:
        """Nodes over which the ranks are spread; every node gets as many."""
        if self.ranks <= 0 or partition.nodes == 1:
            return 1
        fit = max(1, partition.cores // self.cores)
        count = math.ceil(self.ranks / fit)
        while self.ranks % count:
            count += 1
        return count


def job_options(
    centre: Centre,
    request: Request,
    *,
    partition: str | None = None,
    account: str | None = None,
) -> dict[str, Any]:
    """Return AiiDA's ``metadata.options`` of a job: resources, queue, account, memory, walltime, directives.

    Parameters
    ----------
    centre
        The profile.
    request
        What the job needs.
    partition
        Where it goes; the first partition by default.
    account
        What it is charged to; by default the partition's, else the default project.

    Raises
    ------
    CentreError
        If there is no such partition, or it asks for GPUs where none can be asked for.
    """
    part = centre.partition(partition)
    kind = centre.scheduler.type
    options: dict[str, Any] = {"resources": _resources(kind, part, request)}
    if request.walltime_s is not None:
        options["max_wallclock_seconds"] = max(1, round(request.walltime_s))
    if request.memory_gb is not None:
        # AiiDA's kB are 1024 bytes for Slurm; per node, as is ours where a job stays on one.
        options["max_memory_kb"] = round(request.memory_gb * 1e6 / request.nodes(part))
    if kind == "direct":
        return options
    options["queue_name"] = part.name
    charged = account or part.account or _default_account(centre)
    if charged:
        options["account"] = charged
    if part.qos:
        options["qos"] = part.qos
    lines = _resource_lines(centre, part, request)
    if lines:
        options["custom_scheduler_commands"] = "\n".join(lines)
    return options


def _default_account(centre: Centre) -> str | None:
    project = centre.project()
    return project.account if project is not None else None


def _resources(kind: str, part: PartitionBlock, request: Request) -> dict[str, Any]:
    ranks = max(1, request.ranks)
    if kind == "sge":
        if request.ranks > 0 and request.cores > 1:
            # AiiDA's plugin writes `#$ -pe <environment> <ranks>`, and has no word for the cores of a rank. A second
            # -pe makes qsub print a warning in which AiiDA looks for the job's number; so the slots are put here, and
            # the number of ranks ends up in a comment.
            return {
                "parallel_env": f"{part.parallel_environment} {request.slots}\n# ranks:",
                "tot_num_mpiprocs": ranks,
            }
        return {"parallel_env": part.parallel_environment, "tot_num_mpiprocs": request.slots}
    if kind == "lsf":
        return {"tot_num_mpiprocs": ranks if request.ranks > 0 else request.slots}
    nodes = request.nodes(part)
    resources: dict[str, Any] = {"num_machines": nodes, "num_mpiprocs_per_machine": ranks // nodes}
    if kind == "slurm":
        resources["num_cores_per_mpiproc"] = request.cores
    elif kind == "pbs":
        resources["num_cores_per_machine"] = request.cores * (ranks // nodes)
    return resources


def _resource_lines(centre: Centre, part: PartitionBlock, request: Request) -> list[str]:
    """Return directives that AiiDA's plugin of the scheduler has no option for."""
    kind = centre.scheduler.type
    lines = []
    if kind == "sge" and request.memory_gb is not None and centre.scheduler.memory_resource:
        megabytes = math.ceil(request.memory_gb * 1e9 / 1024**2 / request.slots)
        lines.append(f"#$ -l {centre.scheduler.memory_resource}={megabytes}M")
    if kind == "lsf" and request.ranks > 0 and request.cores > 1:
        lines.append(f'#BSUB -R "affinity[core({request.cores})]"')
    if request.gpus:
        lines.append(_gpu_line(centre, part, request))
    return lines + directives(centre, part)


def _gpu_line(centre: Centre, part: PartitionBlock, request: Request) -> str:
    kind = centre.scheduler.type
    nodes = request.nodes(part)
    if part.n_gpus == 0:
        raise CentreError(f"partition '{part.name}' of centre '{centre.id}' has no GPUs")
    each = math.ceil(request.gpus / nodes)
    name = part.gpus.resource or _GPU_RESOURCE[kind]
    return {
        "slurm": f"#SBATCH --gres={name}:{each}",
        "sge": f"#$ -l {name}={request.gpus}",
        "pbs": f"#PBS -l {name}={request.gpus}",
        "lsf": f'#BSUB -gpu "num={each}"',
    }[kind]


def script_header(
    centre: Centre,
    request: Request,
    *,
    name: str,
    partition: str | None = None,
    account: str | None = None,
    output: str = "job.out",
) -> list[str]:
    """Return the first lines of a job script of our own (the doctor's, a pilot's), for Slurm and Grid Engine.

    Raises
    ------
    CentreError
        For other schedulers.
    """
    part = centre.partition(partition)
    kind = centre.scheduler.type
    shebang = "#!/bin/bash -l" if centre.login.use_login_shell else "#!/bin/bash"
    charged = account or part.account or _default_account(centre)
    options: Mapping[str, Any] = job_options(centre, request, partition=part.name, account=account)
    own = str(options.get("custom_scheduler_commands", "")).splitlines()
    if kind == "slurm":
        nodes = request.nodes(part)
        lines = [
            f"#SBATCH --job-name={name}",
            f"#SBATCH --output={output}",
            f"#SBATCH --partition={part.name}",
            f"#SBATCH --nodes={nodes}",
            f"#SBATCH --ntasks-per-node={max(1, request.ranks) // nodes}",
            f"#SBATCH --cpus-per-task={request.cores}",
        ]
        if charged:
            lines.append(f"#SBATCH --account={charged}")
        if part.qos:
            lines.append(f"#SBATCH --qos={part.qos}")
        if request.walltime_s is not None:
            lines.append(f"#SBATCH --time={format_duration(request.walltime_s)}")
        if request.memory_gb is not None:
            lines.append(f"#SBATCH --mem={math.ceil(request.memory_gb * 1e9 / 1024**2 / nodes)}M")
    elif kind == "sge":
        lines = [
            f"#$ -N {name}",
            "#$ -cwd",
            "#$ -S /bin/bash",
            "#$ -j y",
            f"#$ -o {output}",
            f"#$ -q {part.name}",
            f"#$ -pe {part.parallel_environment} {request.slots}",
        ]
        if charged:
            lines.append(f"#$ -P {charged}")
        if request.walltime_s is not None:
            lines.append(f"#$ -l h_rt={_clock(request.walltime_s)}")
    elif kind == "direct":
        lines = []
    else:
        raise CentreError(f"no job script of our own for scheduler '{kind}'")
    return [shebang, *lines, *own]


def _clock(seconds: float) -> str:
    total = round(seconds)
    return f"{total // 3600:02d}:{total % 3600 // 60:02d}:{total % 60:02d}"

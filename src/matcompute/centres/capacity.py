"""The blocks of a profile that say what a centre has: partitions, codes, projects."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from matcompute.centres.blocks import Block, Directive
from matcompute.centres.durations import Duration

__all__ = [
    "ChargeBlock",
    "CodeBlock",
    "ContainerBlock",
    "GpuBlock",
    "PartitionBlock",
    "ProjectBlock",
    "SmokeTestBlock",
]


class GpuBlock(Block):
    """The GPUs of a node."""

    type: str = Field("gpu", description="What they are: H200, A100, MI300, …")
    count: int = Field(0, ge=0, description="GPUs of a node.")
    resource: str | None = Field(
        None,
        description="How a job asks for one, in the scheduler's own name: 'gpu' or 'gpu:a100' (Slurm's gres), "
        "'gpu' (Grid Engine's complex), 'ngpus' (PBS).",
    )


class ChargeBlock(Block):
    """What an hour costs."""

    unit: Literal["core_h", "node_h", "gpu_h"] = "core_h"
    per_hour: float = Field(
        1.0, ge=0, description="Charge of one unit for an hour, in the centre's own currency."
    )


class PartitionBlock(Block):
    """A set of equal nodes: a Slurm partition, a queue elsewhere."""

    name: str = Field(pattern=r"^[^\s,;'\"]+$", description="As the scheduler calls it.")
    nodes: int = Field(1, ge=1)
    cores: int = Field(ge=1, description="Cores of a node that jobs may use.")
    mem_gb: float = Field(gt=0, description="Memory of a node that jobs may use, in GB.")
    gpus: GpuBlock = Field(GpuBlock(), description="GPUs of a node: a number, or type, count and resource.")
    max_wall: Duration | None = Field(None, description="Longest job; none: no limit.")
    max_nodes: int | None = Field(None, ge=1, description="Nodes of one job at most.")
    max_jobs: int | None = Field(None, ge=1, description="Our jobs in this partition at once.")
    charge: ChargeBlock = ChargeBlock()
    account: str | None = Field(None, description="Account used here, in place of the project's.")
    qos: str | None = Field(None, description="Quality of service (Slurm).")
    parallel_environment: str | None = Field(
        None, description="Grid Engine: the parallel environment, such as smp."
    )
    extra_directives: tuple[Directive, ...] = Field((), description="Scheduler directives of every job here.")

    @model_validator(mode="before")
    @classmethod
    def _number_of_gpus(cls, data: Any) -> Any:
        if (
            isinstance(data, dict)
            and isinstance(data.get("gpus"), int)
            and not isinstance(data["gpus"], bool)
        ):
            return {**data, "gpus": {"count": data["gpus"]}}
        return data

    @property
    def n_gpus(self) -> int:
        """GPUs of a node."""
        return self.gpus.count

    @property
    def max_wall_s(self) -> float | None:
        """Longest job, in s; None: no limit."""
        return self.max_wall


class ContainerBlock(Block):
    """The image in which a code runs."""

    engine: str = Field(
        "apptainer",
        description="apptainer, singularity, docker, podman or sarus; or a whole command that contains {image_name}.",
    )
    image: str = Field(description="File or address of the image.")


class SmokeTestBlock(Block):
    """A run that shows that a code works on a compute node."""

    arguments: tuple[str, ...] = Field((), description="Of the executable.")
    expect: str = Field("", description="Regular expression that the output must contain.")
    walltime: Duration = Field(120.0, description="Time of the job.")

    @field_validator("expect")
    @classmethod
    def _compiles(cls, value: str) -> str:
        import re

        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"'{value}' is not a regular expression: {error}") from error
        return value


class CodeBlock(Block):
    """A program of the centre."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", description="Label of the code: name@centre.")
    plugin: str = Field("matcompute.batch", description="AiiDA calculation plugin that it runs.")
    executable: str = Field(description="Absolute path, or a name that the modules put on PATH.")
    modules: tuple[str, ...] = Field(
        (), description="Environment modules of this code, after launch.modules."
    )
    prepend: str = Field("", description="Shell lines before this code, after the modules.")
    container: ContainerBlock | None = None
    partitions: tuple[str, ...] = Field((), description="Partitions where it runs; none given: all.")
    version: str | None = Field(
        None, description="Version that must be found there: equal, or its first parts."
    )
    mpi: bool = Field(
        False, description="Whether it is started by the mpi line (matcompute-node decides by itself)."
    )
    smoke_test: SmokeTestBlock | None = None

    def runs_in(self, partition: str) -> bool:
        """Whether the code may run in a partition."""
        return not self.partitions or partition in self.partitions


class ProjectBlock(Block):
    """An account to which jobs are charged."""

    account: str = Field(pattern=r"^\S+$")
    quota_core_h: float | None = Field(None, ge=0, description="Core-hours granted; none: no limit.")
    default: bool = Field(False, description="Used where a campaign names no project.")
    until: dt.date | None = Field(None, description="Last day of the project.")

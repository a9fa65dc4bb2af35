"""``Centre``: a compute-centre profile, the blocks of design section 5 that are in use."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from matcompute.centres.errors import CentreError
from matcompute.errors import did_you_mean

__all__ = [
    "Centre",
    "CentreBlock",
    "LaunchBlock",
    "LoginBlock",
    "PartitionBlock",
    "SchedulerBlock",
    "StorageBlock",
]

SCHEMA: Literal["matcompute.centre/v1"] = "matcompute.centre/v1"


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CentreBlock(_Block):
    """Who and what."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$", description="Name in campaign files; lower case.")
    title: str = ""
    contact: str = ""
    clearance: Literal["general", "important", "core"] = Field(
        "general", description="Highest data grade that the centre may hold."
    )


class LoginBlock(_Block):
    """How to get there."""

    transport: Literal["local"] = "local"
    safe_interval_s: float = Field(0.0, ge=0, description="Least time between two connections, in s.")


class SchedulerBlock(_Block):
    """How jobs are started and watched."""

    type: Literal["direct"] = "direct"
    poll_interval_s: float = Field(1.0, gt=0, description="Least time between two looks at the queue, in s.")
    max_submitted: int = Field(4, ge=1, description="Batches in flight at once.")


class PartitionBlock(_Block):
    """A set of equal nodes."""

    name: str
    nodes: int = Field(1, ge=1)
    cores: int = Field(ge=1, description="Cores of a node.")
    mem_gb: float = Field(gt=0, description="Memory of a node, in GB.")
    gpus: int = Field(0, ge=0)


class StorageBlock(_Block):
    """Where jobs work."""

    work_dir: str = Field("{workspace}/scratch", description="Folder of the jobs; may contain {workspace}.")


class LaunchBlock(_Block):
    """How programs are started."""

    mpi: str = Field("mpiexec -n {tot_num_mpiprocs}", description="Command in front of an MPI program.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables of every job.")


class Centre(_Block):
    """A compute centre.

    Load one with :meth:`load`, or get the local one with :func:`matcompute.centres.local_centre`.
    """

    schema_: Literal["matcompute.centre/v1"] = Field(SCHEMA, alias="schema")
    centre: CentreBlock
    login: LoginBlock = LoginBlock()
    scheduler: SchedulerBlock = SchedulerBlock()
    partitions: tuple[PartitionBlock, ...] = Field(min_length=1)
    storage: StorageBlock = StorageBlock()
    launch: LaunchBlock = LaunchBlock()

    @property
    def id(self) -> str:
        """Name in campaign files."""
        return self.centre.id

    @property
    def title(self) -> str:
        """Name for people."""
        return self.centre.title or self.centre.id

    @property
    def clearance(self) -> str:
        """Highest data grade that the centre may hold."""
        return self.centre.clearance

    @property
    def cores(self) -> int:
        """Cores of all nodes."""
        return sum(part.nodes * part.cores for part in self.partitions)

    @property
    def cores_per_node(self) -> int:
        """Cores of the largest node."""
        return max(part.cores for part in self.partitions)

    @property
    def memory_gb(self) -> float:
        """Memory of the largest node, in GB."""
        return max(part.mem_gb for part in self.partitions)

    @property
    def window(self) -> int:
        """Batches in flight at once."""
        return self.scheduler.max_submitted

    @property
    def poll_interval_s(self) -> float:
        """Least time between two looks at the queue, in s."""
        return self.scheduler.poll_interval_s

    @classmethod
    def load(cls, path: Path) -> Centre:
        """Read a centre's YAML file.

        Raises
        ------
        CentreError
            Lists every problem with its key, what was expected and the nearest known key.
        """
        import yaml

        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CentreError(f"cannot read {path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise CentreError(f"{path} is not valid YAML: {error}") from error
        if not isinstance(data, dict):
            raise CentreError(f"{path}: expected a mapping of blocks, found {type(data).__name__}")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise CentreError(f"{path}: " + "; ".join(_describe(item) for item in error.errors())) from error


def _describe(item: object) -> str:
    assert isinstance(item, dict)
    location = item["loc"]
    key = ".".join(str(part) for part in location) or "(top level)"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key{did_you_mean(str(location[-1]), _known(location[:-1]))}"
    found = "" if item["type"] == "missing" else f", found {item['input']!r}"
    return f"{key}: {item['msg']}{found}"


def _known(location: tuple[object, ...]) -> list[str]:
    blocks: dict[str, type[BaseModel]] = {
        "centre": CentreBlock,
        "login": LoginBlock,
        "scheduler": SchedulerBlock,
        "partitions": PartitionBlock,
        "storage": StorageBlock,
        "launch": LaunchBlock,
    }
    model = blocks.get(str(location[0]), Centre) if location else Centre
    return [field.alias or name for name, field in model.model_fields.items()]

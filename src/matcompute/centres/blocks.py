"""The blocks of a compute-centre profile (design section 5): who, how to get there, and how jobs are started."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from matcompute.centres.durations import Duration

__all__ = [
    "AuthBlock",
    "Block",
    "CentreBlock",
    "LaunchBlock",
    "LoginBlock",
    "PilotBlock",
    "SchedulerBlock",
    "StorageBlock",
    "VariableBlock",
]


class Block(BaseModel):
    """A part of a profile: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_line(text: str) -> str:
    if "\n" in text.strip() or not text.strip():
        raise ValueError("expected one line of text; give each directive an item of its own")
    return text.strip()


#: One line of a job script, such as ``#SBATCH --constraint=ib``.
Directive = Annotated[str, AfterValidator(_one_line)]
#: A name that may stand in a shell command, such as an environment variable's.
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class CentreBlock(Block):
    """Who and what."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$", description="Name in campaign files; lower case.")
    title: str = Field("", description="Name for people.")
    contact: str = Field("", description="Whom to ask.")
    url: str = Field("", description="The centre's own pages.")
    clearance: Literal["general", "important", "core"] = Field(
        "general", description="Highest data grade that the centre may hold."
    )


class VariableBlock(Block):
    """A value that differs from user to user; `{name}` in any text of the profile stands for it."""

    prompt: str = Field("", description="The question asked when the centre is registered.")
    default: str | None = Field(None, description="The value when none is given.")


class AuthBlock(Block):
    """How to log in. A profile holds no secret: keys are files, pass phrases are the agent's."""

    method: Literal["agent", "key", "mfa-script"] = Field(
        "agent",
        description="agent: what your ssh uses anyway (agent, ~/.ssh). key: the key of key_file and no other. "
        "mfa-script: run a script first that obtains a key or opens the connection.",
    )
    key_file: str | None = Field(
        None, description="Private key, without pass phrase or with it in the agent."
    )
    script: str | None = Field(
        None, description="Executable on this machine, run when there is no open connection."
    )
    known_hosts: str | None = Field(
        None, description="File of the login hosts' keys; by default your own ~/.ssh/known_hosts."
    )

    @model_validator(mode="after")
    def _complete(self) -> AuthBlock:
        if self.method == "key" and not self.key_file:
            raise ValueError("method 'key' needs key_file: the path of the private key")
        if self.method == "mfa-script" and not self.script:
            raise ValueError("method 'mfa-script' needs script: an executable that obtains the login")
        return self


class LoginBlock(Block):
    """How to get there."""

    transport: Literal["local", "ssh", "firecrest"] = Field(
        "local", description="local: this machine. ssh: OpenSSH. firecrest: the centre's HTTP interface."
    )
    hosts: tuple[str, ...] = Field(
        ("localhost",),
        min_length=1,
        description="Login hosts: the first that answers is used; when it fails, another one.",
    )
    port: int = Field(22, ge=1, le=65535, description="Of sshd.")
    user: str | None = Field(None, description="User name there; by default what your ssh would use.")
    proxy_jump: str | None = Field(
        None, description="Hosts to pass through, as in ssh -J: [user@]host[:port][,…]."
    )
    auth: AuthBlock = AuthBlock()
    url: str | None = Field(None, description="Address of the FirecREST interface.")
    max_connections: int = Field(
        1,
        ge=1,
        le=16,
        description="Connections to a login host; AiiDA has up to six sessions over each.",
    )
    connect_timeout_s: float = Field(
        20.0, gt=0, description="Give up connecting after so long, in s.", examples=[20]
    )
    safe_interval_s: float = Field(0.0, ge=0, description="Least time between two connections, in s.")
    use_login_shell: bool = Field(
        False, description="Run commands in a login shell (bash -l): where PATH comes from profile files."
    )

    @model_validator(mode="after")
    def _complete(self) -> LoginBlock:
        if self.transport == "firecrest" and not self.url:
            raise ValueError("transport 'firecrest' needs url: the address of the interface")
        return self


class SchedulerBlock(Block):
    """How jobs are started and watched."""

    type: Literal["direct", "slurm", "sge", "pbs", "lsf"] = "direct"
    poll_interval_s: float = Field(1.0, gt=0, description="Least time between two looks at the queue, in s.")
    submit_per_min: float | None = Field(None, gt=0, description="Submissions in a minute at most.")
    max_submitted: int = Field(4, ge=1, description="Our batches in flight at once.")
    max_user_jobs: int | None = Field(
        None, ge=1, description="Jobs of the user at once, those from elsewhere counted too."
    )
    max_array: int | None = Field(None, ge=1, description="Longest job array.")
    accounting: Literal["auto", "sacct", "qacct", "none"] = Field(
        "auto", description="Where used core-hours are read: auto tries what the scheduler has."
    )
    memory_resource: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Grid Engine: the consumable by which memory is asked, a slot, such as h_vmem or mem_free.",
    )


class StorageBlock(Block):
    """Where jobs work."""

    work_dir: str = Field(
        "{workspace}/scratch",
        description="Folder of the jobs, seen by login and compute nodes; may contain {workspace} and {username}.",
    )
    quota_gb: float | None = Field(None, gt=0, description="Space that you may use there.")
    max_files: int | None = Field(None, ge=1, description="Files that you may have there.")
    stash_dir: str | None = Field(
        None,
        description="Folder that is never purged, for files of first-principles jobs that a campaign wants kept.",
    )
    purge_days: float | None = Field(None, gt=0, description="Files untouched for so long are deleted.")
    min_free_gb: float = Field(1.0, ge=0, description="Less free space than this counts as a full disk.")


class LaunchBlock(Block):
    """How programs are started."""

    mpi: str = Field(
        "mpiexec -n {tot_num_mpiprocs}",
        description="Command in front of an MPI program; {tot_num_mpiprocs}, {num_machines}, "
        "{num_mpiprocs_per_machine} are filled in.",
    )
    env: dict[VariableName, str] = Field(
        default_factory=dict, description="Environment variables of every job."
    )
    modules: tuple[str, ...] = Field((), description="Environment modules loaded in every job.")
    prepend: str = Field("", description="Shell lines at the start of every job, after the modules.")
    append: str = Field("", description="Shell lines at the end of every job.")
    extra_directives: tuple[Directive, ...] = Field(
        (), description="Scheduler directives of every job, as they stand in a script: '#SBATCH --exclusive'."
    )

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, data: Any) -> Any:
        """Take numbers as they are written; a truth value would lose its spelling."""
        if isinstance(data, dict) and isinstance(data.get("env"), dict):
            env = {}
            for name, value in data["env"].items():
                if isinstance(value, bool):
                    raise ValueError(f"env.{name}: quote the value: '{str(value).lower()}'")
                env[name] = str(value) if isinstance(value, int | float) else value
            return {**data, "env": env}
        return data


class PilotBlock(Block):
    """A Dask worker job for kernel stages."""

    partition: str | None = Field(None, description="Partition of the pilots; the first by default.")
    cores: int | None = Field(None, ge=1, description="Cores of a pilot; a whole node by default.")
    processes: int = Field(1, ge=1, description="Worker processes of a pilot.")
    memory_gb: float | None = Field(
        None, gt=0, description="Memory of a pilot; its share of the node by default."
    )
    walltime: Duration | None = Field(
        None, description="Time of a pilot; the partition's max_wall by default."
    )
    interface: str | None = Field(
        None, description="Network interface that the nodes see one another by: ib0."
    )
    local_directory: str | None = Field(None, description="Where workers spill; node-local and quick.")
    max_jobs: int = Field(1, ge=1, description="Pilots at once.")

"""``Centre``: a compute-centre profile (design section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, model_validator

from matcompute.centres.blocks import (
    AuthBlock,
    Block,
    CentreBlock,
    LaunchBlock,
    LoginBlock,
    PilotBlock,
    SchedulerBlock,
    StorageBlock,
    VariableBlock,
    VariableName,
)
from matcompute.centres.capacity import (
    ChargeBlock,
    CodeBlock,
    ContainerBlock,
    GpuBlock,
    PartitionBlock,
    ProjectBlock,
    SmokeTestBlock,
)
from matcompute.centres.errors import CentreError, CentreFileError
from matcompute.centres.variables import fill, placeholders, variable_problems
from matcompute.errors import InputError, did_you_mean
from matcompute.modelproblems import validation_problems
from matcompute.yamlfile import LocatedYaml, Problem, load_yaml

__all__ = [
    "NODE_PROGRAM",
    "SCHEMA",
    "AuthBlock",
    "Centre",
    "CentreBlock",
    "ChargeBlock",
    "CodeBlock",
    "ContainerBlock",
    "GpuBlock",
    "LaunchBlock",
    "LoginBlock",
    "PartitionBlock",
    "PilotBlock",
    "ProjectBlock",
    "SchedulerBlock",
    "SmokeTestBlock",
    "StorageBlock",
    "VariableBlock",
]

SCHEMA: Literal["matcompute.centre/v1"] = "matcompute.centre/v1"
#: The code that every centre needs.
NODE_PROGRAM = "matcompute-node"
_HINT = "`matcompute centre schema` prints all keys as a JSON Schema"
_READER = {"reader": True}


class Centre(Block):
    """A compute centre.

    Load one with :meth:`load`, or get a registered one with :func:`matcompute.centres.load_centre`.
    """

    schema_: Literal["matcompute.centre/v1"] = Field(SCHEMA, alias="schema")
    centre: CentreBlock
    variables: dict[VariableName, VariableBlock] = Field(
        default_factory=dict, description="Values that differ from user to user."
    )
    login: LoginBlock = LoginBlock()
    scheduler: SchedulerBlock = SchedulerBlock()
    partitions: tuple[PartitionBlock, ...] = Field(min_length=1)
    storage: StorageBlock = StorageBlock()
    launch: LaunchBlock = LaunchBlock()
    codes: tuple[CodeBlock, ...] = Field((), description="Programs; matcompute-node among them.")
    projects: tuple[ProjectBlock, ...] = Field((), description="Accounts to which jobs are charged.")
    pilot: PilotBlock = PilotBlock()

    _detected: bool = PrivateAttr(False)

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Centre:
        # A file's reader asks for the problems itself: it knows their lines.
        problems = [] if info.context == _READER else [message for _, message in self.cross_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    # ------------------------------------------------------------------ what others ask
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
    def is_local(self) -> bool:
        """Whether jobs run on this machine without a scheduler, sharing its core slots."""
        return self.login.transport == "local" and self.scheduler.type == "direct"

    @property
    def detected(self) -> bool:
        """Whether nobody has written a profile: what this machine happens to have. Used where there is nothing else."""
        return self._detected

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
    def window_singles(self) -> int:
        """Jobs of per-structure stages in flight at once on this machine: many, as the core slots hold them back."""
        given = "max_submitted" in self.scheduler.model_fields_set and not self.detected
        return self.scheduler.max_submitted if given else 4 * self.cores + 8

    @property
    def poll_interval_s(self) -> float:
        """Least time between two looks at the queue, in s."""
        return self.scheduler.poll_interval_s

    def partition(self, name: str | None = None) -> PartitionBlock:
        """Return a partition by name; the first by default.

        Raises
        ------
        CentreError
            If there is none of that name.
        """
        if name is None:
            return self.partitions[0]
        for part in self.partitions:
            if part.name == name:
                return part
        known = [part.name for part in self.partitions]
        raise CentreError(f"centre '{self.id}' has no partition '{name}'{did_you_mean(name, known)}")

    def code(self, name: str = NODE_PROGRAM) -> CodeBlock | None:
        """Return a code by name, or None."""
        return next((code for code in self.codes if code.name == name), None)

    def project(self, account: str | None = None) -> ProjectBlock | None:
        """Return a project by account; by default the one marked so, else the first; None where there are none.

        Raises
        ------
        CentreError
            If there is none of that account.
        """
        if account is None:
            return next((item for item in self.projects if item.default), next(iter(self.projects), None))
        for item in self.projects:
            if item.account == account:
                return item
        known = [item.account for item in self.projects]
        raise CentreError(f"centre '{self.id}' has no project '{account}'{did_you_mean(account, known)}")

    @property
    def unfilled(self) -> list[str]:
        """Variables of the profile that still have no value."""
        names = {name for _, name in placeholders(self.model_dump(exclude={"variables"}))}
        return sorted(names & set(self.variables))

    # ------------------------------------------------------------------ checks over several blocks
    def cross_problems(self) -> list[tuple[tuple[str | int, ...], str]]:
        """Return what is wrong between blocks, each with the key path where it is best mended."""
        found: list[tuple[tuple[str | int, ...], str]] = []
        names = [part.name for part in self.partitions]
        for kind, items in (
            ("partitions", names),
            ("codes", [code.name for code in self.codes]),
            ("projects", [item.account for item in self.projects]),
        ):
            for index, name in enumerate(items):
                if name in items[:index]:
                    found.append(
                        ((kind, index), f"another of the {kind} is called '{name}'; names are unique")
                    )
        for index, code in enumerate(self.codes):
            for place, name in enumerate(code.partitions):
                if name not in names:
                    found.append(
                        (
                            ("codes", index, "partitions", place),
                            f"no partition '{name}'{did_you_mean(name, names)}",
                        )
                    )
        if self.pilot.partition is not None and self.pilot.partition not in names:
            hint = did_you_mean(self.pilot.partition, names)
            found.append((("pilot", "partition"), f"no partition '{self.pilot.partition}'{hint}"))
        if self.login.transport != "local" and self.code() is None:
            found.append(
                (
                    ("codes",),
                    f"'{NODE_PROGRAM}' must be among the codes: the executable as it is called there",
                )
            )
        if not self.storage.work_dir.startswith(("/", "{")):
            found.append((("storage", "work_dir"), f"'{self.storage.work_dir}' is not an absolute path"))
        if self.scheduler.type == "sge":
            for index, part in enumerate(self.partitions):
                if part.parallel_environment is None:
                    found.append(
                        (
                            ("partitions", index),
                            f"Grid Engine needs parallel_environment for '{part.name}'; `qconf -spl` lists them",
                        )
                    )
        if sum(item.default for item in self.projects) > 1:
            found.append((("projects",), "only one project can be the default"))
        return found

    # ------------------------------------------------------------------ reading
    @classmethod
    def load(cls, path: Path, values: Mapping[str, str] | None = None) -> Centre:
        """Read a centre's YAML file.

        Parameters
        ----------
        path
            The file.
        values
            Values of its variables; defaults come in where none is given, and a variable without either stays as
            ``{name}`` (see :attr:`unfilled`).

        Raises
        ------
        CentreError
            Lists every problem with line, key, what was expected and the nearest known key.
        """
        return cls.from_yaml(read_yaml(path), values)

    @classmethod
    def from_yaml(cls, file: LocatedYaml, values: Mapping[str, str] | None = None) -> Centre:
        """Make a centre of a file that was read; see :meth:`load`."""
        values = dict(values or {})
        problems: list[Problem] = [*file.problems, *variable_problems(file, values)]
        try:
            centre = cls.model_validate(fill(file.data, {**_defaults(file.data), **values}), context=_READER)
            problems += [file.problem(path, message) for path, message in centre.cross_problems()]
        except ValidationError as error:
            raise CentreFileError(
                file.path, [*problems, *validation_problems(error, cls, file, ())], _HINT
            ) from error
        if problems:
            raise CentreFileError(file.path, problems, _HINT)
        return centre


def read_yaml(path: Path) -> LocatedYaml:
    """Read the YAML of a profile, with lines; what it says is checked by :meth:`Centre.from_yaml`.

    Raises
    ------
    CentreError
        If the file is missing or no YAML mapping.
    """
    try:
        file = load_yaml(Path(path))
    except InputError as error:
        raise CentreError(error.message, error.hint) from error
    if not isinstance(file.data, dict):
        raise CentreFileError(
            path, [file.problem((), f"expected a mapping that begins with 'schema: {SCHEMA}'")], _HINT
        )
    if "schema" not in file.data:
        file.problems.append(file.problem((), f"the key 'schema' is missing; begin with 'schema: {SCHEMA}'"))
    return file


def _defaults(data: dict[str, Any]) -> dict[str, str]:
    declared = data.get("variables")
    if not isinstance(declared, dict):
        return {}
    return {
        name: str(item["default"])
        for name, item in declared.items()
        if isinstance(item, dict) and item.get("default") is not None
    }

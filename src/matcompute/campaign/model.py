"""The campaign file ``matcompute.campaign/v1``: what is computed, from which structures, for whom."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from matcompute.campaign.vocabulary import DOMAINS, GRADES, TIERS, check_licence, check_orcid
from matcompute.errors import InputError
from matcompute.modelproblems import FileProblems
from matcompute.structures.spec import StructuresSpec
from matcompute.units import parse_quantity
from matcompute.yamlfile import KeyPath, LocatedYaml, Problem, format_key

__all__ = [
    "SCHEMA",
    "Budget",
    "Calculator",
    "Campaign",
    "CampaignFileError",
    "Classification",
    "Contributor",
    "Placement",
    "Resources",
    "Stage",
]

#: Value of the ``schema`` key.
SCHEMA = "matcompute.campaign/v1"


class CampaignFileError(FileProblems):
    """A campaign file has problems; all of them are listed."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _quantity(unit: str) -> Any:
    """A pydantic type: a float in ``unit``, that may be written with any unit of the same dimension."""
    from pydantic import BeforeValidator

    def read(value: Any) -> Any:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                return parse_quantity(value, unit)
            except InputError as error:
                raise ValueError(str(error)) from error
        return value

    return Annotated[
        float,
        BeforeValidator(read, json_schema_input_type=float | str),
        Field(json_schema_extra={"unit": unit}),
    ]


class Classification(_Part):
    """How sensitive the data are, and who may read them."""

    grade: Literal[GRADES] = Field(  # type: ignore[valid-type]
        default="general", description="Data grade after GB/T 43697-2024; a merge takes the highest."
    )
    tier: Literal[TIERS] = Field(  # type: ignore[valid-type]
        default="public", description="Readers: everyone, or members from a level up."
    )


class Contributor(_Part):
    """Somebody who made the campaign."""

    name: str = Field(min_length=1, description="As it should be cited.")
    orcid: Annotated[str, AfterValidator(check_orcid)] | None = Field(
        default=None, description="ORCID iD, with or without https://orcid.org/; its check digit is verified."
    )
    affiliation: str | None = None
    email: str | None = Field(default=None, pattern=r"^[^@\s]+@[^@\s]+$")
    role: str | None = Field(
        default=None, description="For example ContactPerson or DataCollector (DataCite)."
    )


class Budget(_Part):
    """What the campaign may use."""

    core_hours: float | None = Field(
        default=None, gt=0, description="The dispatcher stops submitting when this much was used."
    )


class Placement(_Part):
    """Where a campaign may run. A list of centre ids is short for ``allow``."""

    allow: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Ids of the centres where it may run; by default all of the workspace that are cleared for it.",
    )
    deny: list[str] = Field(default_factory=list, description="Ids of centres where it may not run.")
    strategy: Literal["fastest", "cheapest", "balanced"] = Field(
        default="balanced",
        description="fastest: what ends soonest. cheapest: what is charged least. balanced: both are weighed.",
    )
    projects: dict[str, str] = Field(
        default_factory=dict,
        description="Centre id → account that is charged there; by default the centre's default project.",
    )

    def chosen(self, known: Iterable[str]) -> list[str]:
        """Return those of the known centres where the campaign may run, in their order."""
        return [
            name for name in known if (self.allow is None or name in self.allow) and name not in self.deny
        ]


class Resources(_Part):
    """What one batch of a stage asks from a centre."""

    processes: int = Field(default=1, ge=1, description="Worker processes a batch (ignored with ranks > 0).")
    threads: int = Field(default=1, ge=1, description="Threads a process or rank.")
    ranks: int = Field(default=0, ge=0, description="MPI ranks; 0 runs plain processes without MPI.")
    gpus: int = Field(default=0, ge=0, description="GPUs a batch.")
    memory: _quantity("GB") | None = Field(default=None, gt=0, description="Memory a batch.")  # type: ignore[valid-type]
    walltime: _quantity("s") | None = Field(  # type: ignore[valid-type]
        default=None, gt=0, description="Longest run of one batch; what is left continues in a new job."
    )

    @property
    def cores(self) -> int:
        """Cores that one batch occupies."""
        return (self.ranks or self.processes) * self.threads


class Calculator(_Part):
    """What gives energies and forces, with its parameters in canonical units."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class Stage(_Part):
    """One stage: a task on every structure, or a gate that chooses among them.

    Attributes
    ----------
    name
        Unique in the campaign; ``<stage>__<column>`` names its columns.
    kind
        Task or gate.
    parameters
        The task's or gate's own parameters, all of them, in canonical units.
    calculator, resources, batch_size
        Of compute stages; ``batch_size`` None: chosen from the estimated cost.
    line
        Where the stage stands in the file.
    """

    name: str
    kind: str
    is_gate: bool
    parameters: dict[str, Any] = Field(default_factory=dict)
    calculator: Calculator | None = None
    resources: Resources = Field(default_factory=Resources)
    batch_size: int | None = Field(default=None, ge=1)
    line: int = 1


class CampaignHeader(_Part):
    """The keys of a campaign file that do not depend on installed adapters; see :class:`Campaign`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["matcompute.campaign/v1"] = Field(alias="schema", description="Version of this format.")
    name: str = Field(
        pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$",
        max_length=63,
        description="Short name: lower-case letters, digits and single hyphens. Files are named after it.",
    )
    title: str = Field(min_length=1, description="One line for people.")
    description: str | None = Field(default=None, description="As long as needed.")
    domain: Literal[DOMAINS] = Field(description="Field of materials science.")  # type: ignore[valid-type]
    classification: Classification = Field(default_factory=Classification)
    licence: Annotated[str, AfterValidator(check_licence)] = Field(
        description="SPDX identifier or expression, for example CC-BY-4.0; `license` is accepted too."
    )
    contributors: list[Contributor] = Field(min_length=1)
    keywords: list[str] = Field(default_factory=list)
    centres: Placement = Field(
        default_factory=Placement,
        description="Where it may run: a list of centre ids, or allow, deny, strategy.",
    )
    budget: Budget = Field(default_factory=Budget)

    @field_validator("centres", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"allow": value} if isinstance(value, list) else value

    @field_validator("centres")
    @classmethod
    def _unique(cls, value: Placement) -> Placement:
        for names in (value.allow or [], value.deny):
            if len(set(names)) != len(names):
                raise ValueError("a centre is named twice")
        both = sorted(set(value.allow or ()) & set(value.deny))
        if both:
            raise ValueError(f"'{both[0]}' is both allowed and denied")
        return value


class Campaign(CampaignHeader):
    """A campaign, read from a file and checked.

    Use :meth:`load`. All quantities are in canonical units.
    """

    structures: list[StructuresSpec] = Field(min_length=1)
    stages: list[Stage] = Field(min_length=1)

    _path: Path = PrivateAttr(default=Path("campaign.yaml"))
    _file: LocatedYaml | None = PrivateAttr(default=None)

    @classmethod
    def load(cls, path: Path | str) -> Campaign:
        """Read and check a campaign file; nothing but the file itself is read.

        Raises
        ------
        CampaignFileError
            With every problem of the file: line, key, what was expected, the nearest valid spelling.
        InputError
            If the file cannot be read or is no YAML.
        """
        from matcompute.campaign.reader import read_campaign

        return read_campaign(Path(path))

    @property
    def path(self) -> Path:
        """The file that the campaign was read from."""
        return self._path

    @property
    def base_dir(self) -> Path:
        """Folder that relative paths in the file start from."""
        return self._path.absolute().parent

    def problem(self, key: KeyPath, message: str) -> Problem:
        """Return a :class:`Problem` at a key of the file."""
        if self._file is None:
            return Problem(0, 0, format_key(key), message)
        return self._file.problem(key, message)

    @property
    def grade(self) -> str:
        """The data grade."""
        return str(self.classification.grade)

    def stage(self, name: str) -> Stage:
        """Return a stage by name.

        Raises
        ------
        InputError
            If there is none; the nearest name is given.
        """
        from matcompute.errors import did_you_mean

        for stage in self.stages:
            if stage.name == name:
                return stage
        raise InputError(
            f"campaign '{self.name}' has no stage '{name}'{did_you_mean(name, [s.name for s in self.stages])}"
        )

    @property
    def wants_references(self) -> bool:
        """Whether a hull stage asks for elemental ground states that the structures lack."""
        return any(
            stage.kind == "hull" and stage.is_gate and stage.parameters.get("add_elements", True)
            for stage in self.stages
        )

    @property
    def reference_files(self) -> dict[str, Path]:
        """Files of reference entries, by the name of the hull stage that reads them."""
        return {
            stage.name: self.base_dir / stage.parameters["references"]
            for stage in self.stages
            if stage.is_gate and stage.parameters.get("references")
        }

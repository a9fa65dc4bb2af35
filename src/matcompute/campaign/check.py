"""``campaign check``: everything that can be known to be wrong before anything runs. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from matcompute.campaign.adapters import (
    calculator_adapter,
    is_per_structure,
    stage_parameters,
    supported_species,
)
from matcompute.campaign.columns import stage_descriptor
from matcompute.campaign.model import Campaign, CampaignFileError
from matcompute.campaign.potentials import per_structure_problems, potentials
from matcompute.campaign.resolution import facts_of, resolve_stage
from matcompute.campaign.vocabulary import GRADES, grade_rank
from matcompute.errors import InputError, did_you_mean
from matcompute.yamlfile import Problem
from matcompute_kernels.elements import SYMBOLS

if TYPE_CHECKING:
    from matcompute.structures import IngestReport

__all__ = [
    "CentreLike",
    "CheckResult",
    "check_campaign",
    "default_centres",
    "read_structures",
    "static_problems",
    "usable_centres",
]


#: Bytes of a descriptor over all structures that are worth a warning.
_LARGE = 20e9


class CentreLike(Protocol):
    """What a check needs to know of a compute centre."""

    @property
    def clearance(self) -> str: ...

    @property
    def cores(self) -> int: ...


@dataclass
class CheckResult:
    """A campaign that can run, and what its author should know.

    Attributes
    ----------
    campaign
        The campaign.
    structures
        What was read; None if structures were not asked for.
    warnings
        Allowed, but perhaps not meant.
    """

    campaign: Campaign
    structures: IngestReport | None
    warnings: list[Problem] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "campaign": self.campaign.name,
            "file": str(self.campaign.path),
            "stages": [stage.name for stage in self.campaign.stages],
            "structures": None if self.structures is None else self.structures.as_dict(),
            "warnings": [{"line": w.line, "key": w.key, "message": w.message} for w in self.warnings],
        }


def default_centres() -> dict[str, CentreLike]:
    """Return the known centres by id: those of the workspace around the current folder, else this machine.

    Raises
    ------
    CentreError
        If the profile of a registered centre is wrong.
    """
    from matcompute.centres import detect
    from matcompute.centres.registry import load_centres
    from matcompute.workspace import Workspace, WorkspaceError

    try:
        return dict(load_centres(Workspace.find()))
    except WorkspaceError:  # a campaign can be checked before there is a workspace
        return {"local": detect()}


def check_campaign(
    campaign: Campaign,
    *,
    centres: Mapping[str, CentreLike] | None = None,
    structures: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> CheckResult:
    """Check a campaign against what is installed, its files, its centres and its structures.

    Parameters
    ----------
    campaign
        Already loaded, so its keys and values are right.
    centres
        Known centres by id; this machine by default.
    structures
        Also read all structures, to name those that are bad and species that a calculator does not know.
    on_progress
        Called with the number of structures read so far.

    Raises
    ------
    CampaignFileError
        With every problem found.
    """
    centres = default_centres() if centres is None else centres
    problems = static_problems(campaign, centres)
    if problems:
        raise CampaignFileError(campaign.path, problems)
    warnings = static_warnings(campaign)
    report = None
    if structures:
        report = read_structures(campaign, on_progress=on_progress)
        found, more = structure_problems(campaign, report)
        if found:
            raise CampaignFileError(campaign.path, found)
        warnings += more
    return CheckResult(campaign, report, sorted(warnings))


def read_structures(campaign: Campaign, *, on_progress: Callable[[int], None] | None = None) -> IngestReport:
    """Read, screen and dedupe a campaign's structures without writing them."""
    from matcompute.structures import ingest

    return ingest(
        campaign.structures,
        campaign.base_dir,
        None,
        campaign_file=campaign.path,
        references="auto" if campaign.wants_references else None,
        on_progress=on_progress,
    )


def static_problems(campaign: Campaign, centres: Mapping[str, CentreLike]) -> list[Problem]:
    """Return the problems that need no structure to be read."""
    problems: list[Problem] = []
    for index, spec in enumerate(campaign.structures):
        try:
            spec.files(campaign.base_dir)
        except InputError as error:
            message = error.message.removeprefix(f"line {spec.line}: ")
            problems.append(campaign.problem(("structures", index, spec.kind), message))
    problems += _centre_problems(campaign, centres)
    usable = {name: centres[name] for name in usable_centres(campaign, centres)}
    for index, stage in enumerate(campaign.stages):
        key = ("stages", index, stage.kind)
        if stage.is_gate:
            path = campaign.reference_files.get(stage.name)
            if path is not None and not path.is_file():
                problems.append(
                    campaign.problem((*key, "references"), f"no such file: {stage.parameters['references']}")
                )
            continue
        adapter = None if stage.calculator is None else calculator_adapter(stage.calculator.name)
        available = getattr(adapter, "available", None)
        if stage.calculator is not None and available is not None and not available():
            package = getattr(adapter, "package", stage.calculator.name)
            problems.append(
                campaign.problem(
                    (*key, "calculator"),
                    f"calculator '{stage.calculator.name}' needs the package {package}, which is not installed here",
                )
            )
        problems += per_structure_problems(campaign, stage, key, usable)
        largest = max((centres[name].cores for name in campaign.centres.chosen(centres)), default=0)
        if largest and stage.resources.cores > largest:
            problems.append(
                campaign.problem(
                    (*key, "resources"),
                    f"a batch asks for {stage.resources.cores} cores; the largest of its centres has {largest}",
                )
            )
    return problems


def _centre_problems(campaign: Campaign, centres: Mapping[str, CentreLike]) -> list[Problem]:
    problems = []
    placement = campaign.centres
    for index, name in enumerate(placement.allow or ()):
        key = _place(campaign, "allow", index)
        if name not in centres:
            problems.append(campaign.problem(key, f"unknown centre '{name}'{did_you_mean(name, centres)}"))
        elif not _cleared(campaign, centres[name]):
            problems.append(
                campaign.problem(
                    key,
                    f"centre '{name}' is cleared for '{centres[name].clearance}' data, the campaign is graded "
                    f"'{campaign.grade}' ({' < '.join(GRADES)}); choose a centre with a higher clearance",
                )
            )
    unknown = [("deny", index, name) for index, name in enumerate(placement.deny)]
    unknown += [("projects", name, name) for name in placement.projects]  # type: ignore[misc]
    problems += [
        campaign.problem(("centres", block, where), f"unknown centre '{name}'{did_you_mean(name, centres)}")
        for block, where, name in unknown
        if name not in centres
    ]
    for name, account in placement.projects.items():
        known = [item.account for item in getattr(centres.get(name), "projects", ())]
        if name in centres and account not in known:
            text = f"centre '{name}' has no project '{account}'{did_you_mean(account, known)}"
            problems.append(campaign.problem(("centres", "projects", name), text))
    if not problems and not usable_centres(campaign, centres):
        problems.append(
            campaign.problem(
                ("centres",),
                f"no centre is left: {', '.join(centres) or 'none is registered'}; the campaign is graded "
                f"'{campaign.grade}'"
                + (f" and denies {', '.join(placement.deny)}" if placement.deny else ""),
            )
        )
    return problems


def _place(campaign: Campaign, block: str, index: int) -> tuple[str | int, ...]:
    """Where the file names a centre: in a list, or in a mapping's block."""
    file = campaign._file
    short = file is None or not isinstance(file.data.get("centres"), dict)
    return ("centres", index) if short else ("centres", block, index)


def _cleared(campaign: Campaign, centre: CentreLike) -> bool:
    return grade_rank(centre.clearance) >= grade_rank(campaign.grade)


def usable_centres(campaign: Campaign, centres: Mapping[str, CentreLike]) -> list[str]:
    """Return the ids of the centres where a campaign may run: allowed, not denied, cleared for its grade.

    The workspace's own machine is left out where others are registered, unless it has a profile or is named.
    """
    known = list(centres)
    if campaign.centres.allow is None and len(centres) > 1:
        known = [name for name in known if not getattr(centres[name], "detected", False)]
    return [name for name in campaign.centres.chosen(known) if _cleared(campaign, centres[name])]


def static_warnings(campaign: Campaign) -> list[Problem]:
    """Return what is allowed but perhaps not meant."""
    warnings = []
    for index, stage in enumerate(campaign.stages):
        if not stage.is_gate and stage.resources.ranks and stage.resources.processes > 1:
            key = ("stages", index, stage.kind, "resources", "processes")
            warnings.append(campaign.problem(key, "ignored, since 'ranks' asks for MPI"))
    if all(stage.is_gate for stage in campaign.stages):
        warnings.append(campaign.problem(("stages",), "no stage computes anything"))
    return warnings


def structure_problems(campaign: Campaign, report: IngestReport) -> tuple[list[Problem], list[Problem]]:
    """Return (problems, warnings) of a campaign with its structures: species that a calculator does not know.

    It is a problem if elements that the campaign file itself names are unknown, or if nothing would be left; it is a
    warning if some structures of a file hold such species, since these get the status ``unsupported_species``.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    named = _named_elements(campaign)
    for index, stage in enumerate(campaign.stages):
        if stage.is_gate or stage.calculator is None:
            continue
        own = stage.calculator
        if is_per_structure(stage):
            covered = potentials(stage)
            species = None if covered is None else frozenset(SYMBOLS.index(symbol) for symbol in covered)
        else:
            species = supported_species(calculator_adapter(own.name), own.parameters)
        if species is None:
            continue
        name, key = stage.calculator.name, ("stages", index, stage.kind, "calculator")
        count, missing, example = report.unsupported(species)
        if not count or example is None:
            continue
        symbols = [SYMBOLS[z] for z in sorted(missing)]
        lacks = "has no pseudopotential of" if is_per_structure(stage) else "does not know"
        what = f"calculator '{name}' {lacks} {', '.join(symbols)}"
        where = (
            f"{count} of {report.n_kept} structures, the first is {example[0]} ({example[1]}:{example[2]})"
        )
        asked = [symbol for symbol in symbols if symbol in named]
        if asked:
            line = named[asked[0]]
            fix = f"`exclude: [{', '.join(asked)}]` in `structures` on line {line}, or choose another calculator"
            problems.append(campaign.problem(key, f"{what}: {where}; {fix}"))
        elif count == report.n_kept:
            problems.append(campaign.problem(key, f"{what}: nothing would be computed"))
        else:
            warnings.append(
                campaign.problem(key, f"{what}: {where}; they get the status unsupported_species")
            )
    found, more = _resolution_problems(campaign, report)
    problems, warnings = problems + found, warnings + more
    for reference in report.unknown_references:
        gate = next(i for i, stage in enumerate(campaign.stages) if stage.kind == "hull")
        key = ("stages", gate, "hull", "add_elements")
        text = f"no ground-state crystal of {reference.symbol} is known, so its compounds get no hull energy"
        warnings.append(campaign.problem(key, text))
    return problems, warnings


def _resolution_problems(campaign: Campaign, report: IngestReport) -> tuple[list[Problem], list[Problem]]:
    """Return (problems, warnings) of parameters that depend on the structures: what ``auto`` stands for."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    facts = facts_of(report.as_dict())
    for index, stage in enumerate(campaign.stages):
        if stage.is_gate:
            continue
        key = ("stages", index, stage.kind)
        try:
            resolved = resolve_stage(stage, *facts)
        except ValidationError as error:
            message = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            problems.append(campaign.problem(key, f"with the structures' elements: {message}"))
            continue
        species = resolved.parameters.get("species")
        if stage_descriptor(stage) is None:
            continue
        if isinstance(species, list):
            numbers = [SYMBOLS.index(symbol) for symbol in species]
            count, missing, example = report.unsupported(numbers)
            if count and example is not None:
                text = (
                    f"species lack {', '.join(SYMBOLS[z] for z in sorted(missing))}: {count} of {report.n_kept} "
                    f"structures, the first is {example[0]} ({example[1]}:{example[2]}); "
                )
                where = (*key, "species")
                if count == report.n_kept:
                    problems.append(campaign.problem(where, text + "nothing would be described"))
                else:
                    warnings.append(campaign.problem(where, text + "they get the status unsupported_species"))
        task, parameters = stage_parameters(resolved)
        sites = sum(n * structures for n, structures in report.n_sites.items())
        each = task.result_bytes(parameters, sites / max(report.n_total, 1))
        if each * report.n_total > _LARGE:
            text = f"about {each * report.n_total / 1e9:.0f} GB for {report.n_total} structures"
            advice = "fewer elements, functions or bins, a `compression`, or dtype: float32 make less"
            warnings.append(campaign.problem(key, f"the descriptor takes {text}; {advice}"))
    return problems, warnings


def _named_elements(campaign: Campaign) -> dict[str, int]:
    """Return the symbols that `prototypes` items decorate with → the line of the item."""
    from matcompute.structures.prototypes import PrototypesParameters
    from matcompute.structures.templates import template

    named: dict[str, int] = {}
    for spec in campaign.structures:
        parameters = spec.model
        if isinstance(parameters, PrototypesParameters):
            for prototype in parameters.prototypes:
                for symbols in parameters.lists(template(prototype)):
                    for symbol in symbols:
                        named.setdefault(symbol, spec.line)
    return named

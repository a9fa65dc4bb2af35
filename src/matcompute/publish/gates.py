"""Quality gates: what blocks a release, and what its people should know before it: `check`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from matcompute.dataset import GRADES, TIERS, Dataset, Quality, Violation, validate_dataset
from matcompute.publish.canonical import sha256_file
from matcompute.publish.errors import GateError, PublishError
from matcompute.publish.events import Events
from matcompute.publish.manifest import Manifest
from matcompute.publish.origin import origin
from matcompute.publish.terms import Terms
from matcompute.times import utc_now

__all__ = ["Finding", "GateReport", "Limits", "check", "structures_digest"]

Result = Literal["passed", "warning", "blocked"]
#: Rules of `validate_dataset` that are a gate of their own; all others belong to the gate "schema".
_RULES = {
    "units": "units",
    "nan": "values",
    "status": "values",
    "provenance": "provenance",
    "release": "terms",
}
_SHOWN = 5
_BLOCK = 65536


@dataclass(frozen=True)
class Limits:
    """Fractions of converged entries, 0 to 1.

    Parameters
    ----------
    block
        Below it a release is blocked.
    warn
        Below it there is a warning.
    """

    block: float = 0.5
    warn: float = 0.9


@dataclass(frozen=True)
class Finding:
    """What a gate found."""

    gate: str
    result: Result
    message: str
    file: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class GateReport:
    """The findings of all gates.

    Parameters
    ----------
    findings
        At least one for each gate.
    structures_sha256
        Digest over the sorted structure hashes of all entries.
    """

    findings: tuple[Finding, ...]
    structures_sha256: str

    @property
    def blocked(self) -> bool:
        """Whether a release is not allowed."""
        return any(f.result == "blocked" for f in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        return {
            "blocked": self.blocked,
            "structures_sha256": self.structures_sha256,
            "findings": [asdict(f) for f in self.findings],
        }

    def require(self) -> None:
        """Raise if a release is blocked.

        Raises
        ------
        GateError
            Names every blocking finding.
        """
        blocking = [f for f in self.findings if f.result == "blocked"]
        if blocking:
            lines = "".join(f"\n  {f.gate}: {f.file + ': ' if f.file else ''}{f.message}" for f in blocking)
            raise GateError(
                f"{len(blocking)} finding(s) block the release:{lines}", hint=blocking[0].remedy or None
            )


def structures_digest(shards: Sequence[Path]) -> str:
    """Return the SHA-256 over the sorted structure hashes of all entries (32 bytes of memory for each)."""
    with ExitStack() as stack:
        datasets = [stack.enter_context(Dataset(path)) for path in shards]
        # One array that is filled, sorted and hashed in place: a copy would double the memory.
        hashes = np.empty(sum(map(len, datasets)), dtype="S32")
        filled = 0
        for dataset in datasets:
            column = dataset.file["entries/structure_hash"]
            for start in range(0, len(dataset), _BLOCK):
                part = column[start : start + _BLOCK]
                hashes[filled : filled + len(part)] = part
                filled += len(part)
    hashes.sort()
    return sha256(hashes.view("u1").data).hexdigest()


def check(
    shards: Sequence[Path],
    terms: Terms,
    events: Events,
    *,
    version: int = 1,
    previous: Manifest | None = None,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GateReport:
    """Put a dataset through all gates.

    Parameters
    ----------
    shards
        Its files.
    terms
        Terms of the release.
    events
        What was released before.
    version
        Version that it would become.
    previous
        Manifest of the version before.
    limits
        Fractions of converged entries.
    progress
        Called with (steps done, steps in all).

    Returns
    -------
    GateReport
        One finding for each thing found; a gate that found nothing says that it passed.

    Raises
    ------
    DatasetFileError
        If a file is no dataset at all.
    """
    found: list[Finding] = []
    for number, path in enumerate(shards):

        def step(done: int, total: int, number: int = number) -> None:
            if progress is not None:
                progress(number * 100 + 100 * done // max(total, 1), 100 * len(shards))

        found += _format(path, validate_dataset(path, release=True, limit=_SHOWN, on_progress=step), terms)
    readable = not any(f.gate == "schema" and f.result == "blocked" for f in found)
    digest = structures_digest(shards) if readable else ""
    if readable:
        found += _converged(shards, limits or Limits())
        found += _provenance(shards)
        found += _duplicates(shards, terms, events, version, digest)
        found += _people(shards)
    found += _terms(terms)
    found += _rights(terms, previous)
    found += _grade(terms, events)
    gates = (
        *("schema", "units", "values", "converged", "provenance"),
        *("terms", "licence", "rights", "grade", "duplicate"),
    )
    seen = {f.gate for f in found}
    for gate in gates:
        if gate not in seen:
            ran = readable or gate not in ("converged", "duplicate")
            found.append(
                Finding(gate, "passed", "")
                if ran
                else Finding(gate, "blocked", "not examined: the files do not keep to the format")
            )
    found.sort(key=lambda f: gates.index(f.gate))
    return GateReport(tuple(found), digest)


def _format(path: Path, violations: list[Violation], terms: Terms) -> Iterator[Finding]:
    for v in violations:
        field = v.path.removeprefix("/@")
        # The node may add what the file lacks; the gates "terms" and "licence" look at the outcome.
        if v.rule == "release" and field in ("title", "domain", "license"):
            continue
        where = v.path if v.row is None else f"{v.path}[{v.row}]"
        gate = _RULES.get(v.rule, "schema")
        remedy = (
            f"`matcompute dataset validate --release {path.name}` lists all; mend the data and write it again"
        )
        yield Finding(gate, "blocked", f"{where}: {v.message}", path.name, remedy)


def _converged(shards: Sequence[Path], limits: Limits) -> Iterator[Finding]:
    entries = converged = 0
    for path in shards:
        with Dataset(path) as dataset:
            quality = dataset.entry_column("quality")
            entries += int(quality.shape[0])
            converged += int(((quality & Quality.CONVERGED.value) != 0).sum())
    if entries == 0:
        yield Finding("converged", "blocked", "there is no entry")
        return
    text = f"{converged:,} of {entries:,} entries converged ({converged / entries:.1%})"
    if converged < limits.block * entries:
        remedy = "retry what failed (`matcompute campaign retry --failed`), or release a selection"
        yield Finding("converged", "blocked", f"{text}; at least {limits.block:.0%} must", remedy=remedy)
    elif converged < limits.warn * entries:
        yield Finding("converged", "warning", f"{text}; {limits.warn:.0%} are expected")
    else:
        yield Finding("converged", "passed", text)


def _provenance(shards: Sequence[Path]) -> Iterator[Finding]:
    for path in shards:
        with Dataset(path) as dataset:
            for name, missing in (
                ("method", len(dataset.methods) == 0),
                ("process", len(dataset.provenance) == 0),
                ("source", len(dataset.sources) == 0),
            ):
                if missing:
                    yield Finding("provenance", "blocked", f"names no {name}", path.name)


def _duplicates(
    shards: Sequence[Path], terms: Terms, events: Events, version: int, digest: str
) -> Iterator[Finding]:
    for path in shards:
        for dataset_id, number in events.with_file(sha256_file(path), "data")[:_SHOWN]:
            # A revision may keep a shard; another dataset may not hold the same file.
            same = dataset_id == terms.dataset_id
            if same and number == version:
                continue
            result: Result = "warning" if same else "blocked"
            text = f"the same file is in {dataset_id} version {number}"
            yield Finding("duplicate", result, text, path.name, "cite the released dataset instead")
    for known in events.same_structures(digest)[:_SHOWN]:
        if known.dataset_id != terms.dataset_id:
            text = (
                f"'{known.title}' ({known.dataset_id} version {known.version}) has exactly these structures"
            )
            yield Finding("duplicate", "warning", text, remedy="say in the description how the values differ")


def _terms(terms: Terms) -> Iterator[Finding]:
    for name in ("title", "domain", "node"):
        if not getattr(terms, name):
            yield Finding("terms", "blocked", f"there is no {name}", remedy=f"give it with --{name}")
    if not terms.description:
        yield Finding("terms", "warning", "there is no description", remedy="give it with --description")
    if not terms.licence:
        yield Finding(
            "licence", "blocked", "there is no licence", remedy="give it with --licence, e.g. CC-BY-4.0"
        )
    elif "LicenseRef-" in terms.licence:
        yield Finding(
            "licence", "warning", f"{terms.licence} is a licence of your own: catalogues cannot read it"
        )


def _people(shards: Sequence[Path]) -> Iterator[Finding]:
    for path in shards:
        try:
            origin([path])
        except PublishError as error:
            yield Finding("terms", "blocked", error.message, remedy=error.hint or "")


def _rights(terms: Terms, previous: Manifest | None) -> Iterator[Finding]:
    rights = terms.rights
    if rights.embargoed(utc_now()):
        text = f"under embargo until {rights.embargo}"
        if terms.tier == "public":
            remedy = "wait, or give a member tier with --tier and regrade it when the day has come"
            yield Finding("rights", "blocked", f"{text}, so it cannot be public", remedy=remedy)
        else:
            yield Finding("rights", "warning", f"{text}: it cannot become public before")
    if previous is not None and previous.rights.embargoed(max(rights.embargo or "", utc_now())):
        text = (
            f"the version before was under embargo until {previous.rights.embargo}; this one lifts it earlier"
        )
        yield Finding("rights", "warning", text)


def _grade(terms: Terms, events: Events) -> Iterator[Finding]:
    level = GRADES.index
    if level(terms.grade) < level(terms.lowest_grade):
        text = f"grade '{terms.grade}' is below '{terms.lowest_grade}', which a file bears"
        yield Finding("grade", "blocked", text, remedy="a release takes the highest grade of its files")
    if terms.grade != GRADES[0] and terms.tier == "public":
        text = f"data of grade '{terms.grade}' cannot be public"
        yield Finding("grade", "blocked", text, remedy="give a member tier with --tier")
    try:
        standing = events.standing(terms.dataset_id)
    except PublishError:
        return
    if level(terms.grade) < level(standing.grade):
        text = f"the dataset was regraded to '{standing.grade}', this version says '{terms.grade}'"
        yield Finding("grade", "blocked", text, remedy="give --grade, or regrade the dataset first")
    if TIERS.index(terms.tier) < TIERS.index(standing.tier):
        # Terms hold for all versions: a revision must not open the older ones by the way.
        text = f"the dataset stands at tier '{standing.tier}', this version says '{terms.tier}'"
        remedy = f"give --tier {standing.tier}, or regrade the dataset first"
        yield Finding("grade", "blocked", text, remedy=remedy)
    if not standing.available:
        yield Finding("grade", "warning", "all versions before are withdrawn; this one would be available")

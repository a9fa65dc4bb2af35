"""The doctor: seven steps over a centre, each fault named, with its fix."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from matcompute.centres.doctor.account import examine_account
from matcompute.centres.doctor.codes import examine_codes
from matcompute.centres.doctor.limits import examine_limits
from matcompute.centres.doctor.login import examine_login
from matcompute.centres.doctor.patient import Patient
from matcompute.centres.doctor.report import DoctorReport, Finding, Step
from matcompute.centres.doctor.smoke import examine_smoke
from matcompute.centres.doctor.storage import examine_storage
from matcompute.centres.errors import CentreError
from matcompute.centres.model import Centre
from matcompute.centres.remote import LoginError
from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from matcompute.workspace import Workspace

__all__ = ["STEPS", "DoctorReport", "Finding", "Step", "examine", "examine_file"]

_STEPS: dict[str, Callable[[Patient], Step]] = {
    "login": examine_login,
    "limits": examine_limits,
    "storage": examine_storage,
    "codes": examine_codes,
    "smoke": examine_smoke,
    "account": examine_account,
}
#: The steps in their order.
STEPS: tuple[str, ...] = ("schema", *_STEPS)


def examine(
    workspace: Workspace | None,
    centre: Centre,
    *,
    fix: bool = False,
    only: Collection[str] | None = None,
    smoke_timeout_s: float = 300.0,
    on_step: Callable[[Step], None] | None = None,
) -> DoctorReport:
    """Examine a centre.

    Parameters
    ----------
    workspace
        Where it is registered; None for a profile that is not.
    centre
        The profile.
    fix
        Mend what is safe to mend: make the jobs' folder, give yourself the right to write in it, remove sockets of
        dead connections, lower limits of the registered profile to the live ones.
    only
        Names of steps (:data:`STEPS`); all by default. The login is always tried when a later step needs it.
    smoke_timeout_s
        How long to wait for the smoke jobs, in s.
    on_step
        Told each step when it is done.
    """
    path, values = None, {}
    if workspace is not None:
        from matcompute.centres.registry import load_values, profile_path

        if profile_path(workspace, centre.id).is_file():
            path, values = profile_path(workspace, centre.id), load_values(workspace, centre.id)
    patient = Patient(centre, _root(workspace), path, values, smoke_timeout_s=smoke_timeout_s)
    return _examine(patient, _schema(patient), fix, only, on_step)


def examine_file(
    workspace: Workspace | None,
    path: Path,
    values: Mapping[str, str] | None = None,
    *,
    fix: bool = False,
    only: Collection[str] | None = None,
    smoke_timeout_s: float = 300.0,
    on_step: Callable[[Step], None] | None = None,
) -> DoctorReport:
    """Examine the profile in a file, registered or not; see :func:`examine`. A wrong file is a fault of the schema."""
    try:
        centre = Centre.load(path, values)
    except CentreError as error:
        first = str(error.message).splitlines()
        step = Step(
            "schema",
            "fail",
            first[0],
            (Finding("wrong-profile", str(error.message), error.hint or "mend the file"),),
        )
        steps = (step, *_skipped(STEPS[1:], "the profile is wrong"))
        for item in steps:
            if on_step is not None and _asked(item.name, only):
                on_step(item)
        return DoctorReport(Path(path).stem, tuple(item for item in steps if _asked(item.name, only)))
    patient = Patient(
        centre, _root(workspace), Path(path), dict(values or {}), smoke_timeout_s=smoke_timeout_s
    )
    return _examine(patient, _schema(patient), fix, only, on_step)


def _root(workspace: Workspace | None) -> Path | None:
    return None if workspace is None else workspace.root


def _schema(patient: Patient) -> Step:
    centre = patient.centre
    if centre.unfilled:
        names = ", ".join(centre.unfilled)
        finding = Finding(
            "no-value",
            f"no value for {names}",
            " ".join(f"--set {name}=…" for name in centre.unfilled),
        )
        return Step("schema", "fail", finding.message, (finding,))
    if centre.login.transport == "firecrest":
        finding = Finding(
            "no-transport", "transport 'firecrest' cannot be used by this release", "use transport ssh"
        )
        return Step("schema", "fail", finding.message, (finding,))
    count = len(centre.partitions)
    what = f"{count} partition{'s' if count > 1 else ''}, {centre.cores} cores, {centre.scheduler.type}"
    return Step("schema", "ok", what)


def _asked(name: str, only: Collection[str] | None) -> bool:
    return only is None or name in only


def _skipped(names: Iterable[str], why: str) -> Iterator[Step]:
    for name in names:
        yield Step(name, "skip", why)


def _examine(
    patient: Patient,
    schema: Step,
    fix: bool,
    only: Collection[str] | None,
    on_step: Callable[[Step], None] | None,
) -> DoctorReport:
    unknown = sorted(set(only or ()) - set(STEPS))
    if unknown:
        from matcompute.errors import did_you_mean

        raise CentreError(f"no step '{unknown[0]}'{did_you_mean(unknown[0], STEPS)}")
    steps: list[Step] = []

    def note(step: Step) -> None:
        if _asked(step.name, only):
            steps.append(step)
            if on_step is not None:
                on_step(step)

    note(schema)
    later = [name for name in _STEPS if name == "login" or _asked(name, only)]
    if schema.state == "fail":
        for step in _skipped(later, "the profile is wrong"):
            note(step)
    elif only is None or any(name in only for name in _STEPS):
        for number, name in enumerate(later):
            step = _take(patient, name, fix)
            note(step)
            if name == "login" and patient.remote is None:
                if not _asked("login", only):  # the cause must be seen
                    steps.append(step)
                for skipped in _skipped(later[number + 1 :], "no login"):
                    note(skipped)
                break
    if patient.remote is not None:
        patient.remote.close()
    return DoctorReport(patient.centre.id, tuple(steps))


def _take(patient: Patient, name: str, fix: bool) -> Step:
    """Take a step; with ``fix`` mend what it finds, and take it again."""
    begin = time.monotonic()
    bad = set(patient.bad_partitions)
    step = _attempt(patient, name)
    fixed: list[str] = []
    if fix:
        for finding in step.findings:
            if finding.repair is None:
                continue
            try:
                fixed.append(finding.repair())
            except (MatcomputeError, OSError) as error:
                fixed.append(f"could not be mended: {error}")
        if fixed:
            patient.bad_partitions = bad
            step = _attempt(patient, name)
    return replace(step, fixed=tuple(fixed), seconds=time.monotonic() - begin)


def _attempt(patient: Patient, name: str) -> Step:
    try:
        return _STEPS[name](patient)
    except LoginError as error:  # the connection broke in the middle
        finding = Finding("no-answer", error.message, error.hint or "try again")
        return Step(name, "fail", error.message, (finding,))
    except MatcomputeError as error:
        finding = Finding("wrong-profile", error.message, error.hint or "")
        return Step(name, "fail", error.message, (finding,))

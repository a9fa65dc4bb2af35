"""The centres of a workspace: their profiles in ``centres/``, what changes when one is replaced, and their removal."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.centres.compare import Difference, compare
from matcompute.centres.errors import CentreError
from matcompute.centres.local import FILENAME, local_centre
from matcompute.centres.model import SCHEMA, Centre
from matcompute.errors import did_you_mean

if TYPE_CHECKING:
    from matcompute.centres.registration import RegisteredCentre
    from matcompute.workspace import Workspace

__all__ = [
    "FileCheck",
    "Registration",
    "add",
    "centre_ids",
    "check_file",
    "export_text",
    "load_centre",
    "load_centres",
    "load_values",
    "profile_path",
    "questions",
    "registered",
    "remove",
    "require_profile",
    "running_jobs",
]

LOCAL = "local"
_VALUES = ".values.yaml"


@dataclass(frozen=True)
class Registration:
    """What registering a profile does, or would do.

    Attributes
    ----------
    centre
        The new profile.
    new
        Whether the centre was unknown.
    differences
        From the profile that was registered.
    moves
        Whether the centre is another machine, account or scheduler: it gets another AiiDA Computer, and what runs
        keeps the one that it has.
    jobs
        AiiDA processes of the centre that have not ended.
    """

    centre: Centre
    new: bool
    differences: list[Difference] = field(default_factory=list)
    moves: bool = False
    jobs: int = 0

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return self.new or bool(self.differences)


# ---------------------------------------------------------------------- finding
def centre_ids(workspace: Workspace) -> list[str]:
    """Return the ids of the centres that a workspace has: ``local`` first, then those registered, sorted."""
    files = sorted(path for path in workspace.centres_dir.glob("*.yaml") if not path.name.endswith(_VALUES))
    return [LOCAL, *(path.stem for path in files if path.name != FILENAME)]


def profile_path(workspace: Workspace, centre_id: str) -> Path:
    """Return where the profile of a centre is kept."""
    return workspace.centres_dir / f"{centre_id}.yaml"


def load_values(workspace: Workspace, centre_id: str) -> dict[str, str]:
    """Return the values of a registered centre's variables."""
    import yaml

    path = workspace.centres_dir / f"{centre_id}{_VALUES}"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as error:
        raise CentreError(
            f"cannot read {path}: {error}", hint=f"register the centre again: {centre_id}"
        ) from error
    return {str(key): str(value) for key, value in (found or {}).items()}


def load_centre(workspace: Workspace, centre_id: str) -> Centre:
    """Return a centre of a workspace, its variables filled in.

    Raises
    ------
    CentreError
        If there is no such centre, or its profile is wrong.
    """
    if centre_id == LOCAL:
        return local_centre(workspace)
    path = profile_path(workspace, centre_id)
    if not path.is_file():
        known = centre_ids(workspace)
        raise CentreError(
            f"no centre '{centre_id}' in {workspace.root}{did_you_mean(centre_id, known)}",
            hint="register its profile: matcompute centre register FILE",
        )
    return Centre.load(path, load_values(workspace, centre_id))


def load_centres(workspace: Workspace) -> dict[str, Centre]:
    """Return all centres of a workspace by id; see :func:`load_centre`."""
    return {name: load_centre(workspace, name) for name in centre_ids(workspace)}


def registered(
    workspace: Workspace, centre_id: str, partition: str | None = None, project: str | None = None
) -> RegisteredCentre:
    """Return what a submission to a centre needs; the AiiDA Computer and codes are brought up to date.

    Raises
    ------
    CentreError
        If there is no such centre, or its profile is wrong.
    """
    from matcompute.centres.registration import register

    return register(workspace, load_centre(workspace, centre_id), partition, project)


def require_profile(workspace: Workspace, centre_id: str) -> Path:
    """Return the file of a registered profile.

    Raises
    ------
    CentreError
        If there is none.
    """
    path = profile_path(workspace, centre_id)
    if not path.is_file():
        load_centre(workspace, centre_id)  # tells what is known
        raise CentreError(
            f"the centre '{centre_id}' has no profile: it is detected",
            hint=f"write one: {path}, after cluster_configs/workstation.yaml",
        )
    return path


def export_text(workspace: Workspace, centre_id: str, *, filled: bool = False) -> str:
    """Return a registered profile as YAML: as it was written, or with the values of its variables put in."""
    import yaml

    if not filled and profile_path(workspace, centre_id).is_file():
        return profile_path(workspace, centre_id).read_text(encoding="utf-8")
    centre = load_centre(workspace, centre_id)
    data = centre.model_dump(
        mode="json", by_alias=True, exclude={"variables"}, exclude_defaults=True, exclude_none=True
    )
    text: str = yaml.safe_dump({"schema": SCHEMA, **data}, sort_keys=False, allow_unicode=True, width=100)
    return text


# ---------------------------------------------------------------------- checking
@dataclass(frozen=True)
class FileCheck:
    """What is wrong in a profile's file, or who is described in it."""

    path: Path
    centre: Centre | None
    error: CentreError | None = None

    @property
    def ok(self) -> bool:
        """Whether the file can be registered."""
        return self.error is None

    def __str__(self) -> str:
        if self.centre is None:
            return str(self.error)
        text = f"{self.path}: centre '{self.centre.id}' is well described"
        if self.centre.unfilled:
            text += f"; asked at registration: {', '.join(self.centre.unfilled)}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-able."""
        problems = [vars(item) for item in getattr(self.error, "problems", ())]
        return {
            "file": str(self.path),
            "ok": self.ok,
            "centre": None if self.centre is None else self.centre.id,
            "variables": [] if self.centre is None else self.centre.unfilled,
            "message": None if self.error is None else self.error.message,
            "problems": problems,
        }


def check_file(path: Path, values: Mapping[str, str] | None = None) -> FileCheck:
    """Read a profile and tell what is wrong with it."""
    try:
        return FileCheck(Path(path), Centre.load(path, values))
    except CentreError as error:
        return FileCheck(Path(path), None, error)


def questions(workspace: Workspace, path: Path, values: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a profile for which there is no value yet: name → question."""
    centre = Centre.load(path, values)
    known = load_values(workspace, centre.id)
    return {name: centre.variables[name].prompt or name for name in centre.unfilled if name not in known}


# ---------------------------------------------------------------------- registering
def add(
    workspace: Workspace, path: Path, values: Mapping[str, str] | None = None, *, dry_run: bool = False
) -> Registration:
    """Register the profile in a file, or replace the one that is registered under its id.

    Values that were given before are used again where none are given now.

    Parameters
    ----------
    workspace
        Where to.
    path
        The profile.
    values
        Values of its variables.
    dry_run
        Only tell what would change.

    Raises
    ------
    CentreError
        If the profile is wrong, or a variable has no value.
    """
    from matcompute.centres.computers import identity
    from matcompute.centres.registration import register

    path = Path(path)
    centre_id = Centre.load(path, values).id
    known = profile_path(workspace, centre_id)
    before = _earlier(workspace, centre_id)
    kept = {k: v for k, v in load_values(workspace, centre_id).items() if k in _variables(path)}
    filled = {**kept, **(values or {})}
    centre = Centre.load(path, filled)
    if centre.unfilled:
        raise CentreError(
            f"{path}: no value for {', '.join(centre.unfilled)}",
            hint=" ".join(["give it:", *(f"--set {name}=…" for name in centre.unfilled)]),
        )
    changes = [] if before is None else compare(before, centre)
    moves = before is not None and identity(before) != identity(centre)
    jobs = running_jobs(workspace, centre_id) if before is not None and changes else 0
    if not dry_run:
        register(workspace, centre)
        text = path.read_text(encoding="utf-8")
        if not (known.is_file() and known.samefile(path)):
            _write(known, text)
        _write_values(workspace, centre_id, filled)
        _write(_snapshot(workspace, centre_id), centre.model_dump_json(by_alias=True, exclude={"variables"}))
    return Registration(centre, before is None, changes, moves, jobs)


def _snapshot(workspace: Workspace, centre_id: str) -> Path:
    """Where it is kept in which form a centre was registered last: the profile itself may be edited by hand."""
    return workspace.centres_dir / ".registered" / f"{centre_id}.json"


def _earlier(workspace: Workspace, centre_id: str) -> Centre | None:
    """The form in which a centre was registered last; None if it was not, or this release cannot read it."""
    try:
        return Centre.model_validate_json(_snapshot(workspace, centre_id).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _variables(path: Path) -> set[str]:
    return set(Centre.load(path).variables)


def _write_values(workspace: Workspace, centre_id: str, values: Mapping[str, str]) -> None:
    import yaml

    path = workspace.centres_dir / f"{centre_id}{_VALUES}"
    if values:
        text = "# Values of the profile's variables, as they were given at registration.\n"
        _write(path, text + yaml.safe_dump(dict(values), allow_unicode=True))
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


# ---------------------------------------------------------------------- running work, removal
def running_jobs(workspace: Workspace, centre_id: str) -> int:
    """Return the number of AiiDA calculations of a centre that have not ended."""
    workspace.load_profile()
    from matcompute.centres.computers import living_jobs

    return int(living_jobs(workspace, centre_id).count())


def remove(workspace: Workspace, centre_id: str, *, force: bool = False) -> int:
    """Forget a centre: its profile goes, its codes are hidden, its login is disabled. Nothing computed is lost.

    Parameters
    ----------
    workspace
        From where.
    centre_id
        Which.
    force
        Also while it has jobs; they cannot be watched any more.

    Returns
    -------
    int
        Jobs that were left behind.

    Raises
    ------
    CentreError
        If there is no such centre, it is this machine, or it has jobs.
    """
    if centre_id == LOCAL:
        raise CentreError("the centre 'local' is this machine; it cannot be removed")
    load_path = profile_path(workspace, centre_id)
    if not load_path.is_file():
        load_centre(workspace, centre_id)  # tells what is known
    jobs = running_jobs(workspace, centre_id)
    if jobs and not force:
        raise CentreError(
            f"centre '{centre_id}' has {jobs} job{'s' if jobs > 1 else ''} in flight",
            hint="wait for them, cancel their campaigns, or leave them behind with --force",
        )
    from aiida.orm import User

    from matcompute.centres.codes import hide_codes
    from matcompute.centres.computers import computers_of
    from matcompute.centres.sshfiles import forget_host

    user = User.collection.get_default()
    for computer in computers_of(workspace, centre_id):
        hide_codes(computer)
        if user is not None and computer.is_user_configured(user):
            computer.get_authinfo(user).enabled = False
        forget_host(workspace, computer.label)
    load_path.unlink()
    _snapshot(workspace, centre_id).unlink(missing_ok=True)
    _write_values(workspace, centre_id, {})
    return jobs

"""Make a centre known to AiiDA: a Computer with its login, and a code for each of its programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matcompute.centres.codes import setup_codes
from matcompute.centres.computers import setup_computer
from matcompute.centres.errors import CentreError
from matcompute.centres.model import NODE_PROGRAM, Centre

if TYPE_CHECKING:
    from aiida.orm import Computer, InstalledCode

    from matcompute.workspace import Workspace

__all__ = ["CODE", "RegisteredCentre", "register"]

CODE = NODE_PROGRAM


@dataclass(frozen=True)
class RegisteredCentre:
    """What a submission to a centre needs.

    Attributes
    ----------
    centre
        The centre's profile.
    computer
        The AiiDA Computer.
    codes
        Name of a program → its AiiDA code; ``codes["matcompute-node"]`` is always there.
    slots
        Folder of the core slots, which all jobs on this machine share; None where a scheduler shares the cores out.
    partition, account
        Where jobs go and what they are charged to, unless a submission says otherwise; None: the profile's first
        partition, its default project.
    """

    centre: Centre
    computer: Computer
    codes: dict[str, InstalledCode]
    slots: Path | None = None
    partition: str | None = None
    account: str | None = None


def register(
    workspace: Workspace, centre: Centre, partition: str | None = None, project: str | None = None
) -> RegisteredCentre:
    """Set up the AiiDA Computer and codes of a centre, or bring them up to date (idempotent).

    Nothing that runs is touched; see :func:`matcompute.centres.computers.setup_computer` and
    :func:`matcompute.centres.codes.setup_codes`.

    Parameters
    ----------
    workspace
        Where to.
    centre
        The profile, its variables filled in.
    partition, project
        Where jobs go and what they are charged to by default.

    Raises
    ------
    CentreError
        If a variable has no value, a partition or project is unknown, or the node program is not installed.
    """
    if centre.unfilled:
        raise CentreError(
            f"centre '{centre.id}': no value for {', '.join(centre.unfilled)}",
            hint=f"give it: --set {centre.unfilled[0]}=…",
        )
    if partition is not None:
        centre.partition(partition)
    account = None
    if project is not None:
        chosen = centre.project(project)
        account = chosen.account if chosen is not None else None
    workspace.load_profile()
    computer = setup_computer(workspace, centre)
    codes = setup_codes(computer, centre)
    slots = None
    if centre.is_local:
        slots = workspace.slots_dir
        if centre.id == "local":
            _make_slots(workspace, centre)
    return RegisteredCentre(centre, computer, codes, slots, partition, account)


def _make_slots(workspace: Workspace, centre: Centre) -> None:
    """One empty file per core; files of cores that are no longer there go away."""
    folder = workspace.slots_dir
    folder.mkdir(exist_ok=True)
    wanted = {f"core-{number}" for number in range(centre.cores)}
    present = {path.name for path in folder.glob("core-*")}
    for name in wanted - present:
        (folder / name).touch()
    for name in present - wanted:
        (folder / name).unlink(missing_ok=True)

"""Make a centre known to AiiDA: one Computer, and the node program as its code."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matcompute.centres.errors import CentreError
from matcompute.centres.model import Centre

if TYPE_CHECKING:
    from aiida.orm import Computer, InstalledCode

    from matcompute.workspace import Workspace

__all__ = ["CODE", "RegisteredCentre", "register"]

CODE = "matcompute-node"


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
    """

    centre: Centre
    computer: Computer
    codes: dict[str, InstalledCode]
    slots: Path | None = None


def register(workspace: Workspace, centre: Centre) -> RegisteredCentre:
    """Set up the AiiDA Computer and codes of a centre, or bring them up to date (idempotent).

    A code whose program has moved (another environment) is hidden and a new one made: nodes of earlier
    calculations keep pointing to what they ran.

    Raises
    ------
    CentreError
        If the node program is not installed.
    """
    workspace.load_profile()
    computer = _computer(workspace, centre)
    code = _code(computer, _executable())
    _make_slots(workspace, centre)
    return RegisteredCentre(centre, computer, {CODE: code}, workspace.slots_dir)


def _executable() -> Path:
    path = Path(sys.executable).parent / CODE
    if not path.is_file():
        raise CentreError(
            f"the node program is not installed beside {sys.executable}",
            hint="install matcompute into the environment that you run it from",
        )
    return path


def _computer(workspace: Workspace, centre: Centre) -> Computer:
    from aiida.common.exceptions import NotExistent
    from aiida.orm import Computer, User

    # In a profile of the user's own, two workspaces are two computers: their work directories differ.
    label = centre.id if workspace.settings.embedded else f"{centre.id}-{workspace.settings.uuid[:8]}"
    work_dir = centre.storage.work_dir.format(workspace=workspace.root)
    mpi = centre.launch.mpi.split()
    local_mpi = Path(sys.executable).parent / mpi[0]
    if local_mpi.is_file():
        mpi[0] = str(local_mpi)  # the MPI that mpi4py of this environment was built for
    try:
        computer = Computer.collection.get(label=label)
    except NotExistent:
        computer = Computer(
            label=label,
            hostname="localhost",
            description=centre.title,
            transport_type="core.local",
            scheduler_type="core.direct",
            workdir=work_dir,
        ).store()
    if computer.get_workdir() != work_dir:
        computer.set_workdir(work_dir)
    if list(computer.get_mpirun_command()) != mpi:
        computer.set_mpirun_command(mpi)
    if computer.get_default_mpiprocs_per_machine() != centre.cores_per_node:
        computer.set_default_mpiprocs_per_machine(centre.cores_per_node)
    if computer.get_minimum_job_poll_interval() != centre.poll_interval_s:
        computer.set_minimum_job_poll_interval(centre.poll_interval_s)
    lines = "\n".join(f"export {key}={value}" for key, value in sorted(centre.launch.env.items()))
    if computer.get_prepend_text() != lines:
        computer.set_prepend_text(lines)
    user = User.collection.get_default()
    if user is not None and not computer.is_user_configured(user):
        computer.configure(user=user, safe_interval=centre.login.safe_interval_s, use_login_shell=False)
    Path(work_dir).mkdir(parents=True, exist_ok=True)
    return computer


def _code(computer: Computer, executable: Path) -> InstalledCode:
    from aiida.orm import InstalledCode, QueryBuilder

    query = QueryBuilder().append(
        InstalledCode, filters={"label": {"like": f"{CODE}%"}, "dbcomputer_id": computer.pk}
    )
    codes: list[InstalledCode] = query.all(flat=True)
    current = None
    for code in codes:
        here = current is None and str(code.filepath_executable) == str(executable)
        if here:
            current = code
        if code.is_hidden == here:
            code.is_hidden = not here
    if current is not None:
        return current
    label = CODE if not codes else f"{CODE}-{len(codes) + 1}"
    code = InstalledCode(
        label=label,
        computer=computer,
        filepath_executable=str(executable),
        default_calc_job_plugin="matcompute.batch",
        description="node program of matcompute",
    )
    # A new label for each place keeps matcompute-node@local unique for people who load it by name.
    return code.store()


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

"""A centre's AiiDA Computer and the user's AuthInfo for it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.centres.errors import CentreError
from matcompute.centres.launch import start_lines
from matcompute.centres.sshfiles import authentication_script, write_host

if TYPE_CHECKING:
    from aiida.orm import Computer, QueryBuilder

    from matcompute.centres.model import Centre
    from matcompute.workspace import Workspace

__all__ = ["computers_of", "identity", "living_jobs", "setup_computer"]

#: Property of a Computer that says which centre it is, and in which form.
PROPERTY = "matcompute"
#: AiiDA's plugins, made repeatable; see ``matcompute_workflows.schedulers``.
SCHEDULERS = {
    "direct": "matcompute.direct",
    "slurm": "matcompute.slurm",
    "sge": "matcompute.sge",
    "pbs": "matcompute.pbs",
    "lsf": "matcompute.lsf",
}
TRANSPORTS = {"local": "core.local", "ssh": "core.ssh_async"}
#: Sessions that AiiDA may have over one shared connection; sshd allows ten, ours are among them.
SESSIONS = 6


def identity(centre: Centre) -> str:
    """Return a digest of what makes a computer another one: machine, account there, scheduler."""
    login = centre.login
    parts: list[Any] = [login.transport, centre.scheduler.type]
    if login.transport != "local":
        parts += [login.hosts[0], login.port, login.user]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def computers_of(workspace: Workspace, centre_id: str) -> list[Computer]:
    """Return the AiiDA Computers of a centre, the first registered first: one for each form that it has had."""
    from aiida.orm import Computer

    found = []
    for computer in Computer.collection.all():
        mark = computer.get_property(PROPERTY, None)
        # Workspaces of earlier releases have marked nothing.
        if (mark is None and computer.label == _label(workspace, centre_id)) or (
            mark is not None
            and mark.get("centre") == centre_id
            and mark.get("workspace") == workspace.settings.uuid
        ):
            found.append(computer)
    return sorted(found, key=lambda computer: computer.pk or 0)


def living_jobs(
    workspace: Workspace, centre_id: str, filters: Mapping[str, Any] | None = None
) -> QueryBuilder:
    """Return a query for the AiiDA calculations of a centre that have not ended.

    Parameters
    ----------
    workspace
        Whose centre.
    centre_id
        Which.
    filters
        More conditions.
    """
    from aiida.orm import CalcJobNode, Computer, QueryBuilder

    keys = [computer.pk for computer in computers_of(workspace, centre_id)]
    query = QueryBuilder()
    query.append(Computer, filters={"id": {"in": keys or [-1]}}, tag="computer")
    alive = {"attributes.process_state": {"in": ["created", "running", "waiting"]}}
    query.append(CalcJobNode, with_computer="computer", filters={**alive, **(filters or {})})
    return query


def _label(workspace: Workspace, centre_id: str) -> str:
    # In a profile of the user's own, two workspaces are two computers: their work directories differ.
    return centre_id if workspace.settings.embedded else f"{centre_id}-{workspace.settings.uuid[:8]}"


def setup_computer(workspace: Workspace, centre: Centre) -> Computer:
    """Make the Computer of a centre, or bring it up to date; it is configured for the profile's user.

    What decides its :func:`identity` is never changed: a centre that has moved gets another Computer
    (``<id>-2``), and work that runs keeps the one that it has.

    Raises
    ------
    CentreError
        If the transport cannot be used.
    """
    if centre.login.transport not in TRANSPORTS:
        raise CentreError(
            f"centre '{centre.id}': transport '{centre.login.transport}' cannot be registered by this release",
            hint="use transport ssh or local",
        )
    known = computers_of(workspace, centre.id)
    wanted = identity(centre)
    computer = next((one for one in known if _identity_of(one) == wanted), None)
    if computer is None:
        computer = _create(workspace, centre, known)
    mark = {"centre": centre.id, "workspace": workspace.settings.uuid, "identity": wanted}
    if computer.get_property(PROPERTY, None) != mark:
        computer.set_property(PROPERTY, mark)
    _update(computer, workspace, centre)
    _configure(computer, workspace, centre)
    return computer


def _identity_of(computer: Computer) -> str | None:
    mark = computer.get_property(PROPERTY, None)
    if mark is None:  # of an earlier release: this machine without a scheduler
        return hashlib.sha256(json.dumps(["local", "direct"]).encode()).hexdigest()[:16]
    return str(mark.get("identity"))


def _create(workspace: Workspace, centre: Centre, known: list[Computer]) -> Computer:
    from aiida.orm import Computer

    taken = {one.label for one in Computer.collection.all()}
    base = _label(workspace, centre.id)
    number = len(known) + 1
    label = base if number == 1 else f"{base}-{number}"
    while label in taken:
        number += 1
        label = f"{base}-{number}"
    return Computer(
        label=label,
        hostname=centre.login.hosts[0] if centre.login.transport != "local" else "localhost",
        description=centre.title,
        transport_type=TRANSPORTS[centre.login.transport],
        scheduler_type=_scheduler_type(centre),
        workdir=_work_dir(workspace, centre),
    ).store()


def _work_dir(workspace: Workspace, centre: Centre) -> str:
    # {username} is AiiDA's own: it asks the login host.
    return centre.storage.work_dir.replace("{workspace}", str(workspace.root))


def _scheduler_type(centre: Centre) -> str:
    # Nothing comes between AiiDA and a process of this machine.
    return "core.direct" if centre.is_local else SCHEDULERS[centre.scheduler.type]


def _update(computer: Computer, workspace: Workspace, centre: Centre) -> None:
    work_dir = _work_dir(workspace, centre)
    mpi = centre.launch.mpi.split()
    if centre.is_local:
        local_mpi = Path(sys.executable).parent / mpi[0]
        if local_mpi.is_file():
            mpi[0] = str(local_mpi)  # the MPI that mpi4py of this environment was built for
        Path(work_dir).mkdir(parents=True, exist_ok=True)
    # Grid Engine and LSF count slots, not processes a machine, and refuse a default for it.
    per_machine = None if centre.scheduler.type in ("sge", "lsf") else centre.cores_per_node
    shebang = "#!/bin/bash -l" if centre.login.use_login_shell else "#!/bin/bash"
    prepend = start_lines(centre)
    if computer.scheduler_type != _scheduler_type(centre):  # of an earlier release
        computer.scheduler_type = _scheduler_type(centre)
    if computer.description != centre.title:
        computer.description = centre.title
    if computer.get_workdir() != work_dir:
        computer.set_workdir(work_dir)
    if list(computer.get_mpirun_command()) != mpi:
        computer.set_mpirun_command(mpi)
    if computer.get_default_mpiprocs_per_machine() != per_machine:
        computer.set_default_mpiprocs_per_machine(per_machine)
    if computer.get_minimum_job_poll_interval() != centre.poll_interval_s:
        computer.set_minimum_job_poll_interval(centre.poll_interval_s)
    if computer.get_shebang() != shebang:
        computer.set_shebang(shebang)
    if computer.get_prepend_text() != prepend:
        computer.set_prepend_text(prepend)
    if computer.get_append_text() != centre.launch.append:
        computer.set_append_text(centre.launch.append)


def _configure(computer: Computer, workspace: Workspace, centre: Centre) -> None:
    from aiida.orm import User

    user = User.collection.get_default()
    if user is None:
        raise CentreError(
            "the AiiDA profile has no user", hint="make one: matcompute verdi -- user configure"
        )
    login = centre.login
    settings: dict[str, Any] = {
        "use_login_shell": login.use_login_shell,
        "safe_interval": login.safe_interval_s,
    }
    if login.transport == "ssh":
        settings |= {
            "host": write_host(workspace, computer.label, centre),
            # OpenSSH shares the connection with our own queries; asyncssh would open another.
            "backend": "openssh",
            "max_io_allowed": SESSIONS * login.max_connections,
            "authentication_script": authentication_script(workspace, computer.label, centre) or "None",
        }
    if computer.is_user_configured(user):
        info = computer.get_authinfo(user)
        if not info.enabled:  # removed, and registered again
            info.enabled = True
        current = info.get_auth_params()
        if all(current.get(key) == value for key, value in settings.items()):
            return
    computer.configure(user=user, **settings)

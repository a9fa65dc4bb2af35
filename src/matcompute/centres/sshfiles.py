"""The ssh configuration of a workspace, by which AiiDA's ``core.ssh_async`` finds the centres.

AiiDA gives a host's name to plain ``ssh`` and ``scp``. ``ssh/bin`` stands first on the PATH of everything that works
in the workspace; its ``ssh`` and ``scp`` read ``ssh/config``, which holds our hosts and then the user's own file.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from matcompute.centres.errors import CentreError
from matcompute.centres.ssh import alias, config_text, host_block

if TYPE_CHECKING:
    from matcompute.centres.model import Centre
    from matcompute.workspace import Workspace

__all__ = ["authentication_script", "forget_host", "login_host", "switch_host", "write_host"]

_PROGRAMS = ("ssh", "scp")


def login_host(workspace: Workspace, label: str, centre: Centre) -> str:
    """Return the login host that a computer uses now: the first one, until another one was switched to."""
    try:
        text = _host_file(workspace, label).read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    # The centre's own block is the last one, after those of hosts on the way.
    names = re.findall(r"^ +HostName (\S+)$", text, flags=re.MULTILINE)
    hosts = centre.login.hosts
    return names[-1] if names and names[-1] in hosts else hosts[0]


def switch_host(workspace: Workspace, label: str, centre: Centre, host: str) -> bool:
    """Have a computer use another login host from its next command on; return whether it used another one before."""
    if login_host(workspace, label, centre) == host:
        return False
    write_host(workspace, label, centre, host)
    authentication_script(workspace, label, centre)
    return True


def write_host(workspace: Workspace, label: str, centre: Centre, host: str | None = None) -> str:
    """Make a centre known to ``ssh``; return its name there.

    Parameters
    ----------
    workspace
        Where the configuration is kept.
    label
        The AiiDA computer's: one that is replaced keeps its own name, and its running work goes on.
    centre
        The profile.
    host
        Which of its login hosts; by default the one in use.
    """
    name, path = alias(label), _host_file(workspace, label)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, host_block(name, centre.login, host or login_host(workspace, label, centre)))
    _write_config(workspace)
    for program in _PROGRAMS:
        _write_program(workspace, program)
    return name


def _host_file(workspace: Workspace, label: str) -> Path:
    return workspace.ssh_dir / "hosts" / f"{alias(label)}.conf"


def forget_host(workspace: Workspace, label: str) -> None:
    """Take a centre out of the configuration."""
    path = _host_file(workspace, label)
    if path.exists():
        path.unlink()
        _write_config(workspace)


def authentication_script(workspace: Workspace, label: str, centre: Centre) -> str | None:
    """Return the script that AiiDA runs before it opens a connection; None where there is none.

    The centre's own script is only run when there is no open connection to share: a one-time password is asked once.
    """
    if not centre.login.auth.script:
        return None
    name = alias(label)
    folder = workspace.ssh_dir / "auth"
    folder.mkdir(parents=True, exist_ok=True)
    script = Path(centre.login.auth.script).expanduser()
    path = folder / f"{name}.sh"
    login = centre.login
    text = (
        "#!/bin/sh\n"
        f"'{workspace.ssh_dir / 'bin' / 'ssh'}' -O check {name} >/dev/null 2>&1 && exit 0\n"
        f"export MATCOMPUTE_CENTRE='{centre.id}' MATCOMPUTE_HOST='{login_host(workspace, label, centre)}' "
        f"MATCOMPUTE_USER='{login.user or ''}'\n"
        f"exec '{script}'\n"
    )
    _replace(path, text, mode=0o755)
    return str(path)


def _write_config(workspace: Workspace) -> None:
    blocks = [
        path.read_text(encoding="utf-8") for path in sorted((workspace.ssh_dir / "hosts").glob("*.conf"))
    ]
    _replace(workspace.ssh_dir / "config", config_text(blocks))


def _write_program(workspace: Workspace, program: str) -> None:
    folder = workspace.ssh_dir / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    # Not another workspace's program of the same kind.
    places = [
        part
        for part in os.environ.get("PATH", os.defpath).split(os.pathsep)
        if part and not (part.endswith("/ssh/bin") and (Path(part).parent / "config").exists())
    ]
    real = shutil.which(program, path=os.pathsep.join(places))
    if real is None:
        raise CentreError(f"{program} is not installed on this machine", hint="install the OpenSSH client")
    # The configuration is found from the program's own place: a workspace may be moved.
    text = f'#!/bin/sh\nexec {real} -F "$(dirname "$0")/../config" "$@"\n'
    _replace(folder / program, text, mode=0o755)


def _replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file at once, and only if it changes: others may be reading it."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(mode)
    temporary.replace(path)

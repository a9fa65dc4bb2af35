"""OpenSSH for a centre: its configuration, the shared connection, and what a failed login means.

Everything that talks to a login host goes through one multiplexed connection (ControlMaster): our own queries, the
doctor, and AiiDA's transport. The configuration stands in files of ours; ``~/.ssh/config`` is read after it and never
written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Literal

from matcompute.centres.errors import CentreError
from matcompute.centres.model import Centre, LoginBlock

__all__ = [
    "PERSIST_S",
    "LoginKind",
    "alias",
    "classify",
    "config_text",
    "control_dir",
    "control_path",
    "host_block",
    "sockets",
]

#: The shared connection is closed when it was idle for so long, in s.
PERSIST_S = 300
LoginKind = Literal["auth", "host-key", "key-file", "unreachable", "timeout", "closed", "script", "other"]

_HOP = re.compile(r"(?:(?P<user>[^@,\s]+)@)?(?P<host>[^:,\s@]+)(?::(?P<port>\d+))?\Z")
_SIGNS: tuple[tuple[LoginKind, str], ...] = (
    ("key-file", r"unprotected private key|bad permissions|load key|no such identity|invalid format"),
    ("host-key", r"host key verification failed|host identification has changed|host key is known"),
    ("auth", r"permission denied|too many authentication failures|no supported authentication"),
    ("timeout", r"timed out|timeout, server|broken pipe"),
    ("unreachable", r"refused|could not resolve|no route|unreachable|name or service not known"),
    ("closed", r"connection closed|connection reset|kex_exchange_identification|mux_client|control socket"),
)


def classify(stderr: str) -> LoginKind | None:
    """Return what the messages of ``ssh`` say about a login that failed; None if they say nothing of the kind."""
    text = stderr.lower()
    return next((kind for kind, pattern in _SIGNS if re.search(pattern, text)), None)


def control_dir() -> Path:
    """Return the folder of the shared connections' sockets, private to the user.

    A fixed short place: all our processes must find the same socket, and its path may have a hundred characters.

    Raises
    ------
    CentreError
        If somebody else owns it.
    """
    path = Path("/tmp") / f"matcompute-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise CentreError(
            f"{path} is not a private folder of yours",
            hint=f"remove it, or make it yours alone: chmod 700 {path}",
        )
    return path


def alias(label: str) -> str:
    """Return the name by which our ssh configuration knows a centre."""
    return f"mc-{label}"


def control_path(login: LoginBlock, host: str) -> Path:
    """Return the socket of the connection to a login host: another key or user is another connection."""
    identity = [host, login.port, login.user, login.proxy_jump, login.auth.model_dump()]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return control_dir() / f"{digest[:16]}.sock"


def host_block(name: str, login: LoginBlock, host: str, *, multiplex: bool = True) -> str:
    """Return the ``Host`` blocks of a centre and of the hosts that its connection passes through.

    Parameters
    ----------
    name
        From :func:`alias`.
    login
        The profile's block.
    host
        Which of its hosts.
    multiplex
        Share the connection; without, each command logs in anew.
    """
    hops = [hop.strip() for hop in (login.proxy_jump or "").split(",") if hop.strip()]
    blocks, previous = [], None
    for number, hop in enumerate(hops, start=1):
        match = _HOP.match(hop)
        if match is None:
            raise CentreError(f"login.proxy_jump: '{hop}' is not [user@]host[:port]")
        hop_name = f"{name}-hop{number}"
        lines = _common(login, match["host"], match["user"] or login.user, int(match["port"] or 22), previous)
        blocks.append(_block(hop_name, lines))
        previous = hop_name
    lines = _common(login, host, login.user, login.port, previous)
    if multiplex:
        lines |= {
            "ControlMaster": "auto",
            "ControlPath": str(control_path(login, host)),
            "ControlPersist": str(PERSIST_S),
        }
    else:
        lines |= {"ControlMaster": "no", "ControlPath": "none"}
    blocks.append(_block(name, lines))
    return "\n".join(blocks)


def _common(login: LoginBlock, host: str, user: str | None, port: int, jump: str | None) -> dict[str, str]:
    lines = {
        "HostName": host,
        "Port": str(port),
        "BatchMode": "yes",
        "ConnectTimeout": str(max(1, round(login.connect_timeout_s))),
        # A connection that silently died is noticed after 45 s.
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
        "ForwardAgent": "no",
        "ForwardX11": "no",
    }
    if user:
        lines["User"] = user
    if login.auth.key_file:
        lines["IdentityFile"] = _quote(str(Path(login.auth.key_file).expanduser()))
        if login.auth.method == "key":
            lines |= {"IdentitiesOnly": "yes", "PreferredAuthentications": "publickey"}
    if login.auth.known_hosts:
        lines["UserKnownHostsFile"] = _quote(str(Path(login.auth.known_hosts).expanduser()))
    if jump is not None:
        lines["ProxyJump"] = jump
    return lines


def _quote(path: str) -> str:
    return f'"{path}"' if " " in path else path


def _block(name: str, lines: dict[str, str]) -> str:
    return "\n".join([f"Host {name}", *(f"    {key} {value}" for key, value in lines.items())]) + "\n"


def config_text(blocks: list[str]) -> str:
    """Return a whole configuration: our blocks, then the user's own and the system's."""
    return "\n".join(
        [
            "# Written by matcompute; changed whenever a centre is registered.",
            *blocks,
            "Match all",
            "    Include ~/.ssh/config",
            "    Include /etc/ssh/ssh_config",
            "",
        ]
    )


def sockets(centre: Centre) -> list[Path]:
    """Return the sockets that a centre's connections may have, one for each login host."""
    return [control_path(centre.login, host) for host in centre.login.hosts]

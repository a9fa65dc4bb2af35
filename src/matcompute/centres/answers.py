"""What comes back from a login node: the result of a command, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from matcompute.centres.ssh import LoginKind
from matcompute.errors import MatcomputeError

if TYPE_CHECKING:
    from matcompute.centres.model import Centre

__all__ = ["LoginError", "Result", "login_hint"]


class LoginError(MatcomputeError):
    """A login host cannot be reached or does not let us in.

    Attributes
    ----------
    kind
        ``auth``, ``host-key``, ``key-file``, ``unreachable``, ``timeout``, ``closed``, ``script`` or ``other``.
    """

    def __init__(self, message: str, hint: str | None = None, *, kind: LoginKind = "other") -> None:
        super().__init__(message, hint)
        self.kind: LoginKind = kind


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Attributes
    ----------
    code
        Exit status.
    stdout, stderr
        What it printed.
    chatter, noise
        What the shell's start files printed before the command began, and to standard error.
    """

    code: int
    stdout: str
    stderr: str
    chatter: str = ""
    noise: str = ""

    @property
    def ok(self) -> bool:
        """Whether the exit status is 0."""
        return self.code == 0

    @property
    def message(self) -> str:
        """The last line that says something, for people."""
        lines = [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {self.code}"


def login_hint(kind: LoginKind, centre: Centre, host: str) -> str | None:
    """Return what mends a login that failed."""
    login = centre.login
    port = f" -p {login.port}" if login.port != 22 else ""
    user = f"{login.user}@" if login.user else ""
    key = f" -i {login.auth.key_file}" if login.auth.key_file else ""
    return {
        "auth": (
            f"the key in login.auth.key_file ({login.auth.key_file}) is not accepted: is it the right one, and is its "
            f"public half in ~/.ssh/authorized_keys of {user}{host}?"
            if login.auth.key_file
            else f"no key of your agent is accepted for {user}{host}: ssh-add the key, or name it in login.auth"
        ),
        "host-key": f"look at the host's key and accept it once: ssh{key}{port} {user}{host}",
        "key-file": f"the private key must be readable by you alone: chmod 600 {login.auth.key_file}",
        "unreachable": f"is {host}, port {login.port}, right in login.hosts and login.port, and is it up?",
        "timeout": f"{host} does not answer: is it up, and reachable from here (a VPN, login.proxy_jump)?",
        "closed": "the host closed the connection: it may be down, or refuse you for connecting too often "
        "(raise login.safe_interval_s)",
    }.get(kind)

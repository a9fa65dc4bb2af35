"""The ordinary user of the test centres. It exists only in the containers' own ``/etc/passwd``."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["USER", "User", "make_key"]


@dataclass(frozen=True)
class User:
    """A login name with its ids and its home as the container sees it."""

    name: str
    uid: int
    gid: int
    home: str

    def add_to(self, etc: Path) -> None:
        """Write the user into the account files of an ``/etc``; ``*``: no password, but not locked for sshd."""
        lines = {
            "passwd": f"{self.name}:x:{self.uid}:{self.gid}:ordinary user:{self.home}:/bin/bash",
            "shadow": f"{self.name}:*:19000:0:99999:7:::",
            "group": f"{self.name}:x:{self.gid}:",
        }
        for name, line in lines.items():
            path = etc / name
            kept = [old for old in path.read_text().splitlines() if not old.startswith(f"{self.name}:")]
            path.write_text("\n".join([*kept, line]) + "\n")

    def make_home(self, root: Path, public_key: str) -> Path:
        """Make the home folder below ``root`` with a key that may log in; return it."""
        home = root / self.home.lstrip("/")
        ssh = home / ".ssh"
        ssh.mkdir(parents=True)
        (ssh / "authorized_keys").write_text(public_key)
        ssh.chmod(0o700)
        for path in (home, ssh, ssh / "authorized_keys"):
            os.chown(path, self.uid, self.gid)
        return home


#: Ids that nobody has on a usual machine; Grid Engine takes no job of a user below 1000.
USER = User("mcuser", 51977, 51977, "/home/mcuser")


def make_key(path: Path, comment: str) -> str:
    """Make an Ed25519 key pair at ``path``; return the public key's line."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.with_name(path.name + ".pub").read_text()

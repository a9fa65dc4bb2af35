"""``Container``: a small machine of its own for the services of one compute centre, made of Linux namespaces.

Own processes, own loopback network, own host name, own ``/etc``, ``/home``, ``/tmp``, ``/run`` and state folders, so:

- Slurm, Grid Engine, MUNGE and sshd run with their stock paths and ports, several times side by side;
- a centre shares no file with the machine on which the tests run, as in real life: a local path that slips into a
  remote job fails;
- ``kill -9`` of the test run ends everything (see ``_init.py``) and nothing of the machine itself is changed.

What stays visible is this checkout and the Python that runs the tests, read-only and at the same paths, so an
ordinary user can start ``matcompute-node``. Where a folder above them may not be entered by others (``/root``), the
container has an own empty one in its place.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from .user import USER, make_key

__all__ = ["HOSTS", "SSHD", "Container", "SshLogin", "missing", "new_folder", "sweep"]

ROOT = Path(__file__).parents[3]
SSHD = "/usr/sbin/sshd"
PREFIX = "matcompute-cluster-"
#: Login hosts of a container; see ``_init.py``.
HOSTS = ("127.0.0.1", "127.0.0.2")

#: Folders of which each container has its own, as far as the machine has them.
HIDDEN = (
    "/etc",
    "/home",
    "/root",
    "/run",
    "/srv",
    "/tmp",
    "/var/tmp",
    "/var/log",
    "/var/lib/munge",
    "/var/lib/gridengine",
    "/var/spool/gridengine",
)
SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
PrintMotd no
PrintLastLog no
AllowUsers {user}
Subsystem sftp internal-sftp
LogLevel VERBOSE
"""
#: The one environment module there is: ``chemistry/1.0``.
MODULE = """\
#%Module1.0
setenv CHEMISTRY_VERSION 1.0
"""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class SshLogin:
    """How to log in to a container from outside."""

    host: str
    port: int
    user: str
    key: Path
    known_hosts: Path

    def command(self, *words: str) -> list[str]:
        """Return the OpenSSH command line that runs something there."""
        options = {
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
            "BatchMode": "yes",
            "ConnectTimeout": "10",
        }
        flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        where = ["-p", str(self.port), "-i", str(self.key), f"{self.user}@{self.host}"]
        return ["ssh", "-F", "none", *flags, *where, *words]


def new_folder() -> tuple[Path, IO[str]]:
    """Make the folder of a test run; the lock that comes with it says that the run lives."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o755)
    lock = (folder / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return folder, lock


def sweep() -> list[Path]:
    """Remove the folders of test runs that were killed, and what might still run in them."""
    removed = []
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            with (folder / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            if time.time() - folder.stat().st_mtime < 60:  # being made this moment
                continue
        except OSError:
            continue
        for path in folder.glob("*/container.pid"):
            _end(int(path.read_text()), folder)
        shutil.rmtree(folder, ignore_errors=True)
        removed.append(folder)
    return removed


def _end(pid: int, folder: Path) -> None:
    """Kill a container's first process, unless its number belongs to somebody else by now."""
    try:
        if str(folder) in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        pass


class Container:
    """A machine of its own; files under ``root`` are what it sees below ``/``.

    Parameters
    ----------
    folder
        Where its files are kept; is made.
    hostname
        Its name.
    """

    def __init__(self, folder: Path, hostname: str) -> None:
        self.folder, self.hostname = folder, hostname
        self.root = folder / "root"
        self.log = self.root / "srv/log"
        self.user = USER
        self._keeper: subprocess.Popen[str] | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self.pid = 0
        self._prepare()

    # ------------------------------------------------------------------ files
    def _prepare(self) -> None:
        shown, blockers = _visible()
        self._shown = shown
        self._hidden = sorted({*(path for path in HIDDEN if Path(path).is_dir()), *blockers})
        for path in self._hidden:
            (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        etc = self.root / "etc"
        unused = shutil.ignore_patterns(
            "certs", "java*", "rc*.d", "init.d", "systemd", "exim4", "moduli", "fonts"
        )
        shutil.copytree("/etc", etc, symlinks=True, dirs_exist_ok=True, ignore=unused)
        for name in ("tmp", "var/tmp"):
            (self.root / name).chmod(0o1777)
        (self.root / "run/sshd").mkdir()
        self.log.mkdir()
        self.user.add_to(etc)
        (etc / "hostname").write_text(f"{self.hostname}\n")
        (etc / "hosts").write_text(f"127.0.0.1 {self.hostname} localhost\n")
        (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files\n")
        modules = etc / "environment-modules/modules/chemistry"
        modules.mkdir(parents=True)
        (modules / "1.0").write_text(MODULE)
        for key in (etc / "ssh").glob("ssh_host_*"):
            key.unlink()
        host_key = make_key(etc / "ssh/ssh_host_ed25519_key", self.hostname)
        self._host_key = " ".join(host_key.split()[:2])
        (etc / "ssh/sshd_config").write_text(SSHD_CONFIG.format(user=self.user.name))
        self.home = self.user.make_home(self.root, make_key(self.folder / "id_ed25519", "matcompute tests"))

    def write(self, path: str, text: str, mode: int = 0o644, owner: str = "root") -> Path:
        """Write a file of the container, given its path there."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        shutil.chown(target, owner)
        return target

    def mkdir(self, path: str, mode: int = 0o755, owner: str = "root") -> Path:
        """Make a folder of the container, given its path there."""
        target = self.root / path.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(mode)
        shutil.chown(target, owner)
        return target

    # ------------------------------------------------------------------ life
    def start(self) -> None:
        """Make the namespaces and open the SSH port."""
        sshd = [SSHD, "-i", "-f", "/etc/ssh/sshd_config", "-E", "/srv/log/sshd.log"]
        spec = {
            "owner": os.getpid(),
            "hostname": self.hostname,
            "hosts": HOSTS,
            "root": str(self.root),
            "hidden": self._hidden,
            "shown": self._shown,
            "sshd": sshd,
        }
        path = self.folder / "container.json"
        path.write_text(json.dumps(spec))
        init = Path(__file__).with_name("_init.py")
        with (self.folder / "container.log").open("w") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(init), str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={"PATH": PATH, "LANG": "C.UTF-8"},
            )
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        if not line:
            raise RuntimeError(f"container {self.hostname}: {(self.folder / 'container.log').read_text()}")
        ready = json.loads(line)
        self.pid = ready["pid"]
        (self.folder / "container.pid").write_text(str(self.pid))
        known_hosts = self.folder / "known_hosts"
        known_hosts.write_text("".join(f"[{host}]:{ready['port']} {self._host_key}\n" for host in HOSTS))
        self.ssh = SshLogin(HOSTS[0], ready["port"], self.user.name, self.folder / "id_ed25519", known_hosts)

    def stop(self) -> None:
        """End every process of the container; its network and mounts go with them."""
        if self.pid:
            _end(self.pid, self.folder)
        if self._keeper is not None:
            self._keeper.wait(timeout=60)
        for child in self._children:
            child.wait(timeout=60)
        self.pid = 0

    def sshd_down(self, *hosts: str) -> None:
        """Refuse SSH connections, and cut those that are there, at some login hosts; all by default."""
        self._switch(hosts, 0)

    def sshd_up(self, *hosts: str) -> None:
        """Accept SSH connections again."""
        self._switch(hosts, 1)

    def _switch(self, hosts: tuple[str, ...], on: int) -> None:
        for number, host in enumerate(HOSTS):
            if not hosts or host in hosts:
                os.kill(self.pid, signal.SIGRTMIN + 2 * number + on)

    # ------------------------------------------------------------------ processes
    def _inside(self, words: Sequence[str], user: bool) -> list[str]:
        who = [f"--setuid={self.user.uid}", f"--setgid={self.user.gid}"] if user else []
        home = self.user.home if user else "/"
        return [
            "nsenter",
            f"--target={self.pid}",
            "-m",
            "-u",
            "-i",
            "-n",
            "-p",
            f"--wdns={home}",
            *who,
            "--",
            *words,
        ]

    def _environment(self, env: Mapping[str, str] | None, user: bool) -> dict[str, str]:
        home = self.user.home if user else "/root"
        return {"PATH": PATH, "LANG": "C.UTF-8", "HOME": home, **(env or {})}

    def run(
        self,
        *words: str,
        user: bool = False,
        check: bool = True,
        timeout: float = 180,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or as the ordinary user; not over SSH."""
        done = subprocess.run(
            self._inside(words, user),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment(env, user),
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{self.hostname}: {' '.join(words)}: {done.returncode}\n{done.stdout}")
        return done

    def spawn(
        self, *words: str, log: str, user: int | None = None, env: Mapping[str, str] | None = None
    ) -> Service:
        """Start a daemon inside, in the foreground of its own process; its output goes to ``/srv/log/LOG``."""
        path = self.log / log
        command = self._inside(words, False)
        if user is not None:
            command[-len(words) - 1 : -len(words) - 1] = [f"--setuid={user}"]
        with path.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment(env, False),
                start_new_session=True,
            )
        self._children.append(process)
        return Service(self, words, process, path)

    def over_ssh(
        self, command: str, *, check: bool = True, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the ordinary user over SSH."""
        done = subprocess.run(
            self.ssh.command(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{self.hostname}: {command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 300) -> Any:
        """Wait for something; its last error or the services' logs are in the message when it does not happen."""
        deadline = time.monotonic() + timeout
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.hostname}: {what}: not within {timeout:.0f} s\n{self.logs()}")
            time.sleep(0.05)

    def logs(self) -> str:
        """Return the end of each log."""
        texts = {path.name: path.read_text(errors="replace") for path in sorted(self.log.glob("*.log"))}
        return "\n".join(f"--- {name}\n{text[-2000:]}" for name, text in texts.items())


class Service:
    """A daemon in a container."""

    def __init__(
        self, container: Container, words: Sequence[str], process: subprocess.Popen[bytes], log: Path
    ) -> None:
        self.container, self.words, self.process, self.log = container, words, process, log

    def kill(self) -> None:
        """``kill -9``."""
        # nsenter's only child is the daemon; killing nsenter would leave it.
        for child in psutil.Process(self.process.pid).children():
            child.kill()
        self.process.wait(timeout=60)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None


def missing(*programs: str) -> list[str]:
    """Return those programs that are not installed."""
    return [name for name in programs if shutil.which(name, path=PATH) is None]


def _visible() -> tuple[list[str], list[str]]:
    """Return the folders that must stay visible, and the folders above them that others may not enter."""
    needed = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}
    needed |= {ROOT / name for name in ("src", "kernels", "workflows")}
    top = sorted({path.resolve() for path in needed if path.exists()}, key=lambda path: len(path.parts))
    shown: list[Path] = []
    for path in top:
        if not str(path).startswith(("/usr", "/opt")) and not any(
            path.is_relative_to(seen) for seen in shown
        ):
            shown.append(path)
    blockers = []
    for path in shown:
        for above in reversed(path.parents):
            if not above.stat().st_mode & 0o001:
                blockers.append(str(above))
                break
    return [str(path) for path in shown], blockers

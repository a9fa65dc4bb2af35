"""``Site``: what the test centres have in common."""

from __future__ import annotations

import os
import shutil
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from .container import Container, Service, SshLogin

__all__ = ["Site", "merge"]

#: Folder in the user's home for the machine code of the kernels.
CACHE = ".numba"


class Site(ABC):
    """A compute centre that is reached over SSH as an ordinary user.

    Parameters
    ----------
    folder
        Where its files are kept.
    name
        Centre id and host name.
    clearance
        Highest data grade of the centre.
    max_minutes
        Longest walltime of a job.
    """

    #: ``scheduler.type`` of the profile, and what has to be installed.
    scheduler: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    nodes: tuple[str, ...]

    def __init__(self, folder: Path, name: str, *, clearance: str = "general", max_minutes: int = 60) -> None:
        self.name, self.clearance, self.max_minutes = name, clearance, max_minutes
        self.container = Container(folder, name)
        self.controller: Service | None = None

    # ------------------------------------------------------------------ life
    @abstractmethod
    def start(self) -> None:
        """Start the services; ready for jobs on return."""

    def stop(self) -> None:
        """End everything that runs there."""
        self.container.stop()

    @property
    def ssh(self) -> SshLogin:
        """How to log in."""
        return self.container.ssh

    @property
    def home(self) -> Path:
        """The ordinary user's home, as a path of the machine that runs the tests."""
        return self.container.home

    @property
    def scratch(self) -> Path:
        """The jobs' folder, as a path of the machine that runs the tests."""
        return self.home / "scratch"

    def __call__(self, command: str, *, check: bool = True, timeout: float = 180) -> str:
        """Run a command as the ordinary user over SSH; return what it prints."""
        return self.container.over_ssh(command, check=check, timeout=timeout).stdout

    def give_cache(self, compiled: Path) -> None:
        """Give the user the kernels' machine code; without, every job compiles them: the checkout is read-only."""
        target = self.home / CACHE
        shutil.copytree(compiled, target, dirs_exist_ok=True)
        user = self.container.user
        for path in (target, *target.rglob("*")):
            os.chown(path, user.uid, user.gid)

    # ------------------------------------------------------------------ faults
    @abstractmethod
    def start_controller(self, *, wait: bool = True) -> None:
        """Start the scheduler's controller, with the state that an earlier one has left."""

    def kill_controller(self) -> None:
        """``kill -9`` the controller; running jobs run on."""
        assert self.controller is not None
        self.controller.kill()

    @abstractmethod
    def controller_answers(self) -> bool:
        """Whether the controller is up."""

    @abstractmethod
    def drain(self, node: str) -> None:
        """Take a node out: running jobs end, no new ones start."""

    @abstractmethod
    def resume(self, node: str) -> None:
        """Bring a node back."""

    @abstractmethod
    def node_states(self) -> dict[str, str]:
        """Return the state of each node, ``idle`` when it waits for jobs; empty when the controller is down."""

    @abstractmethod
    def cancel_all(self) -> None:
        """Cancel the user's jobs."""

    @abstractmethod
    def jobs(self) -> list[str]:
        """Return the numbers of the user's jobs that have not ended."""

    def why(self) -> str:
        """Return what the scheduler says of nodes that take no jobs."""
        return ""

    def settle(self) -> None:
        """Bring all in order before a test: no jobs, nodes that wait for some.

        A scheduler takes a node out by itself when a job's processes would not end in time, as on a busy machine; a
        test that needs the node would then wait for ever. What was found is told as a warning.
        """
        if set(self.node_states().values()) == {"idle"}:
            return
        self.cancel_all()
        deadline = time.monotonic() + 20
        while set(self.node_states().values()) != {"idle"} and time.monotonic() < deadline:
            time.sleep(0.25)
        states = self.node_states()
        if set(states.values()) == {"idle"}:
            return
        warnings.warn(f"{self.name}: {states} before a test\n{self.why()}", stacklevel=2)
        for node in self.nodes:
            if states.get(node) != "idle":
                self.resume(node)
        self.container.until(lambda: set(self.node_states().values()) == {"idle"}, "idle nodes", 90)

    def sshd_down(self, *hosts: str) -> None:
        """Refuse SSH connections, and cut those that are there, at some login hosts; all by default."""
        self.container.sshd_down(*hosts)

    def sshd_up(self, *hosts: str) -> None:
        """Accept SSH connections again."""
        self.container.sshd_up(*hosts)

    # ------------------------------------------------------------------ profile
    @abstractmethod
    def blocks(self) -> dict[str, Any]:
        """Return the scheduler's part of the profile."""

    def profile(self, path: Path, **overrides: Any) -> Path:
        """Write a centre profile that works.

        Parameters
        ----------
        path
            The file, or a folder in which it gets the centre's name.
        **overrides
            What the test wants different, block by block: see :func:`merge`.
        """
        import yaml

        login = {
            "transport": "ssh",
            "hosts": [self.ssh.host],
            "port": self.ssh.port,
            "user": self.ssh.user,
            "auth": {
                "method": "key",
                "key_file": str(self.ssh.key),
                "known_hosts": str(self.ssh.known_hosts),
            },
            "safe_interval_s": 0.0,
        }
        programs = Path(sys.prefix) / "bin"
        code = {
            "name": "matcompute-node",
            "plugin": "matcompute.batch",
            "executable": str(programs / "matcompute-node"),
        }
        data = {
            "schema": "matcompute.centre/v1",
            "centre": {"id": self.name, "title": f"test centre {self.name}", "clearance": self.clearance},
            "login": login,
            "scheduler": {"type": self.scheduler, "poll_interval_s": 0.5, "max_submitted": 4},
            "storage": {"work_dir": f"{self.container.user.home}/scratch"},
            "launch": {
                "mpi": f"{programs / 'mpiexec'} -n {{tot_num_mpiprocs}}",
                "env": {"NUMBA_CACHE_DIR": f"{self.container.user.home}/{CACHE}"},
            },
            "codes": [code],
        }
        if path.is_dir():
            path = path / f"{self.name}.yaml"
        path.write_text(yaml.safe_dump(merge(merge(data, self.blocks()), overrides), sort_keys=False))
        return path

    @property
    def max_wall(self) -> str:
        """Longest walltime, hours:minutes:seconds."""
        return f"{self.max_minutes // 60:02d}:{self.max_minutes % 60:02d}:00"


def merge(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings key by key; anything else, lists too, is replaced; None removes."""
    merged = dict(base)
    for key, value in extra.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged

"""The workspace folder: where things are, and the way to its AiiDA profile and daemon."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from matcompute._env import environment, prepare_environment
from matcompute.workspace.errors import WorkspaceError
from matcompute.workspace.settings import FILENAME, WorkspaceSettings

if TYPE_CHECKING:
    from aiida.manage.configuration import Profile

    from matcompute.workspace.status import DaemonStatus, RepairReport

__all__ = ["Workspace"]


class Workspace:
    """A folder with ``matcompute.toml``: its own AiiDA profile, state tables, datasets, scratch and logs.

    Use :meth:`create` or :meth:`find`; the constructor opens an existing workspace.

    Parameters
    ----------
    root
        The folder that holds ``matcompute.toml``.

    Raises
    ------
    WorkspaceError
        If there is no such file, or it cannot be used.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()
        if not self.settings_path.is_file():
            raise WorkspaceError(
                f"no workspace in {self.root}: {FILENAME} is missing",
                hint="make one with: matcompute init " + str(root),
            )
        self.settings = WorkspaceSettings.load(self.settings_path)
        #: Processes that the last :meth:`repair` of this object gave a new task.
        self.revived_before: set[int] = set()

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    # ------------------------------------------------------------------ making and finding
    @classmethod
    def create(cls, path: Path | str, profile: str | None = None, *, title: str = "") -> Workspace:
        """Make a workspace in a folder (made if absent).

        Parameters
        ----------
        path
            The folder. It may hold other files (campaign files, structures).
        profile
            Name of an existing AiiDA profile of the user, to use instead of an embedded one.
        title
            Free text, kept in ``matcompute.toml``.

        Raises
        ------
        WorkspaceError
            If there is a workspace already, the folder cannot be written, or there is no such profile.
        """
        from matcompute.workspace import profiles

        root = Path(path).expanduser().resolve()
        if (root / FILENAME).exists():
            raise WorkspaceError(
                f"{root} is a workspace already", hint="use it as it is, or choose another folder"
            )
        if root.exists() and not root.is_dir():
            raise WorkspaceError(f"{root} is a file, a workspace needs a folder")
        _require_writable(root)
        settings = (
            WorkspaceSettings(title=title)
            if profile is None
            else WorkspaceSettings(
                title=title,
                profile=profile,
                embedded=False,
                aiida_path=str(profiles.find_user_profile(profile)),
            )
        )
        for name in ("datasets", "scratch", "logs", "slots", "centres", "cache/numba", "cache/matplotlib"):
            (root / name).mkdir(parents=True, exist_ok=True)
        if settings.embedded:
            profiles.create_embedded(root, settings.profile)
        # The settings file comes last: a folder is a workspace only when everything else is there.
        settings.save(root / FILENAME)
        return cls(root)

    @classmethod
    def find(cls, start: Path | str | None = None) -> Workspace:
        """Open the workspace of a folder: the folder itself or the nearest one above it.

        Parameters
        ----------
        start
            Where to look; default is the environment variable ``MATCOMPUTE_WORKSPACE``, else the current folder.

        Raises
        ------
        WorkspaceError
            If there is none.
        """
        chosen = start if start is not None else os.environ.get("MATCOMPUTE_WORKSPACE")
        here = Path(chosen if chosen is not None else Path.cwd()).expanduser().resolve()
        for folder in (here, *here.parents):
            if (folder / FILENAME).is_file():
                return cls(folder)
        where = f"{here} (from MATCOMPUTE_WORKSPACE)" if start is None and chosen is not None else str(here)
        raise WorkspaceError(
            f"no workspace in {where} or any folder above it",
            hint="make one with 'matcompute init', or name one with --workspace or MATCOMPUTE_WORKSPACE",
        )

    # ------------------------------------------------------------------ where things are
    @property
    def settings_path(self) -> Path:
        """``matcompute.toml``."""
        return self.root / FILENAME

    @property
    def state_path(self) -> Path:
        """The SQLite file of the campaign state tables."""
        return self.root / "state.sqlite"

    @property
    def datasets_dir(self) -> Path:
        """Where finished datasets are written."""
        return self.root / "datasets"

    @property
    def scratch_dir(self) -> Path:
        """Working directories of the local centre's jobs."""
        return self.root / "scratch"

    @property
    def logs_dir(self) -> Path:
        """Logs of the dispatcher and of the daemon's start."""
        return self.root / "logs"

    @property
    def cache_dir(self) -> Path:
        """Caches of Numba, Matplotlib and others."""
        return self.root / "cache"

    @property
    def slots_dir(self) -> Path:
        """One lock file per core of the local centre; a worker holds one while it computes."""
        return self.root / "slots"

    @property
    def centres_dir(self) -> Path:
        """Centre files of this workspace (``local.yaml`` overrides what is detected)."""
        return self.root / "centres"

    @property
    def ssh_dir(self) -> Path:
        """The ssh configuration of the centres, and in ``bin`` the programs that read it."""
        return self.root / "ssh"

    @property
    def aiida_path(self) -> Path:
        """``AIIDA_PATH`` of the profile."""
        if self.settings.embedded:
            return self.root / self.settings.aiida_path
        return Path(self.settings.aiida_path)

    @property
    def profile_name(self) -> str:
        """Name of the AiiDA profile."""
        return self.settings.profile

    # ------------------------------------------------------------------ environment
    def environment(self) -> dict[str, str]:
        """Return the whole environment for a subprocess that works in this workspace."""
        env = {**os.environ, **environment(self.root)}
        env["AIIDA_PATH"] = str(self.aiida_path)
        env["MATCOMPUTE_WORKSPACE"] = str(self.root)
        env["PATH"] = _prepend(
            env.get("PATH", os.defpath), str(self.ssh_dir / "bin"), str(Path(sys.executable).parent)
        )
        # circus would put the packages of another active environment before ours.
        env.pop("VIRTUAL_ENV", None)
        return env

    def verdi_env(self) -> dict[str, str]:
        """Return the environment under which ``verdi`` sees this workspace's profile."""
        return self.environment()

    def require_writable(self) -> None:
        """Check that files can be made here.

        Raises
        ------
        WorkspaceError
            If not (read-only file system, missing permission, full disk).
        """
        _require_writable(self.root)

    # ------------------------------------------------------------------ AiiDA
    def load_profile(self) -> Profile:
        """Load this workspace's AiiDA profile into the process; a second call costs nothing.

        A workspace that was moved is noticed and its configuration adapted.

        Raises
        ------
        WorkspaceError
            If the profile is missing or its storage cannot be used.
        """
        from matcompute.workspace import profiles

        prepare_environment(self.root, aiida=False)
        os.environ["AIIDA_PATH"] = str(self.aiida_path)
        os.environ["PATH"] = _prepend(os.environ.get("PATH", os.defpath), str(self.ssh_dir / "bin"))
        return profiles.load(self)

    def ensure_daemon(self, *, timeout: float = 60.0) -> DaemonStatus:
        """Have a daemon that works: start it, or mend what a crash left, and wait until it answers.

        Costs a few milliseconds when all is well, so callers may ask often.

        Raises
        ------
        DaemonError
            If it does not answer within ``timeout`` seconds; while its parts live and are still starting, as on a busy
            machine, it has ten times as long.
        """
        from matcompute.workspace import daemon

        return daemon.ensure(self, timeout=timeout)

    def stop_daemon(self, *, timeout: float = 20.0) -> DaemonStatus:
        """Stop the daemon and whatever is left of it. Jobs that run go on; they are picked up at the next start."""
        from matcompute.workspace import daemon

        return daemon.stop(self, timeout=timeout)

    def daemon_status(self) -> DaemonStatus:
        """Look at the daemon without changing anything."""
        from matcompute.workspace import daemon

        return daemon.status(self)

    def restart_worker(self, *, timeout: float = 60.0) -> DaemonStatus:
        """Replace the worker; the new one goes on from the last steps on record."""
        from matcompute.workspace import daemon

        return daemon.restart_worker(self, timeout=timeout)

    def repair(self, *, timeout: float = 60.0) -> RepairReport:
        """Mend the daemon and bring back processes whose task was lost; see :mod:`matcompute.workspace.repair`."""
        from matcompute.workspace.repair import repair

        return repair(self, timeout=timeout)


def _prepend(path: str, *folders: str) -> str:
    """Put folders first on a PATH, each once."""
    rest = [part for part in path.split(os.pathsep) if part not in folders]
    return os.pathsep.join([*folders, *rest])


def _require_writable(root: Path) -> None:
    """Make the folder if needed and a file in it; os.access says nothing about full or read-only disks."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root) as handle:
            handle.write(b"matcompute")
    except OSError as error:
        raise WorkspaceError(
            f"cannot write in {root}: {error.strerror or error}",
            hint="free space on the disk, mend the permissions, or make the workspace elsewhere",
        ) from error

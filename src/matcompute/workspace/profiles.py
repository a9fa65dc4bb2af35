"""AiiDA profiles: the embedded one of a workspace, or one that the user has already."""

from __future__ import annotations

import json
import os
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute._env import prepare_environment
from matcompute.errors import did_you_mean
from matcompute.workspace.errors import WorkspaceError

if TYPE_CHECKING:
    from aiida.manage.configuration import Profile

    from matcompute.workspace.workspace import Workspace

__all__ = ["OPTIONS", "create_embedded", "find_user_profile", "load", "relocate"]

#: AiiDA options of an embedded profile, and why each differs from AiiDA's default.
OPTIONS: dict[str, Any] = {
    # Fallback when a broadcast is missed; the default of 60 s would stall a small campaign.
    "runner.poll.interval": 1,
    # A loaded machine answers late.
    "daemon.timeout": 10,
    # A transport task that fails (full disk, missing folder) is tried 5 times: 2, 4, 8, 16 s, then paused.
    "transport.task_retry_initial_interval": 2,
    # The same first-principles calculation is not run twice, in whatever campaign it comes up again.
    "caching.enabled_for": ["aiida.calculations:quantumespresso.pw"],
    "warnings.showdeprecations": False,
    "warnings.rabbitmq_version": False,
}
GLOBAL_OPTIONS: dict[str, Any] = {"warnings.development_version": False}
STORAGE_FOLDER = "storage"


def create_embedded(root: Path, name: str) -> None:
    """Make the embedded profile: SQLite storage and ZeroMQ broker, both inside the workspace.

    Parameters
    ----------
    root
        The workspace folder.
    name
        Name of the profile.
    """
    prepare_environment(root)
    path = root / "aiida"
    path.mkdir(parents=True, exist_ok=True)
    os.environ["AIIDA_PATH"] = str(path)
    _switch_configuration(path)
    from aiida.common.exceptions import AiidaException
    from aiida.common.log import AIIDA_LOGGER
    from aiida.manage.configuration import create_profile, get_config

    AIIDA_LOGGER.setLevel("WARNING")  # no "Initialising the storage backend" on the user's terminal
    storage = path / STORAGE_FOLDER
    try:
        config = get_config(create=True)
        create_profile(
            config,
            name=name,
            email="matcompute@localhost",
            first_name="matcompute",
            institution="",
            storage_backend="core.sqlite_dos",
            storage_config={"filepath": str(storage)},
            broker_backend="core.zeromq",
            broker_config={"supervised_by_daemon": True},
        )
        for option, value in OPTIONS.items():
            config.set_option(option, value, scope=name)
        for option, value in GLOBAL_OPTIONS.items():
            config.set_option(option, value)
        config.set_default_profile(name, overwrite=True)
        config.store()
    except (AiidaException, ValueError, OSError) as error:
        raise WorkspaceError(
            f"cannot make the AiiDA profile in {path}: {error}",
            hint=f"remove {path} if an earlier attempt was cut short, and try again",
        ) from error
    _write_ahead_log(storage)
    for backup in (path / ".aiida").glob("config.json.2*"):
        backup.unlink()  # copies of the half-made configuration


def _write_ahead_log(storage: Path) -> None:
    """Let readers and the one writer of the database work side by side; the mode is kept in the file."""
    with closing(sqlite3.connect(storage / "database.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def find_user_profile(name: str) -> Path:
    """Return the ``AIIDA_PATH`` under which the user's profile ``name`` is configured.

    Nothing is created: the configuration file is only read.

    Raises
    ------
    WorkspaceError
        If there is no such profile; the nearest spelling is given.
    """
    paths = [Path(part).expanduser() for part in os.environ.get("AIIDA_PATH", "").split(os.pathsep) if part]
    known: set[str] = set()
    for path in paths or [Path.home()]:
        folder = path if path.name == ".aiida" else path / ".aiida"
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise WorkspaceError(f"cannot read {folder / 'config.json'}: {error}") from error
        if name in config.get("profiles", {}):
            return folder.resolve()
        known.update(config.get("profiles", {}))
    where = ", ".join(str(path) for path in paths) or "the home folder"
    raise WorkspaceError(
        f"no AiiDA profile '{name}' under {where}{did_you_mean(name, known)}",
        hint="set AIIDA_PATH to where the profile is, or leave --profile out for an embedded one",
    )


def relocate(workspace: Workspace) -> bool:
    """Adapt the absolute paths in an embedded configuration after the workspace was moved or copied.

    Returns whether anything had to change.

    Raises
    ------
    WorkspaceError
        If the configuration or the storage is missing.
    """
    path = workspace.aiida_path / ".aiida" / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        storage = config["profiles"][workspace.profile_name]["storage"]["config"]
    except FileNotFoundError:
        raise WorkspaceError(
            f"the AiiDA configuration of the workspace is missing: {path}",
            hint="restore the folder 'aiida' from a backup, or make a new workspace",
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise WorkspaceError(
            f"the AiiDA configuration of the workspace is damaged: {path}: {error}",
            hint="restore it from a backup; AiiDA keeps older copies beside it",
        ) from error
    expected = workspace.aiida_path / STORAGE_FOLDER
    if not (expected / "database.sqlite").is_file():
        raise WorkspaceError(
            f"the AiiDA database of the workspace is missing: {expected / 'database.sqlite'}",
            hint="restore the folder 'aiida' from a backup, or make a new workspace",
        )
    if storage.get("filepath") == str(expected):
        return False
    workspace.require_writable()
    storage["filepath"] = str(expected)
    temporary = path.with_name(f".config.json.{os.getpid()}")
    temporary.write_text(json.dumps(config, indent=4), encoding="utf-8")
    temporary.replace(path)
    return True


def _switch_configuration(path: Path) -> None:
    """Point AiiDA at a configuration folder, also when it was imported under another ``AIIDA_PATH``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Creating AiiDA configuration folder"
        from aiida.manage import get_manager
        from aiida.manage.configuration import reset_config
        from aiida.manage.configuration.settings import AiiDAConfigDir

        folder = path if path.name == ".aiida" else path / ".aiida"
        if AiiDAConfigDir.get() != folder or not folder.exists():
            get_manager().unload_profile()
            AiiDAConfigDir.set(folder)
            reset_config()


def load(workspace: Workspace) -> Profile:
    """Load the profile of a workspace (idempotent; switches from the profile of another workspace).

    Raises
    ------
    WorkspaceError
        If the profile is missing or its storage cannot be used.
    """
    if workspace.settings.embedded:
        relocate(workspace)
    _switch_configuration(workspace.aiida_path)
    from aiida.common.exceptions import AiidaException
    from aiida.manage import get_manager
    from aiida.manage.configuration import get_config, load_profile

    loaded = get_manager().get_profile()
    try:
        profile = get_config().get_profile(workspace.profile_name)
        if loaded is not None and loaded.uuid == profile.uuid:
            return loaded
        if workspace.settings.embedded:
            from matcompute.workspace.sqlite import tune_connections

            tune_connections(workspace.aiida_path / STORAGE_FOLDER / "database.sqlite")
        return load_profile(workspace.profile_name, allow_switch=True)
    except AiidaException as error:
        raise WorkspaceError(
            f"cannot load the AiiDA profile '{workspace.profile_name}' of {workspace.root}: {error}",
            hint="look at it with: matcompute verdi status",
        ) from error

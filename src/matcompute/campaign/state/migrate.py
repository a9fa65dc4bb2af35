"""Bringing a state database to the newest schema with Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

__all__ = ["head", "known_revisions", "upgrade"]

_MIGRATIONS = Path(__file__).parent / "migrations"


def _config(path: Path | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    if path is not None:
        config.attributes["path"] = path
    return config


def known_revisions() -> set[str]:
    """Return the revisions that this program knows."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def head() -> str | None:
    """Return the newest revision."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def upgrade(path: Path, revision: str = "head") -> None:
    """Upgrade the database at ``path``, making it if it does not exist."""
    command.upgrade(_config(path), revision)

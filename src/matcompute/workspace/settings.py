"""``matcompute.toml``: the file that makes a folder a workspace."""

from __future__ import annotations

import json
import os
import tomllib
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from matcompute.workspace.errors import WorkspaceError

__all__ = ["FILENAME", "SCHEMA", "WorkspaceSettings"]

FILENAME = "matcompute.toml"
SCHEMA = "matcompute.workspace/v1"


@dataclass(frozen=True)
class WorkspaceSettings:
    """The contents of ``matcompute.toml``.

    Parameters
    ----------
    profile
        Name of the AiiDA profile.
    embedded
        Whether the profile lives inside the workspace (and its daemon is looked after by us).
    aiida_path
        ``AIIDA_PATH`` of the profile: relative to the workspace when embedded, absolute when the user's own.
    """

    title: str = ""
    profile: str = "matcompute"
    embedded: bool = True
    aiida_path: str = "aiida"
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def load(cls, path: Path) -> WorkspaceSettings:
        """Read the file.

        Raises
        ------
        WorkspaceError
            If it cannot be read, is no TOML, or was made by another version of the format.
        """
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise WorkspaceError(f"cannot read {path}: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise WorkspaceError(
                f"{path} is not valid TOML: {error}", hint="mend the file by hand"
            ) from error
        if data.get("schema") != SCHEMA:
            raise WorkspaceError(
                f"{path}: key 'schema' is {data.get('schema')!r}, expected {SCHEMA!r}",
                hint="the workspace was made by another version of matcompute; use that version",
            )
        aiida = data.get("aiida", {})
        try:
            return cls(
                title=str(data.get("title", "")),
                profile=str(aiida["profile"]),
                embedded=bool(aiida["embedded"]),
                aiida_path=str(aiida["path"]),
                uuid=str(data["uuid"]),
                created=str(data["created"]),
            )
        except KeyError as error:
            raise WorkspaceError(f"{path}: key {error} is missing", hint="mend the file by hand") from error

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        # A JSON string is a valid TOML basic string.
        lines = [
            "# This folder is a matcompute workspace. See docs/how-to/workspace.md.",
            f"schema = {json.dumps(SCHEMA)}",
            f"title = {json.dumps(self.title, ensure_ascii=False)}",
            f"uuid = {json.dumps(self.uuid)}",
            f"created = {json.dumps(self.created)}",
            "",
            "[aiida]",
            f"profile = {json.dumps(self.profile, ensure_ascii=False)}",
            f"embedded = {json.dumps(self.embedded)}",
            f"path = {json.dumps(self.aiida_path, ensure_ascii=False)}",
            "",
        ]
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text("\n".join(lines), encoding="utf-8")
        temporary.replace(path)

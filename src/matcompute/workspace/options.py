"""What a user may add to ``matcompute.toml``: limits over all centres, and who is told what happens."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from matcompute.delivery import EmailOptions
from matcompute.errors import did_you_mean
from matcompute.workspace.errors import WorkspaceError

__all__ = ["Event", "LimitOptions", "NotifyOptions", "Options", "load_options"]

Event = Literal["done", "stalled", "budget", "centre-down", "centre-up"]
_EVENTS: tuple[Event, ...] = ("done", "stalled", "budget", "centre-down", "centre-up")


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class LimitOptions(_Block):
    """``[limits]``."""

    max_jobs: int | None = Field(None, ge=1, description="Batches in flight at all centres together.")


class NotifyOptions(_Block):
    """``[notify]``."""

    events: tuple[Event, ...] = _EVENTS
    webhook: str | None = Field(None, pattern=r"^https?://\S+$")
    #: Name of the environment variable that holds the bearer token of the webhook.
    webhook_token_env: str | None = None
    #: ``[notify.email]``.
    email: EmailOptions | None = None

    @property
    def active(self) -> bool:
        """Whether anybody is told."""
        return bool(self.events) and (self.webhook is not None or self.email is not None)


class Options(_Block):
    """The optional tables of ``matcompute.toml``."""

    limits: LimitOptions = LimitOptions()
    notify: NotifyOptions = NotifyOptions()


def load_options(path: Path) -> Options:
    """Read the optional tables of a workspace's file.

    Raises
    ------
    WorkspaceError
        If a key is unknown or a value is wrong; all are listed.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkspaceError(f"cannot read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise WorkspaceError(f"{path} is not valid TOML: {error}", hint="mend the file by hand") from error
    try:
        return Options.model_validate({key: data[key] for key in Options.model_fields if key in data})
    except ValidationError as error:
        lines = [_describe(item["loc"], item["type"], item["msg"], item["input"]) for item in error.errors()]
        raise WorkspaceError(
            f"{path}: " + "; ".join(lines), hint="docs/how-to/several-centres.md shows the tables"
        ) from error


def _describe(loc: tuple[str | int, ...], kind: str, message: str, found: object) -> str:
    key = ".".join(str(part) for part in loc)
    if kind == "extra_forbidden":
        model: Any = Options
        for part in loc[:-1]:
            model = {"limits": LimitOptions, "notify": NotifyOptions, "email": EmailOptions}.get(
                str(part), model
            )
        known = [field.alias or name for name, field in model.model_fields.items()]
        return f"{key}: unknown key{did_you_mean(str(loc[-1]), known)}"
    return f"{key}: {message}" + ("" if kind == "missing" else f", found {found!r}")

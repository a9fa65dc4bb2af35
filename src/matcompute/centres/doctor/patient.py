"""``Patient``: the centre under examination, and what earlier steps have learnt of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matcompute.centres.edit import set_value
from matcompute.centres.model import Centre
from matcompute.centres.remote import Remote
from matcompute.yamlfile import KeyPath, format_key

if TYPE_CHECKING:
    from matcompute.centres.schedulers.live import LiveLimits

__all__ = ["Patient"]


@dataclass
class Patient:
    """The centre under examination.

    Attributes
    ----------
    centre
        The profile; replaced when a fix changes it.
    root
        Folder of the workspace; None outside of one.
    path, values
        The profile's file and the values of its variables; None for a centre without a file.
    remote
        The way there, once the login works.
    live
        What the scheduler said.
    user
        Who we are there.
    bad_partitions
        Partitions in which no job can be tried.
    bad_codes
        Codes that cannot be tried.
    smoke_timeout_s
        How long to wait for the smoke jobs, in s.
    """

    centre: Centre
    root: Path | None = None
    path: Path | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    remote: Remote | None = None
    live: LiveLimits | None = None
    user: str = ""
    bad_partitions: set[str] = field(default_factory=set)
    bad_codes: set[str] = field(default_factory=set)
    smoke_timeout_s: float = 300.0

    @property
    def way(self) -> Remote:
        """The login; only steps that come after it may ask."""
        assert self.remote is not None
        return self.remote

    @property
    def work_dir(self) -> str:
        """Folder of the jobs, every placeholder filled in."""
        text = self.centre.storage.work_dir
        if self.root is not None:
            text = text.replace("{workspace}", str(self.root))
        return text.replace("{username}", self.user).rstrip("/")

    def lower(self, path: KeyPath, value: Any, why: str) -> str:
        """Write another value into the profile's file; return what was done."""
        assert self.path is not None
        before = self.path.read_text(encoding="utf-8")
        self.path.write_text(set_value(before, path, value), encoding="utf-8")
        try:
            self.centre = Centre.load(self.path, self.values)
        except BaseException:
            self.path.write_text(before, encoding="utf-8")
            raise
        if self.remote is not None:
            self.remote.centre = self.centre
        return f"{self.path}: {format_key(path)} is now {value} ({why})"

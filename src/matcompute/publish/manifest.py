"""The normative description of one version of a dataset: `Manifest`, the bytes that are signed."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from matcompute.dataset import DOMAINS, GRADES, NODE_CLASSES, TIERS, spdx
from matcompute.dataset.errors import DatasetError
from matcompute.errors import did_you_mean
from matcompute.publish.canonical import dump, load, sha256
from matcompute.publish.errors import ManifestError
from matcompute.publish.rights import Identifiers, Rights

__all__ = ["MANIFEST", "SCHEMA", "SIGNATURE", "Counts", "File", "Manifest", "Previous"]

SCHEMA = "matcompute.manifest/v1"
#: Names of the two files that a release is recognised by.
MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def safe_path(path: str) -> str:
    """Return a path if it stays inside its folder on every system, else raise ValueError."""
    parts = path.split("/")
    bad = any(p in ("", ".", "..") for p in parts) or "\\" in path or ":" in path
    if bad or any(ord(c) < 32 or ord(c) == 127 for c in path) or PurePosixPath(path).is_absolute():
        raise ValueError(f"'{path}' is not a plain relative path")
    return path


def _one_of(known: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"'{value}' is not in the vocabulary{did_you_mean(value, known)}")
        return value

    return AfterValidator(check)


def _uuid(value: str) -> str:
    if str(UUID(value)) != value:
        raise ValueError(f"'{value}' is not a UUID in its usual spelling")
    return value


def _time(value: str) -> str:
    if not _TIME.fullmatch(value):
        raise ValueError(f"'{value}' is not a UTC time such as 2026-01-31T12:00:00Z")
    return value


def _licence(value: str) -> str:
    try:
        return spdx(value)
    except DatasetError as error:
        raise ValueError(error.message) from error


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, strict=True)]
Time = Annotated[str, AfterValidator(_time)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Model):
    """One file of the release."""

    path: Annotated[str, AfterValidator(safe_path)]
    size: Count
    sha256: Digest
    media_type: str
    role: str


class Counts(_Model):
    """How much there is."""

    entries: Count
    sites: Count
    shards: Count
    failed: Count


class Previous(_Model):
    """The version before."""

    version: Annotated[int, Field(ge=1, strict=True)]
    manifest_sha256: Digest


class Manifest(_Model):
    """What a release is: its terms, its files with sizes and digests, and the manifest before it.

    Parameters
    ----------
    dataset_id, version
        Identity: a UUID and an integer ≥ 1.
    title, created, node
        For people; UTC, ISO 8601; the publishing node's name.
    domain, node_class, grade, tier
        Controlled fields (``DOMAINS``, ``NODE_CLASSES``, ``GRADES``, ``TIERS`` of `matcompute.dataset`).
    licence
        SPDX expression.
    counts
        Entries, sites, shards, and entries with the quality flag *failed*.
    files
        Every file of the release but the manifest and its signature, sorted by path.
    previous
        Version and digest of the manifest before; None for version 1.
    software
        Name → version of what made the data.
    structures_sha256
        Digest over the sorted structure hashes of all entries: equal for two datasets of the same structures.
    keywords, identifiers, rights
        Words to find it by; CSTR and DOI; whose it is, who paid for it, embargo and patents. They stand in the file
        only where there are any.
    """

    schema_: Literal["matcompute.manifest/v1"] = Field("matcompute.manifest/v1", alias="schema")
    dataset_id: Annotated[str, AfterValidator(_uuid)]
    version: Annotated[int, Field(ge=1, strict=True)]
    title: Annotated[str, Field(min_length=1)]
    created: Time
    node: Annotated[str, Field(min_length=1)]
    domain: Annotated[str, _one_of(DOMAINS)]
    node_class: Annotated[str, _one_of(NODE_CLASSES)]
    grade: Annotated[str, _one_of(GRADES)]
    tier: Annotated[str, _one_of(TIERS)]
    licence: Annotated[str, AfterValidator(_licence)]
    counts: Counts
    files: tuple[File, ...]
    previous: Previous | None = None
    software: dict[str, str] = {}
    structures_sha256: Digest
    keywords: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    identifiers: Identifiers = Identifiers()
    rights: Rights = Rights()

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        paths = [f.path for f in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("files are not sorted by path, or a path occurs twice")
        if {MANIFEST, SIGNATURE} & set(paths):
            raise ValueError("the manifest cannot list itself or its signature")
        if (self.previous is None) != (self.version == 1):
            raise ValueError("version 1 has no previous manifest, and every other version has one")
        if self.previous is not None and self.previous.version != self.version - 1:
            raise ValueError(f"version {self.version} cannot follow version {self.previous.version}")
        return self

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able form."""
        data = self.model_dump(by_alias=True, mode="json")
        for name in ("identifiers", "rights"):
            data[name] = {key: value for key, value in data[name].items() if value}
        for name in ("keywords", "identifiers", "rights"):
            if not data[name]:
                del data[name]
        return data

    def to_bytes(self) -> bytes:
        """Return the canonical bytes: the content of ``manifest.json``, and what is signed."""
        return dump(self.to_json())

    @property
    def sha256(self) -> str:
        """Digest of the canonical bytes."""
        return sha256(self.to_bytes())

    def file(self, path: str) -> File:
        """Return the record of a file.

        Raises
        ------
        ManifestError
            If the release has no such file.
        """
        for file in self.files:
            if file.path == path:
                return file
        raise ManifestError(
            f"{self.dataset_id} version {self.version} has no file '{path}'"
            + did_you_mean(path, [f.path for f in self.files])
        )

    @classmethod
    def from_bytes(cls, raw: bytes, where: str = MANIFEST) -> Manifest:
        """Read a manifest and check it.

        Raises
        ------
        ManifestError
            If it is not canonical JSON, or a field is missing, unknown or wrong; the field is named.
        """
        try:
            manifest = cls.model_validate(load(raw, where))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ManifestError(f"{where}: {key + ': ' if key else ''}{first['msg']}") from error
        if manifest.to_bytes() != raw:
            # A default that was left out, or a licence in another spelling: what is signed is what stands there.
            raise ManifestError(
                f"{where}: not the manifest's own form (a field is left out or spelt otherwise)"
            )
        return manifest

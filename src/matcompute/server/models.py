"""What the pull protocol says, as models: its answers are described by them in ``/openapi.json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Changed",
    "Dataset",
    "DatasetPage",
    "Feed",
    "NodeDescription",
    "ReceiptPage",
    "Stored",
    "VersionInfo",
]


class _Model(BaseModel):
    model_config = ConfigDict(populate_by_name=True)


class NodeDescription(_Model):
    """Answer of ``/node``."""

    schema_: Literal["matcompute.node/v1"] = Field("matcompute.node/v1", alias="schema")
    id: str
    title: dict[str, str]
    organisation: dict[str, str]
    contact: str
    node_class: str
    software: str
    keyring: dict[str, Any]
    head: int
    protocol: list[str]
    doors: dict[str, str]


class Changed(_Model):
    """One change; see docs/reference/pull-protocol.md."""

    seq: int
    op: Literal["publish", "revise", "withdraw", "regrade"]
    dataset_id: str
    version: int | None
    manifest_sha256: str | None
    grade: str
    tier: str
    at: str
    reason: str


class Feed(_Model):
    """Answer of ``/changes``."""

    changes: list[Changed]
    next: int
    head: int
    more: bool


class VersionInfo(_Model):
    """One version of a dataset."""

    version: int
    manifest_sha256: str
    created: str
    withdrawn: bool
    entries: int
    size: int


class Summary(_Model):
    """A dataset in a list."""

    id: str
    title: str
    description: str
    domain: str
    node_class: str
    licence: str
    grade: str
    tier: str
    version: int
    entries: int
    first_at: str
    changed_at: str
    seq: int


class Dataset(Summary):
    """Answer of ``/datasets/{id}``."""

    schema_: Literal["matcompute.dataset/v1"] = Field("matcompute.dataset/v1", alias="schema")
    versions: list[VersionInfo]


class DatasetPage(_Model):
    """Answer of ``/datasets``."""

    datasets: list[Summary]
    next: str | None


class Stored(_Model):
    """Answer to a receipt."""

    number: int
    sha256: str
    received: str


class StoredReceipt(_Model):
    """A receipt in the admin's list."""

    number: int
    sha256: str
    dataset_id: str
    version: int
    manifest_sha256: str
    verdict: str
    reason: str
    receiver: str
    at: str
    key_id: str
    signature: str
    token_id: str
    received: str


class ReceiptPage(_Model):
    """Answer of ``GET /receipts``."""

    receipts: list[StoredReceipt]
    next: int | None

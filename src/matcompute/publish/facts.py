"""What is known about a release: the one input of every mapping (`matcompute.publish.mappings`)."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, field_validator

from matcompute.dataset import DOMAINS, GRADES, NODE_CLASSES, TIERS, spdx
from matcompute.dataset.errors import DatasetError
from matcompute.publish.rights import CSTR_PATTERN, Identifiers, Rights

__all__ = [
    "CSTR_PATTERN",
    "Contributor",
    "FileFact",
    "Identifiers",
    "NodeFact",
    "ReleaseFacts",
    "SoftwareFact",
]

_SHA256 = r"^[0-9a-f]{64}$"
_DATE = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$"
_ORCID = re.compile(r"^(?:https?://orcid\.org/)?(\d{4}-\d{4}-\d{4}-\d{3}[\dX])$")
_ONE_LICENCE = re.compile(r"^(?!LicenseRef-)[A-Za-z0-9.+-]+$")


class _Fact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Contributor(_Fact):
    """A person or an organisation that made the dataset; `orcid` without its address."""

    name: str = Field(min_length=1)
    orcid: str | None = None
    affiliation: str | None = None
    kind: Literal["person", "organization"] = "person"

    @field_validator("orcid")
    @classmethod
    def _orcid(cls, value: str | None) -> str | None:
        if not value:
            return None
        match = _ORCID.match(value)
        if match is None:
            raise ValueError(f"'{value}' is not an ORCID iD (0000-0000-0000-0000)")
        return match.group(1)


class FileFact(_Fact):
    """One file of the release: path inside it, bytes, SHA-256 in hexadecimal."""

    path: str = Field(min_length=1)
    size: int = Field(ge=0)
    sha256: str = Field(pattern=_SHA256)
    media_type: str = "application/octet-stream"
    role: str = "data"


class SoftwareFact(_Fact):
    """A program that made the data."""

    name: str = Field(min_length=1)
    version: str = ""
    url: str | None = None


class NodeFact(_Fact):
    """The data node that publishes; its address may be unknown when a release is built."""

    name: str = Field(min_length=1)
    url: str | None = None


class ReleaseFacts(_Fact):
    """All that a mapping may say about one version of one dataset.

    Parameters
    ----------
    dataset_id, version
        UUID; number of the version, from 1.
    title, description, keywords
        For people.
    created
        UTC, ISO 8601 with ``Z``.
    node
        Who publishes.
    domain, node_class, grade, tier
        Controlled fields of :mod:`matcompute.dataset.metadata`.
    licence
        SPDX expression; stored in its canonical spelling.
    contributors, software, files
        Who, with what, which files.
    methods
        Rows of ``/methods`` as dictionaries (``name``, ``code``, ``model`` …).
    summary
        What :func:`matcompute.publish.summary.summarize_release` returns.
    identifiers
        CSTR and DOI, if given.
    rights
        Holder, project, embargo and patents, if given.
    """

    dataset_id: str = Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
    version: int = Field(ge=1)
    title: str = Field(min_length=1)
    description: str = ""
    created: str = Field(pattern=_DATE)
    node: NodeFact
    domain: str
    node_class: str = "computation"
    grade: str = "general"
    tier: str = "public"
    licence: str
    keywords: tuple[str, ...] = ()
    contributors: tuple[Contributor, ...] = ()
    software: tuple[SoftwareFact, ...] = ()
    files: tuple[FileFact, ...] = ()
    methods: tuple[dict[str, Any], ...] = ()
    summary: dict[str, Any]
    identifiers: Identifiers = Identifiers()
    rights: Rights = Rights()

    @field_validator("domain", "node_class", "grade", "tier")
    @classmethod
    def _controlled(cls, value: str, info: Any) -> str:
        known = {"domain": DOMAINS, "node_class": NODE_CLASSES, "grade": GRADES, "tier": TIERS}[
            info.field_name
        ]
        if value not in known:
            raise ValueError(f"'{value}' is not one of {', '.join(known)}")
        return value

    @field_validator("licence")
    @classmethod
    def _licence(cls, value: str) -> str:
        try:
            return spdx(value)
        except DatasetError as error:
            raise ValueError(error.message) from error

    @property
    def licence_url(self) -> str | None:
        """Address of the licence's text; None for an expression of several licences and for one's own."""
        return f"https://spdx.org/licenses/{self.licence}" if _ONE_LICENCE.match(self.licence) else None

    def to_context(self) -> dict[str, Any]:
        """Return the facts as JSON values, with what several mappings would else derive each for itself."""
        data = self.model_dump(mode="json")
        for file in data["files"]:
            file["uri"] = quote(file["path"])
        data["licence_url"] = self.licence_url
        data["year"] = self.created[:4]
        data["date"] = self.created[:10]
        data["urn"] = f"urn:uuid:{self.dataset_id}"
        data["subjects"] = list(dict.fromkeys([self.domain, *self.keywords]))
        data["bytes"] = sum(f.size for f in self.files)
        data["media_types"] = sorted({f.media_type for f in self.files})
        doi = self.identifiers.doi
        data["doi_url"] = f"https://doi.org/{doi}" if doi else None
        data["url"] = data["doi_url"] or self.node.url or data["urn"]
        data["has_provenance"] = any(f.role == "provenance" for f in self.files)
        data["conditions"] = self.rights.conditions
        return data | _actions(self.summary.get("processes", []))


def _actions(processes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the processes with the number of what ran in each, all that ran, and all data that went in or out."""
    instruments: dict[tuple[str, str], int] = {}
    actions = []
    for process in processes:
        if process.get("code"):
            what = (process["code"], process.get("code_version") or "")
        else:
            what = (process.get("type") or process.get("label") or "function", "")
        actions.append(process | {"instrument": instruments.setdefault(what, len(instruments))})
    nodes = {node for p in processes for node in (*p.get("inputs", ()), *p.get("outputs", ()))}
    return {
        "actions": actions,
        "instruments": [{"name": name, "version": version} for name, version in instruments],
        "nodes": sorted(nodes),
    }

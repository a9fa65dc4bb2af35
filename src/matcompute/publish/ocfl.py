"""The words of OCFL 1.1: declarations, layout of the root, inventories (https://ocfl.io/1.1/spec/)."""

from __future__ import annotations

import json
import re
import string
from dataclasses import dataclass, field
from typing import Any

from matcompute.publish.canonical import sha256
from matcompute.publish.errors import StoreError
from matcompute.publish.manifest import safe_path

__all__ = ["ALGORITHM", "LAYOUT", "OBJECT", "ROOT", "Inventory", "Version", "object_path"]

#: SHA-256, which the specification allows, so that digests of the store are those of the manifests.
ALGORITHM = "sha256"
#: Name and content of the declarations ("namaste" files).
ROOT = ("0=ocfl_1.1", b"ocfl_1.1\n")
OBJECT = ("0=ocfl_object_1.1", b"ocfl_object_1.1\n")
#: Where an object lies: three folders of three digits of the id's digest, then a folder of the id itself.
LAYOUT = {
    "extensionName": "0003-hash-and-id-n-tuple-storage-layout",
    "digestAlgorithm": ALGORITHM,
    "tupleSize": 3,
    "numberOfTuples": 3,
}
_TYPE = "https://ocfl.io/1.1/spec/#inventory"
_PLAIN = frozenset(string.ascii_letters + string.digits + "-_")
_VERSION = re.compile(r"v[1-9][0-9]*")


def object_path(object_id: str) -> str:
    """Return the folder of an object below the root of the store (OCFL community extension 0003)."""
    digest = sha256(object_id.encode())
    plain = "".join(chr(byte) if chr(byte) in _PLAIN else f"%{byte:02x}" for byte in object_id.encode())
    folder = plain if len(plain) <= 100 else f"{plain[:100]}-{digest}"
    return "/".join([digest[:3], digest[3:6], digest[6:9], folder])


@dataclass(frozen=True)
class Version:
    """One version: its state (logical path → digest) and what is known of its making."""

    created: str
    state: dict[str, str]
    message: str = ""
    user: str = ""


@dataclass(frozen=True)
class Inventory:
    """The inventory of an object.

    Parameters
    ----------
    object_id
        Id of the object.
    versions
        From 1 on.
    content
        Digest → path of the content, relative to the object's folder.
    """

    object_id: str
    versions: tuple[Version, ...] = ()
    content: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> int:
        """Number of the newest version."""
        return len(self.versions)

    def version(self, number: int) -> Version:
        """Return a version.

        Raises
        ------
        StoreError
            If there is none of this number.
        """
        if not 1 <= number <= self.head:
            raise StoreError(f"{self.object_id} has versions 1 to {self.head}, not {number}")
        return self.versions[number - 1]

    def with_version(self, version: Version) -> Inventory:
        """Return the inventory with one version more; content that no version held before lies in its folder."""
        content, number = dict(self.content), self.head + 1
        for path, digest in sorted(version.state.items()):
            content.setdefault(digest, f"v{number}/content/{path}")
        return Inventory(self.object_id, (*self.versions, version), content)

    def to_bytes(self) -> bytes:
        """Return the content of ``inventory.json``."""
        versions = {}
        for number, version in enumerate(self.versions, start=1):
            state: dict[str, list[str]] = {}
            for path, digest in sorted(version.state.items()):
                state.setdefault(digest, []).append(path)
            versions[f"v{number}"] = {
                "created": version.created,
                "message": version.message,
                "user": {"name": version.user or "matcompute", "address": "urn:matcompute"},
                "state": state,
            }
        document = {
            "id": self.object_id,
            "type": _TYPE,
            "digestAlgorithm": ALGORITHM,
            "head": f"v{self.head}",
            "contentDirectory": "content",
            "manifest": {digest: [path] for digest, path in sorted(self.content.items())},
            "versions": versions,
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_bytes(cls, raw: bytes, where: str) -> Inventory:
        """Read an inventory.

        Raises
        ------
        StoreError
            If it is malformed, or of a kind that this program does not write.
        """
        try:
            document = json.loads(raw)
            if document["type"] != _TYPE or document["digestAlgorithm"] != ALGORITHM:
                raise StoreError(f"{where}: not an OCFL 1.1 inventory with {ALGORITHM} digests")
            versions = [_version(document["versions"][f"v{k + 1}"]) for k in range(len(document["versions"]))]
            # An inventory from elsewhere must not lead out of its object.
            content = {str(d): safe_path(str(paths[0])) for d, paths in document["manifest"].items()}
            inventory = cls(str(document["id"]), tuple(versions), content)
            unknown = {d for v in versions for d in v.state.values()} - set(content)
            if unknown or document["head"] != f"v{inventory.head}" or not versions:
                raise StoreError(f"{where}: the versions and the list of contents do not fit")
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise StoreError(f"{where}: not an OCFL inventory ({error})") from error
        return inventory


def _version(item: dict[str, Any]) -> Version:
    state = {str(path): str(digest) for digest, paths in item["state"].items() for path in paths}
    name = item.get("user", {}).get("name", "")
    return Version(str(item["created"]), state, str(item.get("message", "")), str(name))


def version_number(name: str) -> int | None:
    """Return the number of a version folder's name, None if it is none."""
    return int(name[1:]) if _VERSION.fullmatch(name) else None

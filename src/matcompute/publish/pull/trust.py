"""What is believed: a node by its first key, a version by its signature, its place in the chain and its digests."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from matcompute.errors import MatcomputeError
from matcompute.publish.canonical import sha256
from matcompute.publish.errors import SignatureError
from matcompute.publish.keys import Keyring
from matcompute.publish.manifest import Digest, Manifest
from matcompute.publish.pull.errors import NodeRefused, Refused, Unreachable
from matcompute.publish.pull.state import Node, State, Wanted
from matcompute.publish.signing import Signature, verify

__all__ = ["PROTOCOL", "Event", "Page", "Standing", "check_release", "meet"]

_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
PROTOCOL = "matcompute.pull/v1"
_COMPARE = "ask the node's people by another way (telephone) before you go on"


class Event(BaseModel):
    """One change of the feed, as far as the puller needs it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    seq: Annotated[int, Field(ge=1)]
    op: Literal["publish", "revise", "withdraw", "regrade"]
    dataset_id: Annotated[str, Field(pattern=_UUID)]
    version: Annotated[int, Field(ge=1, le=100_000)] | None = None
    manifest_sha256: Digest | None = None
    grade: str = ""
    tier: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Event:
        if self.op != "withdraw" and not (self.grade and self.tier):
            raise ValueError("grade or tier is missing")
        if self.op in ("publish", "revise") and (self.version is None or self.manifest_sha256 is None):
            raise ValueError("version or digest of the manifest is missing")
        return self


class _VersionInfo(BaseModel):
    version: Annotated[int, Field(ge=1)]
    withdrawn: bool


class Standing(BaseModel):
    """What ``/datasets/{id}`` says of the versions."""

    versions: tuple[_VersionInfo, ...]


class Page(BaseModel):
    """An answer of ``/changes``."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    changes: tuple[Event, ...]
    next: int
    head: int
    more: bool = False

    @classmethod
    def read(cls, data: dict[str, Any], after: int) -> Page:
        """Read an answer and check the order of the feed.

        Raises
        ------
        Unreachable
            If it is malformed.
        NodeRefused
            If the feed is shorter than it was, or out of order.
        """
        try:
            page = cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Unreachable(f"/changes after {after}: {where}: {first['msg']}") from error
        if page.head < after:
            raise NodeRefused(
                f"the feed was rolled back: it ends at {page.head}, and we have read it up to {after}",
                hint=f"the node may have been set back to a backup; {_COMPARE}",
            )
        before = after
        for event in page.changes:
            if event.seq <= before:
                raise NodeRefused(f"the feed is out of order: {event.seq} follows {before}")
            before = event.seq
        if page.next < before or (page.more and page.next == after):
            raise NodeRefused(f"the feed is out of order: it goes on at {page.next} after {before}")
        return page


def meet(state: State, url: str, answer: dict[str, Any], pinned: str | None) -> tuple[Node, bool]:
    """Recognise a node by its keyring and remember it.

    Parameters
    ----------
    state
        What is known.
    url
        Address of the node.
    answer
        What ``/node`` says.
    pinned
        Id of a key that the user trusts, told by another way; None: the first keyring seen is believed.

    Returns
    -------
    node : Node
    first : bool
        Whether it was met for the first time.

    Raises
    ------
    NodeRefused
        If its keyring is damaged, is not the one seen before with more keys, or lacks the pinned key.
    Unreachable
        If the answer is not that of a node with our protocol.
    """
    protocols = answer.get("protocol")
    if not isinstance(protocols, list) or PROTOCOL not in protocols:
        raise Unreachable(f"{url}/node: no node that speaks {PROTOCOL}")
    try:
        keyring = Keyring.from_bytes(json.dumps(answer.get("keyring")).encode(), f"{url}/node: keyring")
    except MatcomputeError as error:
        raise NodeRefused(error.message, hint=_COMPARE) from error
    ids = [key.key_id for key in keyring.keys]
    if pinned is not None and pinned not in ids:
        raise NodeRefused(f"{url} has not the key {pinned}; it shows {', '.join(ids)}", hint=_COMPARE)
    root = ids[0]
    here, known = state.node_at(url), state.node(root)
    if here is not None and here.root != root:
        raise NodeRefused(f"{url} shows the first key {root}; before it was {here.root}", hint=_COMPARE)
    if known is not None:
        _require_longer(known.keyring, keyring)
    name = answer.get("id")
    state.met(root, url, name if isinstance(name, str) else "", keyring)
    node = state.node(root)
    assert node is not None
    return node, known is None


def _require_longer(old: Keyring, new: Keyring) -> None:
    """Require that a keyring is the known one, or goes on from it by rotations that its last key signed."""
    count = len(old.keys)
    if len(new.keys) < count:
        raise NodeRefused(
            f"the keyring was rolled back: {count} keys before, {len(new.keys)} now", hint=_COMPARE
        )
    same = new.keys[: count - 1] == old.keys[:-1] and new.rotations[: count - 1] == old.rotations
    last, was = new.keys[count - 1], old.current
    # The last key known may have been retired since; nothing else of it may differ.
    if not same or last.model_copy(update={"retired": None}) != was:
        raise NodeRefused("the keyring is not the one that we know: its history differs", hint=_COMPARE)


def check_release(
    raw: bytes, raw_signature: bytes, item: Wanted, keyring: Keyring, digests: Mapping[int, str | None]
) -> Manifest:
    """Check what a node gives for a version, and return its manifest.

    Parameters
    ----------
    raw, raw_signature
        The bytes of ``manifest.json`` and ``manifest.json.sig``.
    item
        The version that was asked for, with the digest that the feed told.
    keyring
        Of the node, checked.
    digests
        Digest of the manifest by version, as far as known, of the same dataset.

    Raises
    ------
    Refused
        With its reason.
    """
    digest = sha256(raw)
    _check_signature(raw, raw_signature, item, keyring, digests)
    try:
        manifest = Manifest.from_bytes(raw)
    except MatcomputeError as error:
        raise Refused("manifest", error.message) from error
    if manifest.dataset_id != item.dataset_id:
        raise Refused("replayed", f"the manifest is one of dataset {manifest.dataset_id}")
    if manifest.version != item.version:
        kind = "rolled back" if manifest.version < item.version else "replayed"
        raise Refused(
            "rollback" if manifest.version < item.version else "replayed",
            f"{kind}: the manifest of version {manifest.version} stands where version {item.version} should",
        )
    if item.manifest_sha256 is not None and digest != item.manifest_sha256:
        raise Refused(
            "rollback",
            f"the feed names manifest {item.manifest_sha256[:12]}…, the node gives {digest[:12]}…, though signed",
        )
    before = digests.get(item.version - 1)
    if manifest.previous is not None and before not in (None, manifest.previous.manifest_sha256):
        raise Refused(
            "rollback",
            f"it follows manifest {manifest.previous.manifest_sha256[:12]}…, but version {item.version - 1} is "
            f"{str(before)[:12]}…",
        )
    shards = sum(file.role == "data" for file in manifest.files)
    if shards != manifest.counts.shards:
        raise Refused("dropped", f"the manifest lists {shards} shards of {manifest.counts.shards}")
    return manifest


def _check_signature(
    raw: bytes, raw_signature: bytes, item: Wanted, keyring: Keyring, digests: Mapping[int, str | None]
) -> None:
    try:
        signature = Signature.from_bytes(raw_signature)
    except MatcomputeError as error:
        raise Refused("signature", error.message) from error
    known = {key.key_id for key in keyring.keys}
    if signature.key_id not in known:
        raise Refused("wrong-key", f"signed by key {signature.key_id}, which is not the node's")
    try:
        verify(raw, signature, keyring)
    except SignatureError as error:
        for version, digest in digests.items():
            if version == item.version or digest in (None, sha256(raw)):
                continue
            if _made(signature, signature.key_id, str(digest), keyring):
                raise Refused(
                    "replayed", f"the signature is the one over version {version}, put here again"
                ) from error
        for other in known - {signature.key_id}:
            if _made(signature, other, sha256(raw), keyring):
                raise Refused("wrong-key", f"signed by key {other}, not by {signature.key_id}") from error
        if item.manifest_sha256 not in (None, sha256(raw)) and _made(
            signature, signature.key_id, str(item.manifest_sha256), keyring
        ):
            raise Refused("signature", "the manifest was changed after it was signed") from error
        raise Refused("signature", error.message) from error


def _made(signature: Signature, key_id: str, digest: str, keyring: Keyring) -> bool:
    """Whether a key made a signature over the manifest of a digest."""
    try:
        keyring.key(key_id).verify(
            base64.b64decode(signature.signature, validate=True), signature.message_of(digest)
        )
    except (SignatureError, binascii.Error, ValueError):
        return False
    return True

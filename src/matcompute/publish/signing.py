"""Detached signatures of manifests: ``manifest.json.sig``."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from matcompute.publish.canonical import dump, sha256
from matcompute.publish.errors import SignatureError
from matcompute.publish.keys import Keyring, SigningKey
from matcompute.publish.manifest import Time
from matcompute.times import utc_now

__all__ = ["Signature", "sign", "verify"]

_CONTEXT = b"matcompute.manifest-signature/v1\n"


class Signature(BaseModel):
    """A signature as it stands in its file.

    What is signed is the line ``matcompute.manifest-signature/v1`` followed by the canonical JSON of ``algorithm``,
    ``key_id``, ``manifest_sha256`` and ``signed_at``: the time is signed too, so that a retired key cannot be made to
    look as if it had signed earlier than it says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key_id: str
    algorithm: Literal["Ed25519"] = "Ed25519"
    signature: str
    signed_at: Time

    def message(self, manifest: bytes) -> bytes:
        """Return what the key signed, for a manifest's bytes."""
        return self.message_of(sha256(manifest))

    def message_of(self, digest: str) -> bytes:
        """Return what the key signed, for the digest of a manifest."""
        said: dict[str, Any] = self.model_dump(exclude={"signature"})
        return _CONTEXT + dump({**said, "manifest_sha256": digest})

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return dump(self.model_dump())

    @classmethod
    def from_bytes(cls, raw: bytes, where: str = "manifest.json.sig") -> Signature:
        """Read a signature file.

        Raises
        ------
        SignatureError
            If it is malformed.
        """
        try:
            return cls.model_validate(json.loads(raw))
        except ValidationError as error:
            first = error.errors()[0]
            raise SignatureError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except (ValueError, RecursionError) as error:
            raise SignatureError(f"{where}: not JSON") from error


def sign(manifest: bytes, key: SigningKey, *, at: str | None = None) -> Signature:
    """Sign the canonical bytes of a manifest.

    Parameters
    ----------
    manifest
        The bytes of ``manifest.json``.
    key
        The node's current key.
    at
        Time of the signature, UTC; now by default.
    """
    draft = Signature(key_id=key.key_id, signature="", signed_at=at or utc_now())
    raw = key.sign(draft.message(manifest))
    return draft.model_copy(update={"signature": base64.b64encode(raw).decode()})


def verify(manifest: bytes, signature: Signature, keyring: Keyring) -> None:
    """Check that a key of the node signed these bytes while it was in service.

    Raises
    ------
    SignatureError
        If the key is unknown, was not in service at that time, or did not sign these bytes; says which.
    """
    key = keyring.key(signature.key_id)
    try:
        raw = base64.b64decode(signature.signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError("the signature is not base64") from error
    key.verify(raw, signature.message(manifest))
    if signature.signed_at < key.created or (key.retired is not None and signature.signed_at > key.retired):
        until = f" to {key.retired}" if key.retired else ""
        raise SignatureError(
            f"key {key.key_id} signed at {signature.signed_at}, but was in service from {key.created}{until}",
            hint="the version must be signed again with the node's current key",
        )

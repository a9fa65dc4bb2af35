"""Receipts: a receiver's signed word that it took, or refused, a version."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from matcompute.publish.canonical import dump, sha256
from matcompute.publish.errors import SignatureError
from matcompute.publish.keys import PublicKey, SigningKey, key_id_of
from matcompute.publish.manifest import Digest
from matcompute.times import utc_now

__all__ = ["Receipt", "sign_receipt"]

_CONTEXT = b"matcompute.receipt/v1\n"


# As patterns, so that they stand in the JSON schema too.
_WORDS = r"^[^\x00-\x1f\x7f]*$"
_LINES = r"^[^\x00-\x08\x0b-\x1f\x7f]*$"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z$"


def _whole(value: Any) -> Any:
    # In JSON 2.0 is an integer.
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Receipt(BaseModel):
    """A receipt as it is sent.

    What is signed is the line ``matcompute.receipt/v1`` followed by the canonical JSON of all fields but
    ``signature``.

    Parameters
    ----------
    dataset_id, version, manifest_sha256
        What it is about.
    verdict, reason
        accept or reject; why it was rejected.
    receiver
        Name of the receiver.
    at
        UTC.
    public_key
        Base64 of the receiver's Ed25519 key (32 bytes).
    signature
        Base64 of its signature (64 bytes).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["matcompute.receipt/v1"] = Field("matcompute.receipt/v1", alias="schema")
    dataset_id: Annotated[
        str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
    ]
    version: Annotated[int, Field(ge=1, le=1_000_000, strict=True), BeforeValidator(_whole)]
    manifest_sha256: Digest
    verdict: Literal["accept", "reject"]
    reason: Annotated[str, Field(max_length=4000, pattern=_LINES)] = ""
    receiver: Annotated[str, Field(min_length=1, max_length=128, pattern=_WORDS)]
    at: Annotated[str, Field(pattern=_TIME)]
    public_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]
    signature: Annotated[str, Field(pattern=r"^([A-Za-z0-9+/]{86}==)?$")] = ""

    @property
    def key_id(self) -> str:
        """Id of the key that signed."""
        return key_id_of(base64.b64decode(self.public_key))

    @property
    def sha256(self) -> str:
        """Digest of what was signed: the receipt's identity."""
        return sha256(self.message())

    def message(self) -> bytes:
        """Return what is signed."""
        return _CONTEXT + dump(self.model_dump(by_alias=True, exclude={"signature"}))

    def to_bytes(self) -> bytes:
        """Return the document that is sent."""
        return dump(self.model_dump(by_alias=True))

    def verify(self) -> None:
        """Check the signature against the key in the receipt.

        Raises
        ------
        SignatureError
            If the key did not sign this.
        """
        try:
            raw = base64.b64decode(self.signature, validate=True)
        except (binascii.Error, ValueError) as error:
            raise SignatureError("the signature is not base64") from error
        PublicKey(key_id=self.key_id, public_key=self.public_key, created="").verify(raw, self.message())

    @classmethod
    def from_bytes(cls, raw: bytes) -> Receipt:
        """Read a receipt; its signature is not checked.

        Raises
        ------
        SignatureError
            If it is malformed; the field is named.
        """
        try:
            return cls.model_validate(json.loads(raw))
        except ValidationError as error:
            first = error.errors()[0]
            raise SignatureError(f"receipt: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except (ValueError, RecursionError) as error:
            raise SignatureError("receipt: not JSON") from error


def sign_receipt(key: SigningKey, **fields: Any) -> Receipt:
    """Return a signed receipt; ``at`` is now unless it is given, the other fields are those of `Receipt`."""
    draft = Receipt(**{"at": utc_now(), **fields}, public_key=key.public.public_key)
    return draft.model_copy(update={"signature": base64.b64encode(key.sign(draft.message())).decode()})

"""Documents that a node signs beside its manifests: reports, evidence, incidents, exits."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from matcompute.publish.canonical import dump, sha256
from matcompute.publish.errors import KeyFileError, SignatureError
from matcompute.publish.keys import Keyring, SigningKey, load
from matcompute.times import utc_now

__all__ = ["key_of", "read_statement", "sign_statement", "write_statement"]

#: What is signed begins with the kind, so that no statement can pass for another, or for a manifest.
_CONTEXT = "matcompute.statement/v1 {}\n"


def key_of(keys: Path) -> SigningKey | None:
    """Return the node's current key; None for a node without a private key (an imported one)."""
    try:
        return load(keys)
    except KeyFileError:
        return None


def sign_statement(kind: str, raw: bytes, key: SigningKey) -> bytes:
    """Return the content of a statement's signature file."""
    said = {"key_id": key.key_id, "kind": kind, "sha256": sha256(raw), "signed_at": utc_now()}
    signature = base64.b64encode(key.sign(_message(said))).decode()
    return dump({**said, "signature": signature})


def write_statement(kind: str, content: dict[str, Any], path: Path, key: SigningKey | None) -> None:
    """Write a document as canonical JSON, and ``<name>.sig`` beside it if there is a key."""
    raw = dump(content)
    path.write_bytes(raw)
    if key is not None:
        path.with_name(f"{path.name}.sig").write_bytes(sign_statement(kind, raw, key))


def read_statement(kind: str, path: Path, keyring: Keyring) -> dict[str, Any]:
    """Return a document whose signature holds.

    Raises
    ------
    SignatureError
        If it is missing, malformed, of another kind, of other bytes, or of no key of the keyring.
    """
    try:
        raw = path.read_bytes()
        said = json.loads(path.with_name(f"{path.name}.sig").read_bytes())
        signature = base64.b64decode(said.pop("signature"), validate=True)
        facts = (said["kind"], said["sha256"])
    except OSError as error:
        raise SignatureError(f"{error.filename}: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError, TypeError, binascii.Error) as error:
        raise SignatureError(f"{path}.sig: not a signature") from error
    if facts != (kind, sha256(raw)):
        raise SignatureError(f"{path}: the signature is for another document")
    keyring.key(str(said.get("key_id"))).verify(signature, _message(said))
    content: dict[str, Any] = json.loads(raw)
    return content


def _message(said: dict[str, Any]) -> bytes:
    return _CONTEXT.format(said["kind"]).encode() + dump(said)

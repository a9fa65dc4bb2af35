"""Signing keys of a node: Ed25519, one current key, older ones linked to it by statements that they signed.

A folder of keys holds ``<key id>.pem`` (private, mode 0600) and ``keyring.json`` (public: what the platform gets once).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from matcompute.publish.canonical import dump, sha256
from matcompute.publish.errors import KeyFileError, SignatureError
from matcompute.times import utc_now

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "ALGORITHM",
    "Keyring",
    "PublicKey",
    "Rotation",
    "SigningKey",
    "generate",
    "load",
    "rotate",
]

ALGORITHM = "Ed25519"
KEYRING = "keyring.json"
# What a key signs begins with the kind of statement, so that one kind can never pass for another.
_ROTATION_CONTEXT = b"matcompute.key-rotation/v1\n"


def key_id_of(public: bytes) -> str:
    """Return the id of a public key: the first 32 hexadecimal digits of its SHA-256."""
    return sha256(public)[:32]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublicKey(_Model):
    """A public key and its time of service."""

    key_id: str
    algorithm: Literal["Ed25519"] = "Ed25519"
    public_key: str
    created: str
    retired: str | None = None

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the key."""
        try:
            return base64.b64decode(self.public_key, validate=True)
        except (binascii.Error, ValueError) as error:
            raise KeyFileError(f"key {self.key_id}: the public key is not base64") from error

    def verify(self, signature: bytes, message: bytes) -> None:
        """Check a signature.

        Raises
        ------
        SignatureError
            If the key did not make it over this message.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(f"the signature is not one of key {self.key_id} over these bytes") from error


class Rotation(_Model):
    """The statement, signed by both keys, that the new one takes over from the old one.

    The new key signs too: a reader who trusts the new key only can so trust what the old one signed, and nobody can
    put a key of his own before one that is trusted.
    """

    old_key_id: str
    new_key_id: str
    new_public_key: str
    at: str
    signature: str = ""
    countersignature: str = ""

    def message(self) -> bytes:
        """Return what both keys signed."""
        return _ROTATION_CONTEXT + dump(self.model_dump(exclude={"signature", "countersignature"}))


class Keyring(_Model):
    """The public keys of a node, oldest first."""

    schema_: Literal["matcompute.keyring/v1"] = "matcompute.keyring/v1"
    keys: tuple[PublicKey, ...]
    rotations: tuple[Rotation, ...] = ()

    @property
    def current(self) -> PublicKey:
        """The key that signs now."""
        return self.keys[-1]

    def key(self, key_id: str) -> PublicKey:
        """Return a key by its id.

        Raises
        ------
        SignatureError
            If the keyring does not have it.
        """
        for key in self.keys:
            if key.key_id == key_id:
                return key
        raise SignatureError(
            f"key {key_id} is not in the keyring",
            hint="the node may have rotated its key: fetch its keyring again, and check it against the first key",
        )

    def check(self, trusted: Iterable[str] | None = None) -> None:
        """Check ids, order and every rotation statement.

        Parameters
        ----------
        trusted
            Key ids that the reader trusts already; the keyring must hold one, and the chain from it must be whole.

        Raises
        ------
        KeyFileError
            If a key is not the one that its id says, or a link of the chain is missing.
        SignatureError
            If a rotation was not signed by the key before it and by the new one.
        """
        if not self.keys:
            raise KeyFileError("the keyring is empty")
        for key in self.keys:
            if key_id_of(key.raw) != key.key_id:
                raise KeyFileError(f"key {key.key_id}: the id does not belong to the public key")
        if len(self.rotations) != len(self.keys) - 1:
            raise KeyFileError(
                f"{len(self.keys)} keys need {len(self.keys) - 1} rotations, not {len(self.rotations)}"
            )
        for old, new, rotation in zip(self.keys[:-1], self.keys[1:], self.rotations):
            said = (rotation.old_key_id, rotation.new_key_id, rotation.new_public_key, rotation.at)
            if said != (old.key_id, new.key_id, new.public_key, new.created) or old.retired != rotation.at:
                raise KeyFileError(
                    f"the rotation to key {new.key_id} speaks of other keys or of another time"
                )
            old.verify(_decode(rotation.signature), rotation.message())
            new.verify(_decode(rotation.countersignature), rotation.message())
        if self.current.retired is not None:
            raise KeyFileError(f"key {self.current.key_id} is retired and no other follows it")
        if trusted is not None and not {k.key_id for k in self.keys} & set(trusted):
            raise KeyFileError(
                "none of the keyring's keys is trusted",
                hint="compare the key id with what the node's people tell you by another way, then trust it",
            )

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        data = self.model_dump()
        data["schema"] = data.pop("schema_")
        return dump(data)

    @classmethod
    def from_bytes(cls, raw: bytes, where: str = KEYRING) -> Keyring:
        """Read and `check` a keyring.

        Raises
        ------
        KeyFileError
            If it is damaged.
        """
        import json

        try:
            data = json.loads(raw)
            data["schema_"] = data.pop("schema")
            keyring = cls.model_validate(data)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            kind = (
                "not a keyring" if not isinstance(error, ValidationError) else str(error.errors()[0]["msg"])
            )
            raise KeyFileError(f"{where}: {kind}") from error
        keyring.check()
        return keyring

    @classmethod
    def read(cls, path: Path) -> Keyring:
        """Read a keyring file, or the one in a folder of keys."""
        path = path if path.suffix == ".json" else path / KEYRING
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise KeyFileError(
                f"{path}: {error.strerror}", hint="make a key first: `matcompute publish keygen`"
            ) from error
        return cls.from_bytes(raw, str(path))


@dataclass(frozen=True)
class SigningKey:
    """A private key with its public side."""

    public: PublicKey
    private: Ed25519PrivateKey

    @property
    def key_id(self) -> str:
        """Id of the key."""
        return self.public.key_id

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return self.private.sign(message)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError("the signature is not base64") from error


def _new(created: str) -> SigningKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes_raw()
    public = PublicKey(key_id=key_id_of(raw), public_key=base64.b64encode(raw).decode(), created=created)
    return SigningKey(public, private)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all; a private key is never readable by others, not even for a moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _save(folder: Path, key: SigningKey, keyring: Keyring) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write(folder / f"{key.key_id}.pem", pem, 0o600)
    _write(folder / KEYRING, keyring.to_bytes(), 0o644)


def generate(folder: Path) -> SigningKey:
    """Make the first key of a node.

    Parameters
    ----------
    folder
        Folder of keys; made if it is missing.

    Raises
    ------
    KeyFileError
        If there is a keyring already.
    """
    if (folder / KEYRING).exists():
        raise KeyFileError(
            f"{folder} has a key already",
            hint="`matcompute publish keygen --rotate` replaces the key by a new one",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = _new(utc_now())
    _save(folder, key, Keyring(keys=(key.public,)))
    return key


def load(folder: Path) -> SigningKey:
    """Return the current key of a folder.

    Raises
    ------
    KeyFileError
        If there is none, others may read it, or it is not the keyring's.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    public = Keyring.read(folder).current
    path = folder / f"{public.key_id}.pem"
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError(f"{path} can be read by others", hint=f"chmod 600 {path}")
        private = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise KeyFileError(
            f"{path}: {error.strerror}", hint="bring the key file back from your backup"
        ) from error
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"{path}: not an unencrypted private key in PEM form") from error
    if not isinstance(private, Ed25519PrivateKey) or private.public_key().public_bytes_raw() != public.raw:
        raise KeyFileError(f"{path} is not the private side of key {public.key_id}")
    return SigningKey(public, private)


def rotate(folder: Path) -> SigningKey:
    """Make a new key, let both keys sign that it takes over, and retire the current one.

    Returns
    -------
    SigningKey
        The new key. Signatures that the old key made before stay valid.
    """
    old, keyring, now = load(folder), Keyring.read(folder), utc_now()
    new = _new(now)
    statement = Rotation(
        old_key_id=old.key_id, new_key_id=new.key_id, new_public_key=new.public.public_key, at=now
    )
    signatures = {
        name: base64.b64encode(key.sign(statement.message())).decode()
        for name, key in (("signature", old), ("countersignature", new))
    }
    retired = old.public.model_copy(update={"retired": now})
    after = Keyring(
        keys=(*keyring.keys[:-1], retired, new.public),
        rotations=(*keyring.rotations, statement.model_copy(update=signatures)),
    )
    after.check()
    _save(folder, new, after)
    return new

"""The hand-over of a node's name to the key of another node, so that its chain of keys goes on there."""

from __future__ import annotations

import base64
from pathlib import Path

from matcompute.publish.errors import KeyFileError
from matcompute.publish.keys import KEYRING, Keyring, Rotation, SigningKey
from matcompute.times import utc_now

__all__ = ["accept", "hand_over"]


def hand_over(key: SigningKey, successor: Keyring) -> Rotation:
    """Let a node's key sign that another node's key takes over; the other one signs when it imports.

    Parameters
    ----------
    key
        The node's current key.
    successor
        The keyring of the node that takes over.
    """
    new = successor.current
    statement = Rotation(
        old_key_id=key.key_id, new_key_id=new.key_id, new_public_key=new.public_key, at=utc_now()
    )
    signature = base64.b64encode(key.sign(statement.message())).decode()
    return statement.model_copy(update={"signature": signature})


def accept(rotation: Rotation, before: Keyring, key: SigningKey) -> Keyring:
    """Return the keyring of the node that takes over: the old keys, and its own behind them.

    Raises
    ------
    KeyFileError
        If the statement names another key.
    SignatureError
        If the old key did not sign it.
    """
    if (rotation.new_key_id, rotation.new_public_key) != (key.key_id, key.public.public_key):
        raise KeyFileError(
            f"the export names key {rotation.new_key_id} as successor, not this node's key {key.key_id}"
        )
    signed = rotation.model_copy(
        update={"countersignature": base64.b64encode(key.sign(rotation.message())).decode()}
    )
    retired = before.current.model_copy(update={"retired": rotation.at})
    new = key.public.model_copy(update={"created": rotation.at})
    after = Keyring(keys=(*before.keys[:-1], retired, new), rotations=(*before.rotations, signed))
    after.check()
    return after


def save(keyring: Keyring, keys: Path) -> None:
    """Write a keyring beside the private keys of a folder."""
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = keys / f".{KEYRING}"
    temporary.write_bytes(keyring.to_bytes())
    temporary.replace(keys / KEYRING)

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from matcompute.publish import keys
from matcompute.publish.errors import KeyFileError, SignatureError


def test_private_key_is_for_its_owner(tmp_path: Path) -> None:
    key = keys.generate(tmp_path / "k")
    path = tmp_path / "k" / f"{key.key_id}.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.load(tmp_path / "k").key_id == key.key_id
    with pytest.raises(KeyFileError, match="has a key already"):
        keys.generate(tmp_path / "k")
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="read by others"):
        keys.load(tmp_path / "k")


def test_rotation_is_signed_by_the_old_key(tmp_path: Path) -> None:
    first = keys.generate(tmp_path)
    second, third = keys.rotate(tmp_path), keys.rotate(tmp_path)
    ring = keys.Keyring.read(tmp_path)
    assert [k.key_id for k in ring.keys] == [first.key_id, second.key_id, third.key_id]
    assert keys.load(tmp_path).key_id == third.key_id
    ring.check(trusted=[first.key_id])
    with pytest.raises(KeyFileError, match="none of the keyring's keys is trusted"):
        ring.check(trusted=["0" * 32])


def test_forged_keyrings_are_refused(tmp_path: Path) -> None:
    keys.generate(tmp_path / "a")
    keys.rotate(tmp_path / "a")
    other = keys.generate(tmp_path / "b")
    data = json.loads((tmp_path / "a" / "keyring.json").read_bytes())

    def read() -> keys.Keyring:
        return keys.Keyring.from_bytes(json.dumps(data).encode())

    assert len(read().keys) == 2
    # Another key put in the place of the new one, with everything but the old key's signature made to fit.
    data["keys"][1] |= {"key_id": other.key_id, "public_key": other.public.public_key}
    data["rotations"][0] |= {"new_key_id": other.key_id, "new_public_key": other.public.public_key}
    with pytest.raises(SignatureError):
        read()
    data["keys"][1]["key_id"] = "0" * 32
    with pytest.raises(KeyFileError, match="does not belong"):
        read()
    data["rotations"] = []
    data["keys"][1]["key_id"] = other.key_id
    with pytest.raises(KeyFileError, match="need 1 rotations"):
        read()


def test_nobody_puts_a_key_before_a_trusted_one(tmp_path: Path) -> None:
    trusted, thief = keys.generate(tmp_path / "node"), keys.generate(tmp_path / "thief")
    at = trusted.public.created
    statement = keys.Rotation(
        old_key_id=thief.key_id,
        new_key_id=trusted.key_id,
        new_public_key=trusted.public.public_key,
        at=at,
    )
    # The thief signs on both sides; the trusted key he does not have.
    mine = base64.b64encode(thief.sign(statement.message())).decode()
    forged = keys.Keyring(
        keys=(thief.public.model_copy(update={"retired": at}), trusted.public),
        rotations=(statement.model_copy(update={"signature": mine, "countersignature": mine}),),
    )
    with pytest.raises(SignatureError, match=trusted.key_id):
        forged.check(trusted=[trusted.key_id])


def test_wrong_or_missing_private_key(tmp_path: Path) -> None:
    a, b = keys.generate(tmp_path / "a"), keys.generate(tmp_path / "b")
    path = tmp_path / "a" / f"{a.key_id}.pem"
    path.write_bytes((tmp_path / "b" / f"{b.key_id}.pem").read_bytes())
    with pytest.raises(KeyFileError, match="not the private side"):
        keys.load(tmp_path / "a")
    path.unlink()
    with pytest.raises(KeyFileError, match="No such file"):
        keys.load(tmp_path / "a")
    with pytest.raises(KeyFileError, match=r"keyring\.json"):
        keys.load(tmp_path / "c")

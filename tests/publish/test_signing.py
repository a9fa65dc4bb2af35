from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from matcompute.publish import keys
from matcompute.publish.errors import SignatureError
from matcompute.publish.keys import Keyring, SigningKey
from matcompute.publish.manifest import Manifest
from matcompute.publish.signing import Signature, sign, verify

Make = Callable[..., Manifest]


def test_signature_holds_and_one_flipped_bit_breaks_it(
    make_manifest: Make, key: SigningKey, tmp_path: Path
) -> None:
    raw, ring = make_manifest().to_bytes(), Keyring.read(tmp_path / "keys")
    signature = Signature.from_bytes(sign(raw, key).to_bytes())
    verify(raw, signature, ring)
    for at in range(0, len(raw), 97):
        flipped = bytearray(raw)
        flipped[at] ^= 1
        with pytest.raises(SignatureError, match="over these bytes"):
            verify(bytes(flipped), signature, ring)


def test_replayed_signature_and_changed_time(make_manifest: Make, key: SigningKey, tmp_path: Path) -> None:
    ring, first = Keyring.read(tmp_path / "keys"), make_manifest()
    signature = sign(first.to_bytes(), key)
    with pytest.raises(SignatureError):
        verify(make_manifest(2, first).to_bytes(), signature, ring)
    earlier = signature.model_copy(update={"signed_at": "2020-01-01T00:00:00Z"})
    with pytest.raises(SignatureError):
        verify(first.to_bytes(), earlier, ring)


def test_wrong_key(make_manifest: Make, key: SigningKey, tmp_path: Path) -> None:
    raw, other = make_manifest().to_bytes(), keys.generate(tmp_path / "other")
    with pytest.raises(SignatureError, match="not in the keyring"):
        verify(raw, sign(raw, other), Keyring.read(tmp_path / "keys"))
    posing = sign(raw, other).model_copy(update={"key_id": key.key_id})
    with pytest.raises(SignatureError, match="not one of key"):
        verify(raw, posing, Keyring.read(tmp_path / "keys"))


def test_retired_key_signs_no_more(make_manifest: Make, key: SigningKey, tmp_path: Path) -> None:
    raw = make_manifest().to_bytes()
    before = sign(raw, key)
    keys.rotate(tmp_path / "keys")
    ring = Keyring.read(tmp_path / "keys")
    verify(raw, before, ring)
    with pytest.raises(SignatureError, match="in service"):
        verify(raw, sign(raw, key, at="2999-01-01T00:00:00Z"), ring)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"key_id":"x","signature":"","signed_at":"","algorithm":"none"}']
)
def test_malformed(raw: bytes) -> None:
    with pytest.raises(SignatureError):
        Signature.from_bytes(raw)

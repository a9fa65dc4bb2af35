"""Canonical JSON (RFC 8785): the same content gives the same bytes, so that digests and signatures can be compared."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from matcompute.publish.errors import ManifestError

__all__ = ["dump", "load", "sha256", "sha256_file"]

#: Larger than any manifest we make (10⁴ files), small enough that a hostile one cannot fill the memory.
MAX_BYTES = 64 << 20


def dump(value: Any) -> bytes:
    """Return JSON as RFC 8785 has it: sorted keys, no spaces, UTF-8.

    Raises
    ------
    ManifestError
        If the value has no JSON form (NaN, integers past 2⁵³, keys that are no text).
    """
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, TypeError) as error:
        raise ManifestError(f"this has no canonical JSON form: {error}") from error


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def load(raw: bytes, where: str) -> Any:
    """Return the value of canonical bytes, and refuse any other spelling of it.

    Parameters
    ----------
    raw
        The bytes.
    where
        Name of the file, for messages.

    Raises
    ------
    ManifestError
        If it is not JSON, a key occurs twice, or the bytes are not the canonical ones.
    """
    if len(raw) > MAX_BYTES:
        raise ManifestError(f"{where}: {len(raw)} bytes is more than any manifest has")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where}: not JSON ({error})") from error
    if dump(value) != raw:
        raise ManifestError(
            f"{where}: not in canonical form (RFC 8785), so it is not the file that was signed"
        )
    return value


def sha256(raw: bytes) -> str:
    """Return the SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(raw).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal; read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

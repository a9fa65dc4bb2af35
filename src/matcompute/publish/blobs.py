"""Copy, hash and rename so that a crash or a power cut leaves nothing half-written under its final name."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import IO, Any

__all__ = ["copy", "digest_of", "rename_folder", "sync_tree", "write_whole"]

_BLOCK = 1 << 20


def digest_of(file: Any) -> str:
    """Return the SHA-256 of what is left in an open file."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def copy(source: Path, out: IO[bytes]) -> str:
    """Copy a local file into one that is open for writing, and onto the disk if that is a local file.

    Returns
    -------
    str
        SHA-256 of what was read, hexadecimal.
    """
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            out.write(block)
    # Only files of a local disk have a number to sync.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def write_whole(target: Path, raw: bytes, temporary: Path) -> None:
    """Write a local file by way of a temporary one on the same disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)


def rename_folder(source: Path, target: Path) -> None:
    """Rename a folder and make the rename last through a power cut."""
    source.rename(target)
    for folder in {source.parent, target.parent}:
        _sync(folder)


def sync_tree(folder: Path) -> None:
    """Make a folder and all that is in it last through a power cut."""
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

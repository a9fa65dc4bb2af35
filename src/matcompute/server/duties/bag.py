"""Folders that list their own digests (BagIt 1.0, RFC 8493), written and checked file by file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from matcompute.publish.canonical import sha256, sha256_file
from matcompute.publish.manifest import safe_path
from matcompute.server.duties.errors import DutyError

__all__ = ["Bag", "check_bag"]

_DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
_BLOCK = 1 << 20
_TAGS = ("bagit.txt", "bag-info.txt", "manifest-sha256.txt")


class Bag:
    """A bag that is being filled.

    Parameters
    ----------
    folder
        New folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digests: dict[str, str] = {}
        self.size = 0
        (folder / "data").mkdir(parents=True)

    def add(self, path: str, source: IO[bytes]) -> str:
        """Copy an open file to ``data/<path>`` and return its SHA-256."""
        target = self.folder / "data" / safe_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with target.open("wb") as out:
            while block := source.read(_BLOCK):
                digest.update(block)
                self.size += out.write(block)
            out.flush()
            os.fsync(out.fileno())
        self.digests[f"data/{path}"] = digest.hexdigest()
        return digest.hexdigest()

    def note(self, path: str) -> None:
        """List a file that somebody else wrote to ``data/<path>``."""
        target = self.folder / "data" / path
        self.digests[f"data/{path}"] = sha256_file(target)
        self.size += target.stat().st_size

    def close(self, info: Mapping[str, str]) -> None:
        """Write the lists; with them the bag is whole."""
        about = {**info, "Payload-Oxum": f"{self.size}.{len(self.digests)}"}
        texts = {
            "bagit.txt": _DECLARATION,
            "bag-info.txt": "".join(f"{k}: {' '.join(v.split())}\n" for k, v in about.items()).encode(),
            "manifest-sha256.txt": "".join(
                f"{digest}  {_escape(path)}\n" for path, digest in sorted(self.digests.items())
            ).encode(),
        }
        for name, raw in texts.items():
            (self.folder / name).write_bytes(raw)
        tags = "".join(f"{sha256(raw)}  {name}\n" for name, raw in texts.items())
        (self.folder / "tagmanifest-sha256.txt").write_bytes(tags.encode())


def check_bag(folder: Path, progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
    """Check that a bag holds the files of its list, unchanged, and no other; return path below ``data/`` → digest.

    Raises
    ------
    DutyError
        If it is no bag, or a file is missing, changed or too many; it is named.
    """
    for name in (*_TAGS, "tagmanifest-sha256.txt"):
        if not (folder / name).is_file():
            raise DutyError(
                f"{folder} has no {name}", hint="name the folder that `matcompute node export` made"
            )
    tags = dict(_lines(folder / "tagmanifest-sha256.txt"))
    for name in _TAGS:
        if tags.get(name) != sha256_file(folder / name):
            raise DutyError(f"{folder}: {name} was changed")
    listed = dict(_lines(folder / "manifest-sha256.txt"))
    there = set()
    for path in (folder / "data").rglob("*"):
        if path.is_symlink():
            raise DutyError(f"{folder}: {path.relative_to(folder)} is a link")
        if path.is_file():
            there.add(path.relative_to(folder).as_posix())
    for name in sorted(listed.keys() - there):
        raise DutyError(f"{folder}: {name} is missing")
    for name in sorted(there - listed.keys()):
        raise DutyError(f"{folder}: {name} is in no list")
    for done, (name, digest) in enumerate(sorted(listed.items()), start=1):
        if sha256_file(folder / name) != digest:
            raise DutyError(f"{folder}: {name} was changed")
        if progress is not None:
            progress(done, len(listed))
    return {name.removeprefix("data/"): digest for name, digest in sorted(listed.items())}


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        plain = _unescape(name)
        try:
            yield safe_path(plain), digest
        except ValueError as error:
            raise DutyError(f"{path}: {error}") from error


def _escape(path: str) -> str:
    return path.replace("%", "%25").replace("\n", "%0A").replace("\r", "%0D")


def _unescape(path: str) -> str:
    return path.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%")

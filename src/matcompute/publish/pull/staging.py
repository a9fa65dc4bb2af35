"""Blobs on their way into the store: received in pieces, resumed, checked, and only then given their name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matcompute.publish.pull.errors import Refused
from matcompute.publish.pull.rate import Limiter
from matcompute.publish.pull.wire import Stopped, Wire

__all__ = ["Staging"]

_BLOCK = 1 << 20


class Staging:
    """A folder of blobs: ``<sha256>`` is whole and checked, ``<sha256>.part`` is what came of one so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where the whole blob lies, or will."""
        return self.folder / digest

    def part(self, digest: str) -> Path:
        """Return where it grows."""
        return self.folder / f"{digest}.part"

    def drop(self, digest: str) -> None:
        """Forget a blob: it is in the store, or nobody wants it."""
        self.path(digest).unlink(missing_ok=True)
        self.part(digest).unlink(missing_ok=True)

    def names(self) -> set[str]:
        """Return the digests of all blobs here, whole or not."""
        return {path.name.removesuffix(".part") for path in self.folder.iterdir()}

    def fetch(
        self, wire: Wire, digest: str, size: int, limiter: Limiter, advance: Callable[[int], None]
    ) -> tuple[Path, int]:
        """Return the path of a blob, fetched from the node as far as it is not here, and the bytes received.

        Parameters
        ----------
        wire
            The node.
        digest, size
            SHA-256 and bytes, from the signed manifest.
        limiter
            Of bandwidth.
        advance
            Called with the bytes of each step; negative when some must be thrown away.

        Raises
        ------
        Refused
            If it is not the content that the manifest lists.
        Gone
            If the node does not show it.
        Unreachable
            If the node does not answer.
        """
        target, part = self.path(digest), self.part(digest)
        if target.exists():
            advance(size)
            return target, 0
        received = 0
        while True:
            there, hasher = _hash(part)
            if there > size:
                part.unlink()
                there, hasher = 0, hashlib.sha256()
            advance(there)
            resumed = there > 0
            if there < size or not part.exists():
                download = _Download(wire, digest, size, part, there, hasher, limiter, advance)
                wire.persist(download.step)
                received += download.received
                resumed = resumed and not download.restarted
                hasher = download.hasher
            if hasher.hexdigest() == digest:
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                part.replace(target)
                return target, received
            part.unlink()
            advance(-size)
            if not resumed:
                raise Refused(
                    "digest",
                    f"content with digest {hasher.hexdigest()[:12]}… came for {digest[:12]}… ({size} bytes)",
                )
            # What lay here from an earlier run may have been damaged on our side: once more, from the start.


class _Download:
    """One blob on its way; `step` is called until it returns, and goes on where the connection broke."""

    def __init__(
        self,
        wire: Wire,
        digest: str,
        size: int,
        part: Path,
        there: int,
        hasher: Any,
        limiter: Limiter,
        advance: Callable[[int], None],
    ) -> None:
        self.wire, self.digest, self.size, self.part = wire, digest, size, part
        self.there, self.hasher, self.limiter, self.advance = there, hasher, limiter, advance
        self.received, self.restarted = 0, False

    def step(self) -> None:
        import httpx

        # No If-Range: the address is the content's digest, and a proxy that sends the files has ETags of its own.
        headers = {"Range": f"bytes={self.there}-"} if self.there else {}
        with self.wire.stream(f"/blobs/sha256/{self.digest}", headers) as answer:
            if self.there and (answer.status_code != 206 or not self._continues(answer)):
                # The node does not resume: from the start.
                self.advance(-self.there)
                self.there, self.hasher, self.restarted = 0, hashlib.sha256(), True
                if answer.status_code != 200:
                    self.part.unlink(missing_ok=True)
                    raise httpx.ReadError("the node cannot go on where it stopped")
            self._expect(answer)
            # Unbuffered: what was received survives a kill, and is not asked for again.
            with self.part.open("r+b" if self.there else "wb", buffering=0) as out:
                out.seek(self.there)
                for block in answer.iter_raw(self.limiter.block):
                    if self.there + len(block) > self.size:
                        self.part.unlink()
                        raise Refused("digest", f"more than {self.size} bytes came for {self.digest[:12]}…")
                    out.write(block)
                    self.hasher.update(block)
                    self.there += len(block)
                    self.received += len(block)
                    self.wire.heard()
                    self.advance(len(block))
                    self.limiter.take(len(block))
                    if self.wire.halted:
                        raise Stopped("stopped")
        if self.there < self.size:
            raise httpx.ReadError(f"{self.size - self.there} bytes are missing")

    def _expect(self, answer: Any) -> None:
        """Do not wait for bytes that the node says it does not have."""
        if answer.status_code == 206:
            total = str(answer.headers.get("Content-Range", "")).rpartition("/")[2]
        else:
            total = str(answer.headers.get("Content-Length", ""))
        if total.isdigit() and int(total) != self.size:
            raise Refused("digest", f"{total} bytes stand for {self.digest[:12]}…, not {self.size}")

    def _continues(self, answer: Any) -> bool:
        return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {self.there}-")


def _hash(part: Path) -> tuple[int, Any]:
    hasher, size = hashlib.sha256(), 0
    if part.exists():
        with part.open("rb") as file:
            while block := file.read(_BLOCK):
                hasher.update(block)
                size += len(block)
    return size, hasher

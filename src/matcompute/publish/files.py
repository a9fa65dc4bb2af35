"""The files of a store: a folder on a local disk or a file system of fsspec (S3 …); errors name the place."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from matcompute.publish.blobs import copy, digest_of, write_whole
from matcompute.publish.errors import StoreError

__all__ = ["Files"]

#: Object stores: folders are but parts of names there, and "making" one could make a bucket of a misspelt name.
_FLAT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory"})
#: What is fetched at a time of a remote file: a reader of single values or ranges shall not fetch it all.
_BLOCK = 1 << 20


class Files:
    """Read and write files below a root.

    Parameters
    ----------
    root
        Folder, or URL that fsspec knows (``s3://bucket/prefix``).
    options
        Options of the fsspec file system.

    Raises
    ------
    StoreError
        If fsspec does not know such URLs, or the client for them is not installed.
    """

    def __init__(self, root: str | Path, **options: Any) -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        try:
            # Remembered listings are not those of now: other processes write here too.
            self.fs, found = url_to_fs(str(root), **({"use_listings_cache": False} | options))
        except ImportError as error:
            raise StoreError(
                f"{root}: {error}",
                hint="for S3: pip install 'matcompute[s3]'; else the client that fsspec names",
            ) from error
        except ValueError as error:
            raise StoreError(
                f"{root}: {error}", hint="a folder, or a URL such as s3://bucket/prefix"
            ) from error
        self.root = str(found).rstrip("/")
        self.local = Path(self.root) if isinstance(self.fs, LocalFileSystem) else None
        protocols = self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)
        self._flat = not _FLAT.isdisjoint(protocols)

    @contextlib.contextmanager
    def _told(self, *passed: type[Exception]) -> Iterator[None]:
        """Raise what a remote system's client raises as our own error, but for what is passed on."""
        try:
            yield
        except Exception as error:  # clients have errors of their own, beside OSError
            if self.local is not None or isinstance(error, (StoreError, *passed)):
                raise
            raise StoreError(
                f"the store {self.fs.unstrip_protocol(self.root)} does not answer as it should: "
                f"{type(error).__name__}: {error}",
                hint="look at address, credentials and rights (for S3: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID …)",
            ) from error

    # -- reading ----------------------------------------------------------------------------------------------

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading; close it after use. Of a remote one only the blocks that are read are fetched."""
        options: dict[str, Any] = {}
        if self.local is None:
            options = {"block_size": _BLOCK, "cache_type": "readahead"}
        with self._told():
            file: IO[bytes] = self.fs.open(path, "rb", **options)
        return file

    def read(self, path: str) -> bytes:
        """Return the content of a small file; a missing one is a `FileNotFoundError`."""
        with self._told(FileNotFoundError):
            return bytes(self.fs.cat_file(path))

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file."""
        with self._told(), self.open(path) as file:
            return digest_of(file)

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder."""
        with self._told():
            return bool(self.fs.exists(path))

    def names(self, folder: str) -> list[str]:
        """Return the names of what is in a folder; empty if there is none."""
        with self._told():
            try:
                return [str(p).rstrip("/").rsplit("/", 1)[1] for p in self.fs.ls(folder, detail=False)]
            except (FileNotFoundError, NotADirectoryError):
                return []

    def matching(self, pattern: str) -> list[str]:
        """Return the paths below the root that match a pattern, sorted."""
        with self._told():
            return sorted(str(path) for path in self.fs.glob(f"{self.root}/{pattern}"))

    def all(self) -> list[str]:
        """Return the paths of all files, sorted."""
        if not self.exists(self.root):
            return []
        with self._told():
            return sorted(str(path) for path in self.fs.find(self.root))

    # -- writing ----------------------------------------------------------------------------------------------

    def copy(self, source: Path, target: str) -> str:
        """Copy a local file here; return the SHA-256 of what was read."""
        with self._told():
            self._make_parent(target)
            with self.fs.open(target, "wb") as out:
                return copy(source, out)

    def write(self, path: str, raw: bytes) -> None:
        """Write a small file: all of it or nothing."""
        if self.local is not None:
            write_whole(Path(path), raw, Path(self.beside("partial")))
            return
        with self._told():
            self._make_parent(path)
            self.fs.pipe_file(path, raw)

    def remove(self, folder: str) -> None:
        """Remove a folder with all that is in it."""
        with self._told():
            self.fs.rm(folder, recursive=True)

    def _make_parent(self, path: str) -> None:
        if not self._flat:
            self.fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)

    # -- beside the root, on a local disk ---------------------------------------------------------------------

    def beside(self, name: str) -> str:
        """Return the path of something that lies hidden beside the root."""
        path = Path(self.root)
        return str(path.with_name(f".{path.name}.{name}"))

    def clear_beside(self, name: str) -> None:
        """Remove a folder beside the root; there is none beside a remote one."""
        if self.local is not None:
            shutil.rmtree(self.beside(name), ignore_errors=True)

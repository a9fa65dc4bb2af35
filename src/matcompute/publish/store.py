"""The store of releases: OCFL 1.1 on a local disk or on any file system of fsspec (S3 …).

A version is there as soon as its own inventory and the digest beside it are: that is the point of no return. On a
local disk the version's folder is put in place by one rename. The root inventory, a copy, follows; if a crash comes
between, readers use the newest whole version, and the next write mends the copy. What a crash left unfinished is
removed by the next write.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from matcompute.publish.blobs import rename_folder
from matcompute.publish.canonical import sha256, sha256_file
from matcompute.publish.errors import StoreError
from matcompute.publish.files import Files
from matcompute.publish.manifest import safe_path
from matcompute.publish.ocfl import (
    ALGORITHM,
    LAYOUT,
    OBJECT,
    ROOT,
    Inventory,
    Version,
    object_path,
    version_number,
)
from matcompute.times import utc_now

__all__ = ["Damage", "Store"]

_INVENTORY, _SIDECAR = "inventory.json", f"inventory.json.{ALGORITHM}"


@dataclass(frozen=True)
class Damage:
    """A file of the store that is not what it should be."""

    object_id: str
    path: str
    reason: str


class Store:
    """An OCFL storage root.

    Parameters
    ----------
    root
        Folder, or URL that fsspec knows (``s3://bucket/prefix``). Made when the first version is written.
    lock
        Local file that keeps writers apart; beside the root by default, if that is on a local disk.
    options
        Options of the fsspec file system.

    Notes
    -----
    One writer at a time. A remote store has no lock of its own: writers must share a lock file on one machine, as all
    that write to one publication do.
    """

    def __init__(self, root: str | Path, *, lock: Path | None = None, **options: Any) -> None:
        self.files = Files(root, **options)
        self.root, self.local = self.files.root, self.files.local
        self._lock_file = Path(self.files.beside("lock")) if self.local else lock

    # -- reading ----------------------------------------------------------------------------------------------

    def is_there(self) -> bool:
        """Whether something was ever written here."""
        return self.files.exists(f"{self.root}/{ROOT[0]}")

    def objects(self) -> Iterator[str]:
        """Yield the ids of all objects, in the order of their folders."""
        for folder in self._folders():
            inventory = self._newest(folder)
            if inventory is not None:
                yield inventory.object_id

    def has(self, object_id: str) -> bool:
        """Whether the store has this object."""
        return self._newest(self._folder(object_id)) is not None

    def inventory(self, object_id: str) -> Inventory:
        """Return the inventory of an object.

        Raises
        ------
        StoreError
            If the store does not have it, or it is damaged.
        """
        folder = self._folder(object_id)
        inventory = self._newest(folder)
        if inventory is None:
            raise StoreError(f"{self.root} has no object '{object_id}'")
        if inventory.object_id != object_id:
            raise StoreError(f"{folder} holds '{inventory.object_id}' instead of '{object_id}'")
        return inventory

    def versions(self, object_id: str) -> dict[int, Version]:
        """Return the versions of an object by number."""
        return dict(enumerate(self.inventory(object_id).versions, start=1))

    def path(self, object_id: str, version: int, path: str) -> str:
        """Return where the content of a logical path lies, as the file system names it.

        Raises
        ------
        StoreError
            If there is no such version or path.
        """
        return self._place(self.inventory(object_id), version, path)

    def _place(self, inventory: Inventory, version: int, path: str) -> str:
        digest = inventory.version(version).state.get(path)
        if digest is None:
            raise StoreError(f"{inventory.object_id} version {version} has no file '{path}'")
        return f"{self._folder(inventory.object_id)}/{inventory.content[digest]}"

    def open(self, object_id: str, version: int, path: str) -> IO[bytes]:
        """Open a file of a version for reading; close it after use."""
        return self.files.open(self.path(object_id, version, path))

    def read(self, object_id: str, version: int, path: str) -> bytes:
        """Return the content of a small file, checked against its digest.

        Raises
        ------
        StoreError
            If the content is damaged.
        """
        inventory = self.inventory(object_id)
        raw = self.files.read(self._place(inventory, version, path))
        if sha256(raw) != inventory.version(version).state[path]:
            raise StoreError(f"{object_id} version {version}: {path} is damaged (its digest is another one)")
        return raw

    def fixity(
        self, object_id: str | None = None, progress: Callable[[int, int], None] | None = None
    ) -> list[Damage]:
        """Read all content and compare digests.

        Parameters
        ----------
        object_id
            Only this object.
        progress
            Called with (files done, files in all).

        Returns
        -------
        list of Damage
            Empty if all is well.
        """
        found: list[Damage] = []
        work: list[tuple[str, str, str]] = []
        for folder in self._folders() if object_id is None else [self._folder(object_id)]:
            inventory = self._newest(folder)
            if inventory is None:
                found.append(Damage(object_id or "?", folder, "no version of it is whole"))
                continue
            if self._read_inventory(folder) != inventory:
                found.append(
                    Damage(
                        inventory.object_id,
                        _INVENTORY,
                        "the root inventory is not that of the newest version",
                    )
                )
            for number in range(1, inventory.head):
                if self._read_inventory(f"{folder}/v{number}") is None:
                    path = f"v{number}/{_INVENTORY}"
                    found.append(Damage(inventory.object_id, path, "is missing or damaged"))
            work += [(inventory.object_id, f"{folder}/{p}", d) for d, p in inventory.content.items()]
        for done, (name, path, digest) in enumerate(work, start=1):
            relative = path.removeprefix(f"{self._folder(name)}/")
            try:
                actual = self.files.digest(path)
                if actual != digest:
                    found.append(Damage(name, relative, f"its SHA-256 is {actual}, not {digest}"))
            except (OSError, StoreError) as error:
                found.append(Damage(name, relative, f"cannot be read ({error})"))
            if progress is not None:
                progress(done, len(work))
        return found

    # -- writing ----------------------------------------------------------------------------------------------

    def commit(
        self,
        object_id: str,
        files: Mapping[str, Path],
        *,
        version: int,
        digests: Mapping[str, str] | None = None,
        message: str = "",
        user: str = "",
        created: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Add a version: all of it or nothing. Content that an older version holds is not written again.

        Parameters
        ----------
        object_id
            Id of the object; made when it is new.
        files
            Logical path → file on this machine: the whole state of the version.
        version
            Number that the version must get: one more than the newest.
        digests
            Logical path → SHA-256 that the file must have.
        message, user
            Kept in the inventory.
        created
            Time of the version, UTC; now by default. A copy that gives the original's has the same inventory each time.
        progress
            Called with (bytes done, bytes in all).

        Returns
        -------
        int
            Bytes of new content.

        Raises
        ------
        StoreError
            If the version is not the next one, a path leaves the version, or a file is not what its digest says.
        """
        if not files:
            raise StoreError(f"{object_id} version {version} has no file")
        try:
            for path in files:
                safe_path(path)
        except ValueError as error:
            raise StoreError(f"{object_id} version {version}: {error}") from error
        with self._lock():
            self._prepare_root()
            folder = self._folder(object_id)
            known = self._newest(folder)
            base = known or Inventory(object_id)
            if base.object_id != object_id or version != base.head + 1:
                raise StoreError(
                    f"{object_id} is at version {base.head}; version {version} cannot be the next",
                    hint="build the release again on the version that is there",
                )
            self._mend(folder, known)
            return self._write(
                folder, base, dict(files), dict(digests or {}), message, user, created, progress
            )

    def _write(
        self,
        folder: str,
        base: Inventory,
        files: dict[str, Path],
        expected: dict[str, str],
        message: str,
        user: str,
        created: str | None,
        progress: Callable[[int, int], None] | None,
    ) -> int:
        number = base.head + 1
        # A local version is put together beside the store and renamed into it; a remote one is written in place.
        staging = f"{self.files.beside('staging')}/{uuid4()}" if self.local else folder
        done, total, new = 0, sum(p.stat().st_size for p in files.values()), 0
        state: dict[str, str] = {}
        content = set(base.content)
        try:
            for path, source in sorted(files.items()):
                digest = expected.get(path) or sha256_file(source)
                state[path] = digest
                target = None if digest in content else f"{staging}/v{number}/content/{path}"
                if (self.files.copy(source, target) if target else sha256_file(source)) != digest:
                    raise StoreError(
                        f"{source} is not the file that the manifest lists (its digest is another one)"
                    )
                content.add(digest)
                size = source.stat().st_size
                done, new = done + size, new + (size if target else 0)
                if progress is not None:
                    progress(done, total)
            inventory = base.with_version(Version(created or utc_now(), state, message, user))
            raw = inventory.to_bytes()
            if number == 1:
                self.files.write(f"{staging}/{OBJECT[0]}", OBJECT[1])
            self._put_inventory(f"{staging}/v{number}", raw)
            if self.local:
                if number == 1:
                    self._put_inventory(staging, raw)
                    Path(folder).parent.mkdir(parents=True, exist_ok=True)
                    rename_folder(Path(staging), Path(folder))
                else:
                    rename_folder(Path(staging) / f"v{number}", Path(folder) / f"v{number}")
        finally:
            self.files.clear_beside("staging")
        if not self.local or number > 1:
            self._put_inventory(folder, raw)
        return new

    def mend(self, object_id: str) -> None:
        """Remove what a crash left unfinished of an object; `commit` does so too, before it writes."""
        with self._lock():
            folder = self._folder(object_id)
            self._mend(folder, self._newest(folder))

    def _mend(self, folder: str, newest: Inventory | None) -> None:
        """Remove what a crash left unfinished, and bring the root inventory up to date."""
        self.files.clear_beside("staging")
        head = newest.head if newest else 0
        for name in self.files.names(folder):
            if (version_number(name) or 0) > head:
                self.files.remove(f"{folder}/{name}")
        if newest is not None and self._read_inventory(folder) != newest:
            self._put_inventory(folder, newest.to_bytes())

    def _prepare_root(self) -> None:
        if self.is_there():
            return
        if not set(self.files.names(self.root)) <= {"ocfl_layout.json", "extensions"}:
            raise StoreError(f"{self.root} is neither empty nor an OCFL 1.1 store")
        name = LAYOUT["extensionName"]
        layout = {"extension": name, "description": "hashed n-tuples of the object id"}
        self.files.write(f"{self.root}/extensions/{name}/config.json", json.dumps(LAYOUT, indent=1).encode())
        self.files.write(f"{self.root}/ocfl_layout.json", json.dumps(layout, indent=1).encode())
        self.files.write(f"{self.root}/{ROOT[0]}", ROOT[1])

    # -- files ------------------------------------------------------------------------------------------------

    def _folders(self) -> list[str]:
        return [name.rsplit("/", 1)[0] for name in self.files.matching(f"*/*/*/*/{OBJECT[0]}")]

    def _folder(self, object_id: str) -> str:
        return f"{self.root}/{object_path(object_id)}"

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        if self._lock_file is None:
            yield
            return
        import fcntl

        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"{self.root}: another process is writing", hint="wait until it is done"
                ) from error
            yield

    def _newest(self, folder: str) -> Inventory | None:
        """Return the inventory of the newest whole version; None if there is none."""
        names = self.files.names(folder)
        for number in sorted(filter(None, map(version_number, names)), reverse=True):
            inventory = self._read_inventory(f"{folder}/v{number}")
            if inventory is not None and inventory.head == number:
                return inventory
        return None

    def _read_inventory(self, folder: str) -> Inventory | None:
        """Return an inventory; None if it is missing or not what its sidecar says."""
        try:
            raw = self.files.read(f"{folder}/{_INVENTORY}")
            sidecar = self.files.read(f"{folder}/{_SIDECAR}")
        except FileNotFoundError:
            return None
        if sidecar.split()[:1] != [sha256(raw).encode()]:
            return None
        return Inventory.from_bytes(raw, f"{folder}/{_INVENTORY}")

    def _put_inventory(self, folder: str, raw: bytes) -> None:
        self.files.write(f"{folder}/{_INVENTORY}", raw)
        # The sidecar last: with it the version is whole.
        self.files.write(f"{folder}/{_SIDECAR}", f"{sha256(raw)} {_INVENTORY}\n".encode())

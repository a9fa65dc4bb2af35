"""``ShardData``: a dataset v1 file as a node of the provenance graph."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiida.orm import SinglefileData

if TYPE_CHECKING:
    from matcompute.dataset import Dataset

__all__ = ["ShardData"]


class ShardData(SinglefileData):
    """A dataset v1 file: structures, and the results that were computed for them.

    The file is checked when the node is made: a corrupt file or another format version is an error then, not in the
    job. What queries ask for is kept as attributes: ``n_entries``, ``n_sites``, ``format_version``, ``sha256``,
    ``properties`` (names of the result columns) and ``stage``.

    Parameters
    ----------
    file
        Path of the file.
    stage
        Name of the campaign stage that made it ("" for an input shard).

    Raises
    ------
    matcompute.dataset.DatasetError
        If the file is corrupt or of another format version.
    FileNotFoundError
        If there is no such file.
    """

    DEFAULT_FILENAME = "shard.h5"

    def __init__(self, file: str | Path, stage: str = "", **kwargs: Any) -> None:
        path = Path(file).resolve()
        from matcompute.dataset import FORMAT_VERSION, Dataset

        with Dataset(path) as dataset:
            attributes = {
                "n_entries": len(dataset),
                "n_sites": int(dataset.n_sites),
                "format_version": str(FORMAT_VERSION),
                "properties": sorted(dataset.properties),
                "descriptors": sorted(dataset.descriptors),
                "stage": stage,
            }
        with path.open("rb") as handle:
            attributes["sha256"] = hashlib.file_digest(handle, "sha256").hexdigest()
        kwargs.setdefault("filename", self.DEFAULT_FILENAME)
        super().__init__(str(path), **kwargs)
        for key, value in attributes.items():
            self.base.attributes.set(key, value)

    @property
    def n_entries(self) -> int:
        """Number of entries."""
        return int(self.base.attributes.get("n_entries"))

    @property
    def n_sites(self) -> int:
        """Number of sites of all entries."""
        return int(self.base.attributes.get("n_sites"))

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return str(self.base.attributes.get("sha256"))

    @property
    def properties(self) -> list[str]:
        """Names of the result columns."""
        return list(self.base.attributes.get("properties"))

    @property
    def descriptors(self) -> list[str]:
        """Names of the descriptors."""
        return list(self.base.attributes.get("descriptors", []))

    @property
    def stage(self) -> str:
        """Campaign stage that made it ("" for an input shard)."""
        return str(self.base.attributes.get("stage"))

    def get_hash_objects(self) -> list[Any]:
        """Objects that caching compares: the content, not the file name."""
        return [self.sha256, self.stage]

    @contextmanager
    def as_path(self) -> Iterator[Path]:
        """Yield a path under which HDF5 can open the file read-only.

        The object store keeps a fresh object as a file of its own, which is used in place; an object that was packed is
        copied to a temporary file.
        """
        direct = self._loose_object()
        if direct is not None:
            yield direct
            return
        with tempfile.TemporaryDirectory(prefix="matcompute-shard-") as folder:
            path = Path(folder) / self.filename
            with path.open("wb") as target, self.base.repository.open(self.filename, "rb") as source:
                while chunk := source.read(1 << 20):
                    target.write(chunk)
            yield path

    def _loose_object(self) -> Path | None:
        """Return the path of the object in the store if it is a plain file there."""
        with self.base.repository.open(self.filename, mode="rb") as handle:
            name = getattr(handle, "name", None)  # an object inside a pack has none
        return Path(name) if isinstance(name, str) and os.access(name, os.R_OK) else None

    @contextmanager
    def open(self, path: Any = None, mode: str | None = None) -> Iterator[Any]:
        """Yield the file as an open :class:`matcompute.dataset.Dataset`; with ``mode="rb"``, as a binary file.

        The second form is what AiiDA's own tools (``verdi data core.singlefile content``, archives) call.
        """
        if path is not None or mode is not None:
            with self.base.repository.open(path or self.filename, mode=mode or "rb") as handle:
                yield handle
            return
        with self.dataset() as dataset:
            yield dataset

    @contextmanager
    def dataset(self) -> Iterator[Dataset]:
        """Yield the file as an open :class:`matcompute.dataset.Dataset`."""
        from matcompute.dataset import Dataset

        with self.as_path() as path, Dataset(path) as dataset:
            yield dataset

    def save_as(self, path: Path | str) -> Path:
        """Write a copy of the file and return its path."""
        target = Path(path)
        with target.open("wb") as handle, self.base.repository.open(self.filename, "rb") as source:
            while chunk := source.read(1 << 20):
                handle.write(chunk)
        return target

"""Sources of batches that need no other package."""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.drivers.job import Chunk

__all__ = ["ArraySource", "chunk_rows"]

_ARRAYS = ("numbers", "positions", "cell", "pbc", "ptr")


def chunk_rows(n_sites: np.ndarray, size: int = 256, max_sites: int = 16384) -> list[Chunk]:
    """Cut structures into chunks.

    Parameters
    ----------
    n_sites
        Sites of each structure, i8[N].
    size
        Most structures of a chunk.
    max_sites
        Most sites of a chunk (a larger structure is a chunk of its own): what bounds the memory of a worker.
    """
    if size < 1 or max_sites < 1:
        raise ValueError("size and max_sites must be at least 1")
    ptr = np.concatenate([[0], np.cumsum(n_sites, dtype=np.int64)])
    chunks: list[Chunk] = []
    start, n = 0, len(ptr) - 1
    while start < n:
        fits = int(np.searchsorted(ptr, ptr[start] + max_sites, side="right")) - 1
        stop = min(max(fits, start + 1), start + size, n)
        chunks.append(Chunk(len(chunks), start, stop))
        start = stop
    return chunks


class ArraySource:
    """Structures in memory or in an ``.npz`` file that :meth:`save` wrote.

    Pickled, a source of a file is its path (each worker opens it once), and one in memory takes all arrays along:
    give the file to jobs over many processes.

    Parameters
    ----------
    structures
        A Batch, ASE Atoms or pymatgen Structures, or the path of an ``.npz`` file with the five arrays of a batch.
    size, max_sites
        See :func:`chunk_rows`.
    """

    def __init__(self, structures: Any, size: int = 256, max_sites: int = 16384) -> None:
        self.path = Path(structures) if isinstance(structures, str | Path) else None
        self.size, self.max_sites = size, max_sites
        if self.path is None:
            self.batch = as_batch(structures)

    @staticmethod
    def save(path: str | Path, structures: Any) -> None:
        """Write structures as an ``.npz`` file, uncompressed."""
        batch = as_batch(structures)
        with Path(path).open("wb") as file:
            np.savez(file, **{name: getattr(batch, name) for name in _ARRAYS})

    @cached_property
    def batch(self) -> Batch:
        """All structures."""
        assert self.path is not None
        with np.load(self.path, allow_pickle=False) as arrays:
            missing = [name for name in _ARRAYS if name not in arrays]
            if missing:
                raise ValueError(f"{self.path} has no array {missing[0]!r}")
            return Batch(**{name: arrays[name] for name in _ARRAYS})

    @cached_property
    def chunks(self) -> list[Chunk]:
        """The chunks."""
        return chunk_rows(self.batch.n_sites, self.size, self.max_sites)

    def read(self, chunk: Chunk) -> Batch:
        """Return the structures of a chunk: views of the arrays."""
        return self.batch[chunk.start : chunk.stop]

    def fingerprint(self) -> str:
        """Return the hash of the arrays."""
        digest = sha256()
        for name in _ARRAYS:
            digest.update(getattr(self.batch, name))
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.path is not None:
            state = {"path": self.path.absolute(), "size": self.size, "max_sites": self.max_sites}
        return state

"""Rows of different lengths, such as blocks by species pair or peaks: how a job carries and keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from matcompute_kernels.drivers.job import DriverError

if TYPE_CHECKING:
    from matcompute_kernels.drivers.sink import DirectorySink, Record

__all__ = ["PACKED", "Ragged", "iter_ragged"]

#: Type of a packed chunk: bytes that no kernel returns as numbers, so that it cannot be taken for rows.
PACKED = np.dtype("V1")
_HEAD = 8


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows that hold different numbers of items, in one or more parallel parts.

    Row ``i`` owns the items ``ptr[i]:ptr[i + 1]`` of each part.

    Attributes
    ----------
    parts
        Name → (ptr i8[n + 1], items [K, …]); all parts have the same number of rows.
    shared
        Arrays that belong to all rows, such as the columns of a block.
    """

    parts: dict[str, tuple[np.ndarray, np.ndarray]]
    shared: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (ptr, items) in self.parts.items():
            if len(ptr) != len(self) + 1 or ptr[0] != 0 or ptr[-1] != len(items) or (np.diff(ptr) < 0).any():
                raise DriverError(f"ragged rows: {name!r} has {len(items)} items, its offsets do not fit")

    def __len__(self) -> int:
        return len(next(iter(self.parts.values()))[0]) - 1

    def spread(self, rows: np.ndarray, n: int) -> Ragged:
        """Return ``n`` rows of which those at ``rows`` are mine and the others are empty."""
        spread = {}
        for name, (ptr, items) in self.parts.items():
            size = np.zeros(n, dtype=np.int64)
            size[rows] = np.diff(ptr)
            spread[name] = np.concatenate([[0], np.cumsum(size)]), items
        return Ragged(spread, self.shared)

    def pack(self) -> np.ndarray:
        """Return everything as bytes, :data:`PACKED` [size]: a JSON head, then the arrays."""
        arrays = [
            np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            for array in (*(array for pair in self.parts.values() for array in pair), *self.shared.values())
        ]
        layout = [[a.dtype.str, a.shape] for a in arrays]
        head = json.dumps({"parts": list(self.parts), "shared": list(self.shared), "arrays": layout}).encode()
        raw = b"".join([len(head).to_bytes(_HEAD, "little"), head, *(a.tobytes() for a in arrays)])
        return np.frombuffer(raw, PACKED)

    @classmethod
    def unpack(cls, packed: np.ndarray) -> Ragged:
        """Return what :meth:`pack` packed."""
        raw = packed.tobytes()
        at = _HEAD + int.from_bytes(raw[:_HEAD], "little")
        head = json.loads(raw[_HEAD:at])
        arrays = []
        for dtype, shape in head["arrays"]:
            size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            arrays.append(np.frombuffer(raw[at : at + size], dtype).reshape(shape))
            at += size
        parts = {name: (arrays[2 * k], arrays[2 * k + 1]) for k, name in enumerate(head["parts"])}
        return cls(parts, dict(zip(head["shared"], arrays[2 * len(parts) :])))


def iter_ragged(sink: DirectorySink) -> Iterator[tuple[Record, Ragged | None]]:
    """Yield the checked ragged rows of every chunk, in order; None for a chunk of nothing but unfit structures.

    Raises
    ------
    DriverError
        If chunks are missing or damaged, or hold rows of one length.
    """
    for record in sink.complete():
        if record.shape[0] == 0 or record.shape == (0, 0):
            yield record, None
            continue
        if np.dtype(record.dtype) != PACKED:
            raise DriverError(
                f"{sink.folder}: chunk {record.number} holds rows of one length; use merge_chunks"
            )
        yield record, Ragged.unpack(sink.read(record))

"""One finished structure as the checkpoint keeps it."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matcompute.dataset.descriptors import BlockSparse

__all__ = ["Record", "pack_arrays", "unpack_arrays"]


@dataclass
class Record:
    """The outcome of one structure.

    Parameters
    ----------
    entry_id, digest
        Who it is: the entry's id, and the hash of everything that the result depends on.
    status
        A :class:`matcompute.dataset.Status` code.
    message
        Why the status is not ``ok``.
    attempt
        1, or 2 after a worker was lost with this structure in flight.
    cpu_s, wall_s
        Time of the worker for this structure, in s.
    values, site_values
        Entry-level (any shape) and per-site ([n_sites, ...]) results.
    positions, cell
        The final structure in Å (float64 [n_sites, 3] and [3, 3]); None where it is the input's.
    descriptor
        Rows of the task's descriptor: ``values``, or the arrays of a
        :class:`~matcompute.dataset.descriptors.BlockSparse`; empty if there is none.
    """

    entry_id: str
    digest: str
    status: int
    message: str = ""
    attempt: int = 1
    cpu_s: float = 0.0
    wall_s: float = 0.0
    values: dict[str, np.ndarray] = field(default_factory=dict)
    site_values: dict[str, np.ndarray] = field(default_factory=dict)
    positions: np.ndarray | None = None
    cell: np.ndarray | None = None
    descriptor: dict[str, np.ndarray] = field(default_factory=dict)

    def keep_descriptor(self, rows: np.ndarray | BlockSparse) -> None:
        """Take over rows of a descriptor."""
        if isinstance(rows, np.ndarray):
            self.descriptor = {"values": rows}
        else:
            names = ("ptr", "pairs", "values", "kinds", "offset")
            self.descriptor = {name: getattr(rows, name) for name in names}

    def payload(self) -> bytes:
        """Return the arrays as one block of bytes."""
        arrays = {f"v:{name}": array for name, array in self.values.items()}
        arrays |= {f"s:{name}": array for name, array in self.site_values.items()}
        arrays |= {f"d:{name}": array for name, array in self.descriptor.items()}
        if self.positions is not None and self.cell is not None:
            arrays |= {"positions": self.positions, "cell": self.cell}
        return pack_arrays(arrays)

    def load_payload(self, block: bytes) -> Record:
        """Fill the arrays from :meth:`payload`'s bytes."""
        arrays = unpack_arrays(block)
        self.values = {name[2:]: array for name, array in arrays.items() if name.startswith("v:")}
        self.site_values = {name[2:]: array for name, array in arrays.items() if name.startswith("s:")}
        self.descriptor = {name[2:]: array for name, array in arrays.items() if name.startswith("d:")}
        self.positions, self.cell = arrays.get("positions"), arrays.get("cell")
        return self


def pack_arrays(arrays: dict[str, np.ndarray]) -> bytes:
    """Pack named numeric arrays: a JSON header with types and shapes, then the raw bytes.

    Not pickle: a checkpoint folder travels between machines, and reading it must never run code.
    """
    header = []
    blocks = []
    for name, array in arrays.items():
        array = np.asarray(array, order="C")  # keeps scalars zero-dimensional
        if array.dtype.kind not in "biuf":
            raise TypeError(f"result '{name}' has type {array.dtype}, expected numbers")
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        header.append((name, little.dtype.str, array.shape))
        blocks.append(little.tobytes())
    head = json.dumps(header, separators=(",", ":")).encode()
    return b"".join([struct.pack("<I", len(head)), head, *blocks])


def unpack_arrays(block: bytes) -> dict[str, np.ndarray]:
    """Undo :func:`pack_arrays`.

    Raises
    ------
    ValueError
        If the bytes are damaged.
    """
    try:
        (size,) = struct.unpack_from("<I", block)
        header = json.loads(block[4 : 4 + size])
        offset = 4 + size
        arrays = {}
        for name, dtype, shape in header:
            kind = np.dtype(dtype)
            if kind.kind not in "biuf":
                raise ValueError(f"array '{name}' has type {dtype}")
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(block, kind, count, offset).reshape(shape)
            offset += count * kind.itemsize
    except (struct.error, TypeError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"damaged block of arrays: {error}") from error
    if offset != len(block):
        raise ValueError(f"damaged block of arrays: {len(block)} bytes, expected {offset}")
    return arrays

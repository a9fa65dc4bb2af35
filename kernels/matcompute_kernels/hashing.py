"""A fingerprint of a structure that does not depend on how it is turned, shifted, ordered or wrapped.

Canonical form: the lattice as three lengths and three cosines, and the sites as fractional coordinates relative to
one site, all on an integer grid. Every site of the rarest species is tried as the origin; the smallest 128-bit sum
over the sites of a mixed (species, grid point) stands for the set of sites, so no order enters and nothing is sorted:
O(n_rare · n). The record is hashed by BLAKE2b-128.

Two cells that describe the same crystal by other lattice vectors (a supercell, another basis) have different hashes:
they are different inputs of a calculation, with different total energies. Mirror images have the same hash.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.compiled import njit
from matcompute_kernels.formula import formula_bytes

__all__ = ["HASH_WIDTH", "entry_ids", "structure_hash"]

#: Hexadecimal characters of a structure hash.
HASH_WIDTH = 32

# Grid points along a lattice vector: 2^3·3^2·5·7·11, so that the fractions of special positions are grid points.
_GRID = 27720
_LENGTH_STEP = 2e-4  # Å
_COSINE_STEP = 2e-5
# Added before the floor: keeps grid points, half points and short decimals away from where rounding jumps.
_SHIFT = 0.63
_WORDS = 12


@njit(cache=True, inline="always")
def _mix(h: np.uint64, value: np.int64) -> np.uint64:
    """Absorb one integer (the finaliser of SplitMix64, Steele et al. 2014)."""
    z = (h ^ np.uint64(value)) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, inline="always")
def _grid(value: float) -> np.int64:
    if not abs(value) < 1e15:  # NaN and infinity too: a broken structure still has a hash
        return np.int64(-(2**62))
    return np.int64(np.floor(value + _SHIFT))


@njit(cache=True)
def _frame(cell: np.ndarray, frame: np.ndarray, inverse: np.ndarray) -> bool:
    """Complete one missing vector by the unit normal, invert (OUTPUT: frame, inverse); False if singular."""
    missing, last = 0, 0
    size = 1.0
    for k in range(3):
        length = np.sqrt(cell[k, 0] ** 2 + cell[k, 1] ** 2 + cell[k, 2] ** 2)
        frame[k] = cell[k]
        if length < 1e-9:
            missing += 1
            last = k
        else:
            size *= length
    if missing > 1:
        return False
    if missing == 1:
        a, b = frame[(last + 1) % 3].copy(), frame[(last + 2) % 3].copy()
        normal = np.cross(a, b)
        norm = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
        if norm < 1e-9 * size:
            return False
        frame[last] = normal / norm
    for i in range(3):
        inverse[:, i] = np.cross(frame[(i + 1) % 3], frame[(i + 2) % 3])
    det = frame[0, 0] * inverse[0, 0] + frame[0, 1] * inverse[1, 0] + frame[0, 2] * inverse[2, 0]
    if not abs(det) > 1e-9 * size:
        return False
    inverse /= det
    return True


@njit(cache=True)
def _by_origins(
    numbers: np.ndarray, fractions: np.ndarray, pbc: np.ndarray, rarest: int, out: np.ndarray
) -> None:
    """Smallest 128-bit sum over the origins (OUTPUT: out[0:2])."""
    best1, best2 = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0xFFFFFFFFFFFFFFFF)
    for origin in range(numbers.shape[0]):
        if numbers[origin] != rarest:
            continue
        sum1, sum2 = np.uint64(0), np.uint64(0)
        for j in range(numbers.shape[0]):
            h = np.uint64(numbers[j])
            for k in range(3):
                q = _grid((fractions[j, k] - fractions[origin, k]) * _GRID)
                if pbc[k]:
                    q %= _GRID
                h = _mix(h, q)
            sum1 += _mix(h, np.int64(1))
            sum2 += _mix(h, np.int64(2))
        if sum1 < best1 or (sum1 == best1 and sum2 < best2):
            best1, best2 = sum1, sum2
    out[0], out[1] = best1, best2


@njit(cache=True)
def _by_distances(
    numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, out: np.ndarray
) -> None:
    """Molecules and wires without a full cell: all distances seen from all sites (OUTPUT: out[0:2])."""
    sum1, sum2 = np.uint64(0), np.uint64(0)
    for i in range(numbers.shape[0]):
        row = np.uint64(0)
        for j in range(numbers.shape[0]):
            d = positions[j] - positions[i]
            for k in range(3):
                square = cell[k, 0] ** 2 + cell[k, 1] ** 2 + cell[k, 2] ** 2
                if pbc[k] and square > 1e-18:
                    d -= np.rint(np.sum(d * cell[k]) / square) * cell[k]
            q = _grid(np.sqrt(np.sum(d * d)) / _LENGTH_STEP)
            row += _mix(_mix(np.uint64(numbers[j]), q), np.int64(3))
        h = _mix(_mix(np.uint64(numbers[i]), np.int64(row)), np.int64(4))
        sum1 += _mix(h, np.int64(1))
        sum2 += _mix(h, np.int64(2))
    out[0], out[1] = sum1, sum2


@njit(cache=True)
def _canonical(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    ptr: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the canonical record of each structure (OUTPUT: out, u8[N, 12])."""
    frame, inverse = np.empty((3, 3)), np.empty((3, 3))
    counts = np.zeros(256, dtype=np.int64)
    for i in range(ptr.shape[0] - 1):
        a, b = ptr[i], ptr[i + 1]
        z, x = numbers[a:b], positions[a:b]
        out[i, 0] = np.uint64(b - a)
        out[i, 1] = (
            np.uint64(pbc[i, 0]) | np.uint64(pbc[i, 1]) << np.uint64(1) | np.uint64(pbc[i, 2]) << np.uint64(2)
        )
        lengths = np.empty(3)
        for k in range(3):
            lengths[k] = np.sqrt(cell[i, k, 0] ** 2 + cell[i, k, 1] ** 2 + cell[i, k, 2] ** 2)
            out[i, 2 + k] = np.uint64(_grid(lengths[k] / _LENGTH_STEP))
        for k in range(3):
            p, q = (k + 1) % 3, (k + 2) % 3
            product = lengths[p] * lengths[q]
            cosine = np.sum(cell[i, p] * cell[i, q]) / product if product > 1e-12 else 0.0
            out[i, 5 + k] = np.uint64(_grid(cosine / _COSINE_STEP))
        counts[:] = 0
        for k in range(z.shape[0]):
            counts[z[k]] += 1
        rarest, composition = 0, np.uint64(0)
        for element in range(256):
            if counts[element] > 0:
                composition += _mix(_mix(np.uint64(element), counts[element]), np.int64(5))
                if counts[rarest] == 0 or counts[element] < counts[rarest]:
                    rarest = element
        out[i, 8] = composition
        if _frame(cell[i], frame, inverse):
            out[i, 9] = np.uint64(1)
            _by_origins(z, np.dot(np.ascontiguousarray(x), inverse), pbc[i], rarest, out[i, 10:12])
        else:
            out[i, 9] = np.uint64(2)
            _by_distances(z, x, cell[i], pbc[i], out[i, 10:12])


def structure_hash(batch: Batch | Any) -> np.ndarray:
    """Return the hash of each structure: 32 hexadecimal characters, S32[N].

    Invariant to rotation and reflection, to a shift of the origin, to the order of the sites and to moving sites by
    lattice vectors along periodic directions. Coordinates are compared on a grid of 1/27720 of each lattice vector,
    lengths to 2e-4 Å, cosines to 2e-5; noise far below that (1e-9) changes a hash only with a chance of that order.

    Parameters
    ----------
    batch
        N packed structures, or ASE Atoms or pymatgen Structures. Any are taken, also those that no kernel can describe:
        a file holds them with their status.

    Raises
    ------
    KernelInputError
        If the input is no structures.
    """
    batch = as_batch(batch)
    words = np.empty((len(batch), _WORDS), dtype=np.uint64)
    _canonical(batch.numbers, batch.positions, batch.cell, batch.pbc, batch.ptr, words)
    data = words.astype("<u8", copy=False).tobytes()
    size = _WORDS * 8
    digests = b"".join(
        [blake2b(data[at : at + size], digest_size=16).digest() for at in range(0, len(data), size)]
    )
    return np.frombuffer(digests.hex().encode(), dtype=f"S{HASH_WIDTH}")


def entry_ids(batch: Batch | Any, hashes: np.ndarray | list[str] | None = None) -> np.ndarray:
    """Return readable entry ids, ``<reduced formula>-<first 16 characters of the hash>``, as a U array [N].

    Parameters
    ----------
    batch
        N packed structures.
    hashes
        Their structure hashes, computed when not given.
    """
    batch = as_batch(batch)
    if hashes is None:
        hashes = structure_hash(batch)
    short = np.asarray(hashes).astype(f"S{HASH_WIDTH}").astype("S16")
    prefix = np.strings.add(formula_bytes(batch.numbers, batch.ptr), b"-")
    return np.strings.add(prefix, short).astype("U")

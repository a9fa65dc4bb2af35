"""Columns of the SOAP vector: species channels, their pairs, and where each pair's block lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from matcompute_kernels.checks import check_species
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.errors import KernelInputError

__all__ = ["BlockSparse", "SoapLayout", "soap_layout"]

_MODES = ("off", "mu1nu1", "mu2", "crossover", "groups")


@dataclass(frozen=True, eq=False)
class SoapLayout:
    """Blocks of columns: one per pair of channels, in each l, n, n'.

    Attributes
    ----------
    species
        Sorted atomic numbers, u1[S].
    channel
        Channel of each species, i8[S].
    weight
        Factor of each species' density, f8[S].
    names
        Name of each channel.
    pairs
        Channels of each block, i8[P, 2]; the second is the number of channels where it is their sum (mu1nu1).
    triangle
        Whether a block holds n' ≥ n only, i8[P].
    offset
        First column of each block, i8[P + 1].
    lookup
        Block of two channels (first ≤ second), -1 if it is left out, i8[C, C + 1].
    """

    species: np.ndarray
    channel: np.ndarray
    weight: np.ndarray
    names: tuple[str, ...]
    pairs: np.ndarray
    triangle: np.ndarray
    offset: np.ndarray
    lookup: np.ndarray
    n_max: int
    l_max: int

    @cached_property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.offset[-1])

    @cached_property
    def known(self) -> np.ndarray:
        """Whether an atomic number is in species, bool[256]."""
        known = np.zeros(256, dtype=np.bool_)
        known[self.species] = True
        return known

    @cached_property
    def by_number(self) -> tuple[np.ndarray, np.ndarray]:
        """Channel and weight of each atomic number (-1 and 0 of those not in species), i8[256] and f8[256]."""
        channel, weight = np.full(256, -1, np.int64), np.zeros(256)
        channel[self.species], weight[self.species] = self.channel, self.weight
        return channel, weight

    def labels(self) -> list[str]:
        """Name of each column, such as ``Na-Cl l=0 n=1 n=2`` (radial functions counted from 0)."""
        names = (*self.names, "any")
        square = [(a, b) for a in range(self.n_max) for b in range(self.n_max)]
        upper = [(a, b) for a, b in square if b >= a]
        return [
            f"{names[first]}-{names[second]} l={l} n={a} n={b}"
            for (first, second), triangle in zip(self.pairs, self.triangle)
            for l in range(self.l_max + 1)
            for a, b in (upper if triangle else square)
        ]


@dataclass(frozen=True, eq=False)
class BlockSparse:
    """Rows that hold only the blocks of species pairs that occur.

    Attributes
    ----------
    layout
        Columns.
    values
        All blocks one after the other, f8 or f4[V].
    row_ptr
        Blocks of row i: ``row_ptr[i]:row_ptr[i + 1]``, i8[R + 1].
    block
        Number of each block in ``layout.pairs``, i4[B].
    value_ptr
        Values of block b: ``value_ptr[b]:value_ptr[b + 1]``, i8[B + 1].
    """

    layout: SoapLayout
    values: np.ndarray
    row_ptr: np.ndarray
    block: np.ndarray
    value_ptr: np.ndarray

    def __len__(self) -> int:
        return self.row_ptr.shape[0] - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that this stands for."""
        return len(self), self.layout.n_features

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(a.nbytes for a in (self.values, self.row_ptr, self.block, self.value_ptr))

    def row(self, index: int) -> dict[tuple[str, str], np.ndarray]:
        """Blocks of one row: names of the two channels → values (a view)."""
        names = (*self.layout.names, "any")
        result = {}
        for b in range(self.row_ptr[index], self.row_ptr[index + 1]):
            first, second = self.layout.pairs[self.block[b]]
            result[names[first], names[second]] = self.values[self.value_ptr[b] : self.value_ptr[b + 1]]
        return result

    def toarray(self) -> np.ndarray:
        """Return the dense matrix [rows, columns]."""
        out = np.zeros(self.shape, dtype=self.values.dtype)
        for index in range(len(self)):
            for b in range(self.row_ptr[index], self.row_ptr[index + 1]):
                first = self.layout.offset[self.block[b]]
                part = self.values[self.value_ptr[b] : self.value_ptr[b + 1]]
                out[index, first : first + len(part)] = part
        return out

    def to_ragged(self) -> Any:
        """Return the rows as :class:`.Ragged` with the parts ``block`` and ``values``, as a job keeps them."""
        from matcompute_kernels.drivers.ragged import Ragged

        values = self.value_ptr[self.row_ptr], self.values
        return Ragged({"block": (self.row_ptr, self.block), "values": values})

    def tocsr(self) -> Any:
        """Return a ``scipy.sparse.csr_array`` (its column numbers take as much room again as float32 values)."""
        from scipy.sparse import csr_array

        lengths = np.diff(self.value_ptr)
        shift = self.layout.offset[self.block] - self.value_ptr[:-1]
        columns = np.arange(len(self.values)) + np.repeat(shift, lengths)
        return csr_array((self.values, columns, self.value_ptr[self.row_ptr]), shape=self.shape)


def soap_layout(
    species: Iterable[int | str],
    n_max: int,
    l_max: int,
    convention: str,
    compression: str | Mapping[str, Any] | None,
) -> SoapLayout:
    """Return the columns for a set of species and a compression (see :func:`matcompute_kernels.soap`).

    Raises
    ------
    KernelInputError
        If the compression is unknown or names elements that are not in species.
    """
    numbers = check_species(species)
    options: dict[str, Any] = (
        {"mode": compression or "off"} if not isinstance(compression, Mapping) else dict(compression)
    )
    mode = options.get("mode", "off")
    unknown = set(options) - {"mode", "species_weighting", "groups", "pairs"}
    if mode not in _MODES or unknown:
        what = f"has unknown keys {sorted(unknown)}" if unknown else f"mode {mode!r} is unknown"
        raise KernelInputError(f"compression {what}; modes are {', '.join(_MODES)}")
    groups = [[z] for z in numbers.tolist()]
    if mode == "mu2":
        groups = [numbers.tolist()]
    elif mode == "groups":
        groups = [check_species(group).tolist() for group in options.get("groups", ())]
    channel = np.full(len(numbers), -1, dtype=np.int64)
    for k, group in enumerate(groups):
        for z in group:
            at = np.flatnonzero(numbers == z)
            if len(at) == 0 or channel[at[0]] >= 0:
                fault = "twice" if len(at) else "but not in species"
                raise KernelInputError(f"{SYMBOLS[z]} is in the groups of compression {fault}")
            channel[at[0]] = k
    if channel.min() < 0:
        raise KernelInputError(
            f"{SYMBOLS[numbers[channel.argmin()]]} is in none of the groups of compression"
        )
    names = tuple("+".join(SYMBOLS[z] for z in group) for group in groups)
    n = len(groups)
    if mode == "mu1nu1":
        pairs = [(a, n) for a in range(n)]
    elif mode == "crossover":
        pairs = [(a, a) for a in range(n)]
    else:
        pairs = [(a, b) for a in range(n) for b in range(a, n)]
    if options.get("pairs") is not None:
        wanted = set()
        for pair in options["pairs"]:
            a, b = (int(channel[np.searchsorted(numbers, _known(z, numbers))]) for z in pair)
            wanted.add((min(a, b), max(a, b)))
        pairs = [p for p in pairs if p in wanted]
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    same = array[:, 0] == array[:, 1]
    triangle = np.where(same & (convention != "featomic-gto"), 1, 0).astype(np.int64)
    sizes = (l_max + 1) * np.where(triangle == 1, n_max * (n_max + 1) // 2, n_max * n_max)
    lookup = np.full((n, n + 1), -1, dtype=np.int64)
    lookup[array[:, 0], array[:, 1]] = np.arange(len(array))
    return SoapLayout(
        species=numbers,
        channel=channel,
        weight=_species_weight(options.get("species_weighting"), numbers),
        names=names,
        pairs=array,
        triangle=triangle,
        offset=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        lookup=lookup,
        n_max=n_max,
        l_max=l_max,
    )


def _known(item: int | str, numbers: np.ndarray) -> int:
    z = int(check_species([item])[0])
    if z not in numbers:
        raise KernelInputError(f"compression names {SYMBOLS[z]}, which is not in species")
    return z


def _species_weight(weights: Mapping[int | str, float] | None, numbers: np.ndarray) -> np.ndarray:
    result = np.ones(len(numbers))
    if weights is None:
        return result
    given = {_known(item, numbers): float(value) for item, value in weights.items()}
    if set(given) != set(numbers.tolist()):
        raise KernelInputError("species_weighting must have one weight for each of species")
    for z, value in given.items():
        result[np.searchsorted(numbers, z)] = value
    return result

"""Columns of the atom-centred symmetry functions: parameters, blocks of elements, sparse rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from matcompute_kernels.descriptors.soap_layout import BlockSparse
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.errors import KernelInputError

__all__ = ["AcsfLayout", "SparseRows", "SymmetryFunctions"]


@dataclass(frozen=True, eq=False)
class SymmetryFunctions:
    """The parameters as arrays: g2 f8[., 2], g3 f8[.], g4 and g5 f8[., 3]."""

    g2: np.ndarray
    g3: np.ndarray
    g4: np.ndarray
    g5: np.ndarray

    @classmethod
    def from_parameters(cls, g2: Any, g3: Any, g4: Any, g5: Any) -> SymmetryFunctions:
        return cls(
            _parameters("g2", g2, 2, "(eta, r_s)"),
            _parameters("g3", g3, 1, "kappa")[:, 0],
            _parameters("g4", g4, 3, "(eta, zeta, lambda)"),
            _parameters("g5", g5, 3, "(eta, zeta, lambda)"),
        )

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What the kernels take: g2, g3, and for G4 and G5 the distinct η, the distinct (ζ, λ) and which is which."""
        return (self.g2, np.ascontiguousarray(self.g3), *_distinct(self.g4), *_distinct(self.g5))

    def labels(self, numbers: np.ndarray) -> list[str]:
        """Name of each column."""
        names = [SYMBOLS[z] for z in numbers]
        result = []
        for name in names:
            result.append(f"{name} G1")
            result += [f"{name} G2 eta={eta:g} r_s={r_s:g}" for eta, r_s in self.g2]
            result += [f"{name} G3 kappa={kappa:g}" for kappa in self.g3]
        for high in range(len(names)):
            for low in range(high + 1):
                for which, parameters in (("G4", self.g4), ("G5", self.g5)):
                    result += [
                        f"{names[low]}-{names[high]} {which} eta={eta:g} zeta={zeta:g} lambda={lam:g}"
                        for eta, zeta, lam in parameters
                    ]
        return result

    def count(self, s: int) -> int:
        """Number of columns for s elements."""
        return (1 + len(self.g2) + len(self.g3)) * s + (len(self.g4) + len(self.g5)) * (s * (s + 1) // 2)


def _parameters(name: str, value: Any, width: int, meaning: str) -> np.ndarray:
    if value is None:
        return np.zeros((0, width))
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.zeros(())
    if array.size == 0 and array.ndim > 0:
        return np.zeros((0, width))
    if width == 1 and array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != width or not np.isfinite(array).all():
        raise KernelInputError(f"{name} must be a list of finite {meaning}, not {value!r}")
    if width == 3 and (array[:, 1] <= 0).any():
        raise KernelInputError(f"{name} needs zeta above 0")
    if width == 3 and (np.abs(array[:, 2]) > 1).any() and (array[:, 1] % 1 != 0).any():
        raise KernelInputError(f"{name} needs lambda between -1 and 1")
    if width > 1 and (array[:, 0] < 0).any():
        raise KernelInputError(f"{name} needs eta of 0 or more")
    return np.ascontiguousarray(array)


def _distinct(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct η f8[E], distinct (ζ, λ) f8[A, 2] and the numbers of both for each function, i8[., 2]."""
    if not len(parameters):
        return np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2), np.int64)
    etas, of_eta = np.unique(parameters[:, 0], return_inverse=True)
    angular, of_angular = np.unique(parameters[:, 1:], axis=0, return_inverse=True)
    return etas, np.ascontiguousarray(angular), np.column_stack([of_eta.ravel(), of_angular.ravel()])


@dataclass(frozen=True, eq=False)
class AcsfLayout:
    """Blocks of columns as :class:`BlockSparse` wants them.

    Attributes
    ----------
    names
        Symbols of the elements.
    pairs
        Elements of each block, i8[P, 2]: first G1, G2 and G3 of each element (the second is the number of elements,
        "any"), then G4 and G5 of each pair (first ≤ second).
    offset
        First column of each block, i8[P + 1].
    functions
        Parameters.
    """

    names: tuple[str, ...]
    pairs: np.ndarray
    offset: np.ndarray
    functions: SymmetryFunctions

    @classmethod
    def of(cls, functions: SymmetryFunctions, numbers: np.ndarray) -> AcsfLayout:
        """Make the layout for some elements."""
        s = len(numbers)
        angular = len(functions.g4) + len(functions.g5)
        pairs = [(a, s) for a in range(s)]
        sizes = [1 + len(functions.g2) + len(functions.g3)] * s
        if angular:
            pairs += [(low, high) for high in range(s) for low in range(high + 1)]
            sizes += [angular] * (s * (s + 1) // 2)
        offset = np.concatenate([[0], np.cumsum(sizes)])
        return cls(tuple(SYMBOLS[z] for z in numbers), np.array(pairs), offset, functions)

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.offset[-1])

    def labels(self) -> list[str]:
        """Name of each column."""
        return self.functions.labels(np.array([SYMBOLS.index(name) for name in self.names]))


class SparseRows:
    """Collects the blocks of the elements that occur in each structure, chunk by chunk."""

    def __init__(
        self, functions: SymmetryFunctions, numbers: np.ndarray, element: np.ndarray, ptr: np.ndarray
    ) -> None:
        self._layout = AcsfLayout.of(functions, numbers)
        self._element, self._ptr = element, ptr
        self._parts: dict[int, tuple[np.ndarray, list[np.ndarray], list[int]]] = {}

    def take(self, first: int, rows: np.ndarray) -> None:
        """Keep what occurs of the dense rows of the sites from ``first`` on."""
        layout, last, site = self._layout, first + len(rows), first
        s = len(layout.names)
        values: list[np.ndarray] = []
        blocks: list[np.ndarray] = []
        counts: list[int] = []
        while site < last:
            structure = int(np.searchsorted(self._ptr, site, side="right")) - 1
            end = min(last, int(self._ptr[structure + 1]))
            present = np.zeros(s + 1, dtype=bool)
            present[self._element[self._ptr[structure] : self._ptr[structure + 1]]] = True
            present[s] = True
            own = np.flatnonzero(present[layout.pairs].all(axis=1)).astype(np.int32)
            columns = np.concatenate([np.arange(layout.offset[b], layout.offset[b + 1]) for b in own])
            values.append(rows[site - first : end - first][:, columns].ravel())
            blocks.append(np.tile(own, end - site))
            counts += [len(own)] * (end - site)
            site = end
        self._parts[first] = np.concatenate(values), blocks, counts

    def join(self, dtype: np.dtype) -> BlockSparse:
        """Return all rows."""
        parts = [self._parts[first] for first in sorted(self._parts)]
        block = np.concatenate([np.zeros(0, np.int32), *(b for part in parts for b in part[1])])
        counts = np.array([c for part in parts for c in part[2]], np.int64)
        sizes = np.diff(self._layout.offset)[block]
        layout: Any = self._layout
        return BlockSparse(
            layout,
            np.concatenate([np.zeros(0, dtype), *(part[0] for part in parts)]),
            np.concatenate([[0], np.cumsum(counts)]),
            block,
            np.concatenate([[0], np.cumsum(sizes)]),
        )

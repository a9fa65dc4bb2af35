"""Structures that nobody should compute: no atoms, unknown species, broken cells, atoms inside each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matcompute_kernels.batch import Batch
from matcompute_kernels.compiled import njit
from matcompute_kernels.elements import SYMBOLS

__all__ = ["CAUSES", "OVERLAP_FRACTION", "Screening", "screen"]

#: Atoms nearer than this fraction of the sum of their covalent radii overlap. Bonds under high pressure stay above 0.7.
OVERLAP_FRACTION = 0.5

#: Shortest lattice vector in Å; an H atom alone is wider.
_SHORTEST_VECTOR = 0.5

#: Cause of a reject → what it means and what to do.
CAUSES: dict[str, str] = {
    "unreadable": "the file, or a structure in it, cannot be read; mend it or leave it out",
    "no_atoms": "a structure without atoms",
    "unknown_species": "a species that is no element, or one without data; give real symbols",
    "disordered": "sites shared by species or partly empty; make an ordered structure of it first",
    "bad_cell": "a lattice that is missing, flat or not a number; three independent vectors are needed",
    "bad_positions": "a position that is not a number",
    "overlap": "atoms inside each other; often a missing unit conversion or a duplicated site",
    "duplicate": "the same structure came before; the first one is kept",
}

_OK, _NO_ATOMS, _SPECIES, _CELL, _POSITIONS, _OVERLAP = range(6)
_NAMES = ("", "no_atoms", "unknown_species", "bad_cell", "bad_positions", "overlap")


@dataclass
class Screening:
    """Verdict on each structure of a batch.

    Attributes
    ----------
    code
        u1[N], 0 for a good structure.
    pair
        i8[N,2], the worst pair of sites (numbers inside the structure) of an overlap.
    distance, ratio
        f8[N], their distance in Å, and as a fraction of the sum of their covalent radii.
    """

    batch: Batch
    code: np.ndarray
    pair: np.ndarray
    distance: np.ndarray
    ratio: np.ndarray

    @property
    def good(self) -> np.ndarray:
        """bool[N]."""
        return self.code == _OK

    def cause(self, index: int) -> str:
        """Return the cause of a reject, a key of :data:`CAUSES`."""
        return _NAMES[self.code[index]]

    def reason(self, index: int) -> str:
        """Return what is wrong with a structure, with numbers."""
        code = self.code[index]
        a, b = self.batch.ptr[index], self.batch.ptr[index + 1]
        numbers, cell = self.batch.numbers[a:b], self.batch.cell[index]
        if code == _NO_ATOMS:
            return "it has no atoms"
        if code == _SPECIES:
            site = int(np.flatnonzero(numbers == 0)[0])
            return f"site {site + 1} has an unknown species"
        if code == _CELL:
            if not np.isfinite(cell).all():
                return "its lattice has a value that is not a number"
            lengths = np.linalg.norm(cell, axis=1)
            if lengths.max() == 0:
                return "it has no lattice"
            if lengths.min() < _SHORTEST_VECTOR:
                return f"lattice vector {int(lengths.argmin()) + 1} has the length {lengths.min():.3g} Å"
            return "its lattice vectors lie in a plane (volume 0)"
        if code == _POSITIONS:
            bad = ~np.isfinite(self.batch.positions[a:b]).all(axis=1)
            return f"the position of site {int(np.flatnonzero(bad)[0]) + 1} is not a number"
        i, j = (int(k) for k in self.pair[index])
        names = f"{SYMBOLS[numbers[i]]} (site {i + 1}) and {SYMBOLS[numbers[j]]} (site {j + 1})"
        image = " of the next cell" if i == j else ""
        return (
            f"{names}{image} are {self.distance[index]:.3f} Å apart, "
            f"{self.ratio[index]:.2f} of the sum of their covalent radii (at least {OVERLAP_FRACTION})"
        )


def screen(batch: Batch, fraction: float = OVERLAP_FRACTION) -> Screening:
    """Judge every structure of a batch, with periodic images.

    Parameters
    ----------
    batch
        N structures.
    fraction
        Smallest distance as a fraction of the sum of covalent radii (Cordero et al., Dalton Trans. 2832 (2008)).
    """
    from ase.data import covalent_radii

    n = len(batch)
    radii = np.full(256, 0.2)
    radii[: len(covalent_radii)] = covalent_radii
    code = np.zeros(n, dtype=np.uint8)
    pair = np.zeros((n, 2), dtype=np.int64)
    distance, ratio = np.full(n, np.inf), np.full(n, np.inf)
    _judge(
        batch.numbers,
        batch.positions,
        batch.cell,
        batch.pbc,
        batch.ptr,
        radii,
        fraction,
        code,
        pair,
        distance,
        ratio,
    )
    return Screening(batch, code, pair, distance, ratio)


@njit(cache=True)
def _judge(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    ptr: np.ndarray,
    radii: np.ndarray,
    fraction: float,
    code: np.ndarray,
    pair: np.ndarray,
    distance: np.ndarray,
    ratio: np.ndarray,
) -> None:
    """OUTPUT: code, pair, distance, ratio."""
    for s in range(len(ptr) - 1):
        a, b = ptr[s], ptr[s + 1]
        if b == a:
            code[s] = _NO_ATOMS
            continue
        largest = 0.0
        for i in range(a, b):
            if numbers[i] == 0:
                code[s] = _SPECIES
            largest = max(largest, radii[numbers[i]])
        if code[s] != _OK:
            continue
        c = cell[s]
        finite = True
        for i in range(3):
            length = 0.0
            for j in range(3):
                finite = finite and np.isfinite(c[i, j])
                length += c[i, j] ** 2
            if not length >= _SHORTEST_VECTOR**2:
                code[s] = _CELL
        if not finite:
            code[s] = _CELL
        if code[s] != _OK:
            continue
        normals = np.empty((3, 3))
        heights = np.empty(3)
        volume = 0.0
        for k in range(3):
            u, v = c[(k + 1) % 3], c[(k + 2) % 3]
            normals[k, 0] = u[1] * v[2] - u[2] * v[1]
            normals[k, 1] = u[2] * v[0] - u[0] * v[2]
            normals[k, 2] = u[0] * v[1] - u[1] * v[0]
        volume = c[0, 0] * normals[0, 0] + c[0, 1] * normals[0, 1] + c[0, 2] * normals[0, 2]
        scale = 1.0
        for k in range(3):
            scale *= np.sqrt(c[k, 0] ** 2 + c[k, 1] ** 2 + c[k, 2] ** 2)
        if abs(volume) < 1e-4 * scale:
            code[s] = _CELL
            continue
        for k in range(3):
            area = np.sqrt(normals[k, 0] ** 2 + normals[k, 1] ** 2 + normals[k, 2] ** 2)
            heights[k] = abs(volume) / area
            normals[k] /= volume
        for i in range(a, b):
            for k in range(3):
                if not np.isfinite(positions[i, k]):
                    code[s] = _POSITIONS
        if code[s] != _OK:
            continue
        _closest(
            numbers[a:b],
            positions[a:b],
            c,
            pbc[s],
            normals,
            heights,
            radii,
            2 * fraction * largest,
            s,
            pair,
            distance,
            ratio,
        )
        if ratio[s] < fraction:
            code[s] = _OVERLAP


@njit(cache=True)
def _closest(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    pbc: np.ndarray,
    inverse: np.ndarray,
    heights: np.ndarray,
    radii: np.ndarray,
    cutoff: float,
    s: int,
    pair: np.ndarray,
    distance: np.ndarray,
    ratio: np.ndarray,
) -> None:
    """Find the relatively closest pair within the cutoff, by bins in fractional space.

    OUTPUT: row s of pair, distance and ratio.
    """
    n = len(numbers)
    bins, reach = np.empty(3, np.int64), np.empty(3, np.int64)
    for k in range(3):
        bins[k] = 1
        reach[k] = 0
        if pbc[k]:
            # Few atoms: one bin is quickest; many: bins as wide as the cutoff.
            if n > 64:
                bins[k] = max(1, min(int(heights[k] / cutoff), 64))
            reach[k] = int(np.ceil(cutoff / heights[k] * bins[k]))
    wrapped = np.empty((n, 3))
    where = np.empty((n, 3), np.int64)
    total = bins[0] * bins[1] * bins[2]
    head = np.full(total, -1, np.int64)
    following = np.empty(n, np.int64)
    for i in range(n):
        for k in range(3):
            f = 0.0
            for j in range(3):
                f += positions[i, j] * inverse[k, j]
            if pbc[k]:
                f -= np.floor(f)
                where[i, k] = min(int(f * bins[k]), bins[k] - 1)
            else:
                where[i, k] = 0
            wrapped[i, k] = f
        index = (where[i, 0] * bins[1] + where[i, 1]) * bins[2] + where[i, 2]
        following[i] = head[index]
        head[index] = i
    for i in range(n):
        for da in range(-reach[0], reach[0] + 1):
            qa = where[i, 0] + da
            sa = qa // bins[0]
            for db in range(-reach[1], reach[1] + 1):
                qb = where[i, 1] + db
                sb = qb // bins[1]
                for dc in range(-reach[2], reach[2] + 1):
                    qc = where[i, 2] + dc
                    sc = qc // bins[2]
                    index = ((qa - sa * bins[0]) * bins[1] + (qb - sb * bins[1])) * bins[2] + (
                        qc - sc * bins[2]
                    )
                    j = head[index]
                    while j >= 0:
                        if j > i or (j == i and (sa != 0 or sb != 0 or sc != 0)):
                            fa = wrapped[j, 0] - wrapped[i, 0] + sa
                            fb = wrapped[j, 1] - wrapped[i, 1] + sb
                            fc = wrapped[j, 2] - wrapped[i, 2] + sc
                            d2 = 0.0
                            for k in range(3):
                                x = fa * cell[0, k] + fb * cell[1, k] + fc * cell[2, k]
                                d2 += x * x
                            near = np.sqrt(d2)
                            relative = near / (radii[numbers[i]] + radii[numbers[j]])
                            if relative < ratio[s]:
                                ratio[s], distance[s] = relative, near
                                pair[s, 0], pair[s, 1] = i, j
                        j = following[j]

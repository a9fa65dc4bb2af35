"""Neighbour lists of packed structures, shared by the descriptors of one call.

Convention: ``vector = r_j - r_i + shift · cell`` (Å), pairs with ``distance < r_cut``, never an atom with itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.cell_images import turn_cell
from matcompute_kernels.cell_list import fill_pairs
from matcompute_kernels.checks import check_batch, check_positive
from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

__all__ = ["NeighborList", "check_neighbors", "expected_pairs", "neighbor_list", "site_chunks"]

#: Pairs of one list: 120 GB.
_MOST_PAIRS = float(1 << 31)


@dataclass(frozen=True, eq=False)
class NeighborList:
    """Pairs closer than a cutoff, in compressed sparse rows: site ``i`` owns ``ptr[i - first]:ptr[i - first + 1]``.

    Attributes
    ----------
    ptr
        Pair offsets, i8[n + 1] for the n sites from ``first`` on.
    j
        Neighbour as a site number of the batch, i4[P].
    shift
        Lattice vectors to add to the neighbour's given position, i4[P, 3].
    distance
        Distances in Å, f8[P].
    vector
        r_j - r_i + shift · cell in Å, f8[P, 3].
    r_cut
        Cutoff in Å.
    full
        Whether each pair is there twice (seen from i and from j). A half list has the pairs with j > i, and of an
        atom with its own images those whose first non-zero shift is positive.
    first
        First site of the list (not 0 for a part of a batch).
    """

    ptr: np.ndarray
    j: np.ndarray
    shift: np.ndarray
    distance: np.ndarray
    vector: np.ndarray
    r_cut: float
    full: bool = True
    first: int = 0

    def __len__(self) -> int:
        return self.j.shape[0]

    @property
    def i(self) -> np.ndarray:
        """Centre of each pair as a site number of the batch, i4[P], rising."""
        sites = np.arange(self.first, self.first + self.ptr.shape[0] - 1, dtype=np.int32)
        return np.repeat(sites, np.diff(self.ptr))

    @property
    def counts(self) -> np.ndarray:
        """Number of neighbours of each site, i8[n]."""
        return np.diff(self.ptr)

    def within(self, r_cut: float) -> NeighborList:
        """Return the pairs closer than a smaller cutoff (a copy; ``self`` if the cutoff is the same)."""
        if r_cut == self.r_cut:
            return self
        if r_cut > self.r_cut:
            raise KernelInputError(f"neighbors reach {self.r_cut} Å, not {r_cut} Å")
        keep = self.distance < r_cut
        ptr = np.concatenate([[0], np.cumsum(keep)])[self.ptr]
        return NeighborList(
            ptr,
            self.j[keep],
            self.shift[keep],
            self.distance[keep],
            self.vector[keep],
            r_cut,
            self.full,
            self.first,
        )


def neighbor_list(
    batch: Batch | Atoms | Structure | list[Any],
    r_cut: float,
    full: bool = True,
    *,
    sites: tuple[int, int] | None = None,
    check: bool = True,
    backend: str = "numba",
) -> NeighborList:
    """Find all pairs of atoms closer than a cutoff, over periodic images.

    Any triclinic cell, periodic along any of its vectors, and any cutoff, also beyond the cell. Sorted by i; the
    order of the neighbours of one site is the same in every run but not otherwise defined.

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    r_cut
        Cutoff in Å.
    full
        Full list (each pair from both ends) or half list.
    sites
        First and last (excluded) centre; None: all. The list of a part needs the memory of that part only.
    check
        Whether to look for bad input (a caller that has checked says False).
    backend
        ``"numba"``; ``"cuda"``: the GPU, or an error; ``"auto"``: the GPU where it can do this call, else the CPU, and
        one line in the log says why (:mod:`matcompute_kernels.cuda`).

    Returns
    -------
    NeighborList
        48 bytes a pair, in one block of memory that lives as long as one of its arrays.

    Raises
    ------
    KernelInputError
        If a structure has no atoms, positions that are not finite or a singular cell, or r_cut is not positive.

    Examples
    --------
    >>> from ase.build import bulk
    >>> len(neighbor_list(bulk("Al", "fcc", a=4.05), r_cut=3.0))
    12
    """
    batch = as_batch(batch)
    check_positive(r_cut=r_cut)
    if backend != "numba":
        from matcompute_kernels.cuda.backend import on_gpu

        if on_gpu(backend, full=not full, sites=sites is not None):
            from matcompute_kernels.cuda.neighbors import neighbor_list as on_device

            return on_device(batch, r_cut)
    if check:
        check_batch(batch)
    if sites is None:
        first, last, begin, end = 0, int(batch.ptr[-1]), 0, len(batch)
    else:
        first, last = sites
        begin = int(batch.ptr.searchsorted(first, side="right")) - 1
        end = max(begin, int(batch.ptr.searchsorted(last, side="left")))
    total, index = _expected_sum(batch.cell, batch.pbc, batch.ptr, float(r_cut), begin, end)
    if sites is not None:
        total *= (last - first) / max(1, int(batch.ptr[end]) - int(batch.ptr[begin]))
    if not total < _MOST_PAIRS:
        raise KernelInputError(
            f"within {r_cut:g} Å there are about {total:.1e} pairs (at most {_MOST_PAIRS:.0e} are "
            "possible); give a smaller cutoff",
            index,
        )
    room = int(1.05 * total) + 4 * (last - first) + 1024
    ptr = np.empty(last + 1, dtype=np.int64)
    ptr[first] = 0
    arrays = _room(room)
    site, n_pairs = first, 0
    while True:
        site, n_pairs = fill_pairs(
            batch.positions,
            batch.cell,
            batch.pbc,
            batch.ptr,
            float(r_cut),
            full,
            site,
            last,
            n_pairs,
            ptr,
            *arrays,
        )
        if site >= last:
            break
        # Room for the rest at the rate so far, and always for the site that did not fit.
        room = max(int(1.2 * n_pairs * (last - first) / max(1, site - first)), 2 * room)
        arrays = _room(room, arrays, n_pairs)
    if room > 1.5 * n_pairs + 4096:  # else the little that is too much is left where it is
        arrays = _room(n_pairs, arrays, n_pairs)
    j, shift, distance, vector = (array[:n_pairs] for array in arrays)
    return NeighborList(ptr[first:], j, shift, distance, vector, float(r_cut), full, first)


def _room(pairs: int, old: tuple[np.ndarray, ...] | None = None, n_old: int = 0) -> tuple[np.ndarray, ...]:
    """Return j, shift, distance and vector with room for that many pairs, the first n_old taken over from ``old``.

    One block of memory: the C library keeps a block of up to 32 MiB for the next call, where it gives back the pages of
    four smaller ones at once, and to get new pages takes longer than to find the pairs.
    """
    real = np.empty(6 * pairs)
    whole: np.ndarray = real[4 * pairs :].view(np.int32)
    new = whole[:pairs], whole[pairs:].reshape(-1, 3), real[:pairs], real[pairs : 4 * pairs].reshape(-1, 3)
    if old is not None:
        for to, array in zip(new, old):
            to[:n_old] = array[:n_old]
    return new


def check_neighbors(neighbors: NeighborList | None, batch: Batch, r_cut: float) -> None:
    """Raise :class:`KernelInputError` unless a list is None or a full one of this batch that reaches to r_cut."""
    if neighbors is None:
        return
    if not isinstance(neighbors, NeighborList):
        raise KernelInputError(f"neighbors must be a NeighborList, not {type(neighbors).__name__}")
    if not neighbors.full or neighbors.first != 0 or len(neighbors.ptr) != len(batch.numbers) + 1:
        raise KernelInputError("neighbors must be a full list of this batch")
    if neighbors.r_cut < r_cut:
        raise KernelInputError(f"neighbors reach {neighbors.r_cut} Å, not {r_cut} Å")


def expected_pairs(batch: Batch, r_cut: float) -> np.ndarray:
    """Estimate the pairs of each structure's full list from its density, f8[N]; a structure without cell: n².

    A measure of cost to balance work by; the list itself may be longer or shorter.
    """
    out = np.empty(len(batch))
    _expected(batch.cell, batch.pbc, batch.ptr, float(r_cut), out)
    return out


@njit(cache=True, nogil=True)
def _expected(cell: np.ndarray, pbc: np.ndarray, ptr: np.ndarray, r_cut: float, out: np.ndarray) -> None:
    """OUTPUT: out f8[N]."""
    frame, tri, axes = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3, np.int64)
    for i in range(out.shape[0]):
        out[i] = _expected_one(cell[i], pbc[i], float(ptr[i + 1] - ptr[i]), r_cut, axes, frame, tri)


@njit(cache=True, nogil=True)
def _expected_sum(
    cell: np.ndarray, pbc: np.ndarray, ptr: np.ndarray, r_cut: float, begin: int, end: int
) -> tuple[float, int]:
    """Expected pairs of the structures ``begin:end``, and the one with the most for each of its sites."""
    frame, tri, axes = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3, np.int64)
    total, most, index = 0.0, -1.0, begin
    for i in range(begin, end):
        n = float(ptr[i + 1] - ptr[i])
        pairs = _expected_one(cell[i], pbc[i], n, r_cut, axes, frame, tri)
        total += pairs
        if pairs > most * n:
            most, index = pairs / max(n, 1.0), i
    return total, index


@njit(cache=True, nogil=True)
def _expected_one(
    cell: np.ndarray,
    pbc: np.ndarray,
    n: float,
    r_cut: float,
    axes: np.ndarray,
    frame: np.ndarray,
    tri: np.ndarray,
) -> float:
    sphere = 4.0 / 3.0 * np.pi * r_cut**3
    n_periodic = turn_cell(cell, pbc, axes, frame, tri)
    if n_periodic == 3:
        return n + n * n * sphere / (tri[0, 0] * tri[1, 1] * tri[2, 2])
    # Open directions: a dense solid, and no more than the atoms there are with their images.
    images = 1.0
    for k in range(n_periodic):
        images *= 1.0 + 2.0 * r_cut / tri[k, k]
    return n + n * min(n * images, 0.2 * sphere)


def site_chunks(batch: Batch, r_cut: float, max_pairs: int) -> Iterator[tuple[int, int]]:
    """Cut the sites of a batch into ranges of at most ``max_pairs`` expected pairs each.

    Where that is more than one, their number is even and they are about equal, so that two threads have the same to do.
    Only structures with more pairs than that are cut, each on its own and in the same way whatever else the batch has:
    into at most 16 ranges, or ranges of ten times ``max_pairs`` (each range goes over all sites of its structure once).
    Use with ``neighbor_list(..., sites=...)``.
    """
    expected = expected_pairs(batch, r_cut)
    if expected.sum() <= max_pairs:
        if batch.ptr[-1]:
            yield 0, int(batch.ptr[-1])
        return
    small = float(expected[expected <= max_pairs].sum())
    enough = small / (2 * math.ceil(small / (2 * max_pairs))) if small > max_pairs else max_pairs
    first, load = 0, 0.0
    for structure, pairs in enumerate(expected.tolist()):
        begin, end = int(batch.ptr[structure]), int(batch.ptr[structure + 1])
        if (load >= enough or load + pairs > max_pairs) and begin > first:
            yield first, begin
            first, load = begin, 0.0
        load += pairs
        if pairs > max_pairs:
            piece = min(max(pairs / 16.0, max_pairs), 10.0 * max_pairs)
            step = max(1, int((end - begin) * piece / pairs))
            for at in range(begin, end, step):
                yield at, min(at + step, end)
            first, load = end, 0.0
    if first < batch.ptr[-1]:
        yield first, int(batch.ptr[-1])

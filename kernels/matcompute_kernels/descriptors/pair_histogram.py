"""Histograms of pair distances: what the radial distribution functions share."""

from __future__ import annotations

from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch
from matcompute_kernels.checks import check_positive
from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.neighbors import NeighborList
from matcompute_kernels.tasks import MAX_PAIRS, run_tasks

__all__ = ["bin_edges", "check_volumes", "pair_histograms", "shell_volumes"]

#: Å: a distance this close below an edge is on it (rounding must not move a peak of a perfect crystal).
TOLERANCE = 1e-8
#: More bins than this are a slip of the pen.
MAX_BINS = 10_000_000


def bin_edges(r_cut: float, bin_size: float) -> np.ndarray:
    """Edges of the bins in Å as matminer makes them (``np.arange``: the last can lie one bin beyond the cutoff)."""
    check_positive(r_cut=r_cut, bin_size=bin_size)
    if bin_size > r_cut or r_cut / bin_size > MAX_BINS:
        raise KernelInputError(f"bin_size must lie between r_cut/{MAX_BINS} and r_cut, not {bin_size!r}")
    return np.arange(0, r_cut + bin_size, bin_size)


def shell_volumes(edges: np.ndarray) -> np.ndarray:
    """Volumes of the shells between the edges in Å³."""
    return 4.0 / 3.0 * np.pi * (edges[1:] ** 3 - edges[:-1] ** 3)


def check_volumes(batch: Batch) -> np.ndarray:
    """Return the volumes in Å³.

    Raises
    ------
    KernelInputError
        If a structure has none: a radial distribution function is relative to the mean density.
    """
    volumes = batch.volumes
    if (volumes <= 0).any():
        raise KernelInputError(
            "no cell volume to take the density from; set a cell", int(np.argmax(volumes <= 0))
        )
    return volumes


def pair_histograms(
    batch: Batch,
    r_cut: float,
    edges: np.ndarray,
    element: np.ndarray,
    place: np.ndarray,
    n_blocks: int,
    neighbors: NeighborList | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Count the neighbours of the atoms by distance.

    Parameters
    ----------
    batch
        Packed structures, checked.
    r_cut
        Cutoff in Å (inclusive).
    edges
        Edges of the bins in Å, f8[B + 1].
    element
        Number of each site's element, i8[M].
    place
        Block of a centre's element and its neighbour's, i8[S, S], or -1.
    n_blocks
        Blocks a structure.
    neighbors, threads
        As in :func:`matcompute_kernels.tasks.run_tasks`; a given list counts as reaching its cutoff inclusively.

    Returns
    -------
    ndarray
        f8[N, n_blocks, B].
    """
    out = np.zeros((len(batch), n_blocks, len(edges) - 1))
    reach = r_cut + TOLERANCE
    if isinstance(neighbors, NeighborList) and r_cut <= neighbors.r_cut < reach:
        reach = neighbors.r_cut

    def start() -> Any:
        def kernel(first: int, last: int, pairs: NeighborList) -> None:
            _count(first, last, pairs.ptr, pairs.j, pairs.distance, batch.ptr, edges, element, place, out)

        return kernel

    run_tasks(batch, reach, MAX_PAIRS, start, full=False, neighbors=neighbors, threads=threads)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _count(
    first: int,
    last: int,
    pair_ptr: np.ndarray,
    neighbor: np.ndarray,
    distance: np.ndarray,
    ptr: np.ndarray,
    edges: np.ndarray,
    element: np.ndarray,
    place: np.ndarray,
    out: np.ndarray,
) -> None:
    """OUTPUT: adds each pair of a half list to out f8[N, blocks, B] from both ends."""
    n_bins = edges.shape[0] - 1
    scale = 1.0 / edges[1]
    structure = np.searchsorted(ptr, first, side="right") - 1
    for i in range(first, last):
        while i >= ptr[structure + 1]:
            structure += 1
        for p in range(pair_ptr[i - first], pair_ptr[i - first + 1]):
            d = distance[p] + TOLERANCE
            b = min(int(d * scale), n_bins - 1)
            if d < edges[b]:
                b -= 1
            elif b + 1 < n_bins and d >= edges[b + 1]:
                b += 1
            e, f = element[i], element[neighbor[p]]
            if place[e, f] >= 0:
                out[structure, place[e, f], b] += 1.0
            if place[f, e] >= 0:
                out[structure, place[f, e], b] += 1.0

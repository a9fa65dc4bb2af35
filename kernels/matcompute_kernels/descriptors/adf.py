"""Angular distribution function: the angles between neighbours at every atom."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import (
    check_batch,
    check_dtype,
    check_integer,
    check_positive,
    check_species,
    species_index,
)
from matcompute_kernels.compiled import njit
from matcompute_kernels.descriptors.many_body import triplet_block
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.neighbors import NeighborList
from matcompute_kernels.tasks import MAX_PAIRS, run_tasks

__all__ = ["adf", "labels"]

#: Degrees: an angle this close below an edge is on it.
TOLERANCE = 1e-6

NORMALIZATIONS = ("density", "per_atom", "none")


def adf(
    batch: Any,
    r_cut: float,
    n_bins: int = 180,
    *,
    species: Iterable[int | str] | None = None,
    normalization: str = "density",
    dtype: Any = np.float64,
    neighbors: NeighborList | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Angular distribution function: histogram of the angles j-i-k over all atoms i and pairs of neighbours j, k.

    Bins of equal width from 0° to 180°; a pair of neighbours counts once, and both lie within r_cut of i (the bond
    angle distribution of OVITO or LAMMPS). An angle within 1e-6° below an edge counts as on it.

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    r_cut
        Cutoff in Å.
    n_bins
        Bins.
    species
        Elements: then one histogram per middle atom B and pair A ≤ C of ends, in the order of
        :func:`matcompute_kernels.mbtr` (k = 3). None: one histogram of all.
    normalization
        ``"density"``: integral over degrees 1 (of each histogram; 0 if it is empty); ``"per_atom"``: counts over the
        number of atoms of the structure; ``"none"``: counts.
    dtype
        float64 or float32 of the output.
    neighbors
        A full neighbour list of the batch that reaches at least as far, shared by several descriptors; None: made here.
    threads
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray
        f[N, blocks · n_bins].

    Raises
    ------
    KernelInputError
        If a structure is unfit or has an element that is not in ``species``, or a parameter is wrong.
    """
    check_positive(r_cut=r_cut)
    check_integer(1, 10_000_000, n_bins=n_bins)
    if normalization not in NORMALIZATIONS:
        raise KernelInputError(
            f"normalization must be one of {', '.join(NORMALIZATIONS)}, not {normalization!r}"
        )
    kind = check_dtype(dtype)
    packed = as_batch(batch)
    if species is None:
        check_batch(packed)
        element, s = np.zeros(len(packed.numbers), np.int64), 1
    else:
        numbers = check_species(species)
        check_batch(packed, numbers.tolist())
        element, s = species_index(packed, numbers), len(numbers)
    out = np.zeros((len(packed), s * s * (s + 1) // 2, n_bins))

    def start() -> Any:
        def kernel(first: int, last: int, pairs: NeighborList) -> None:
            _count(first, last, pairs.ptr, pairs.j, pairs.distance, pairs.vector, packed.ptr, element, s, out)

        return kernel

    run_tasks(packed, float(r_cut), MAX_PAIRS, start, neighbors=neighbors, threads=threads)
    if normalization == "density":
        total = out.sum(axis=2, keepdims=True) * (180.0 / n_bins)
        out /= np.where(total > 0, total, 1.0)
    elif normalization == "per_atom":
        out /= packed.n_sites[:, None, None]
    return out.reshape(len(packed), out.shape[1] * n_bins).astype(kind, copy=False)


def labels(
    r_cut: float = 0.0, n_bins: int = 180, *, species: Iterable[int | str] | None = None, **_: Any
) -> list[str]:
    """Return the name of each column."""
    edges = np.linspace(0.0, 180.0, n_bins + 1)
    blocks = ["adf"]
    if species is not None:
        names = [SYMBOLS[z] for z in check_species(species)]
        blocks = [f"adf {a}-{b}-{c}" for b in names for k, a in enumerate(names) for c in names[k:]]
    return [f"{block} [{a:g} - {b:g}]" for block in blocks for a, b in pairwise(edges)]


@njit(cache=True, nogil=True, error_model="numpy")
def _count(
    first: int,
    last: int,
    pair_ptr: np.ndarray,
    neighbor: np.ndarray,
    distance: np.ndarray,
    vector: np.ndarray,
    ptr: np.ndarray,
    element: np.ndarray,
    n_species: int,
    out: np.ndarray,
) -> None:
    """OUTPUT: adds to out f8[N, blocks, bins]."""
    n_bins = out.shape[2]
    scale = n_bins / 180.0
    structure = np.searchsorted(ptr, first, side="right") - 1
    for i in range(first, last):
        while i >= ptr[structure + 1]:
            structure += 1
        begin, end = pair_ptr[i - first], pair_ptr[i - first + 1]
        for p in range(begin, end):
            for q in range(begin, p):
                dot = vector[p, 0] * vector[q, 0] + vector[p, 1] * vector[q, 1] + vector[p, 2] * vector[q, 2]
                cosine = max(-1.0, min(1.0, dot / (distance[p] * distance[q])))
                angle = np.arccos(cosine) * (180.0 / np.pi) + TOLERANCE
                b = min(int(angle * scale), n_bins - 1)
                e, f = element[neighbor[p]], element[neighbor[q]]
                out[structure, triplet_block(min(e, f), element[i], max(e, f), n_species), b] += 1.0

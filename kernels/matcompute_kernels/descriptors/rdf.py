"""Radial distribution function of crystals as matminer 0.10.1 defines it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_dtype
from matcompute_kernels.descriptors.pair_histogram import (
    bin_edges,
    check_volumes,
    pair_histograms,
    shell_volumes,
)
from matcompute_kernels.neighbors import NeighborList

__all__ = ["labels", "rdf"]


def rdf(
    batch: Any,
    r_cut: float = 20.0,
    bin_size: float = 0.1,
    *,
    per_atom: bool = False,
    dtype: Any = np.float64,
    neighbors: NeighborList | None = None,
    threads: int = 1,
    backend: str = "numba",
) -> np.ndarray:
    """Radial distribution function: neighbours of all atoms in a shell over its volume and the mean density.

    matminer 0.10.1's definition (``RadialDistributionFunction``), bins included. It sums over the N atoms of the cell,
    so that it tends to N, not to 1; ``per_atom`` divides by N. A distance within 1e-8 Å below an edge counts as on it,
    which makes the bins of perfect crystals independent of rounding.

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures, with a cell.
    r_cut
        Cutoff in Å.
    bin_size
        Width of the bins in Å.
    per_atom
        Whether to divide by the number of atoms (not the peer's).
    dtype
        float64 or float32 of the output.
    neighbors
        A full neighbour list of the batch that reaches at least as far, shared by several descriptors; None: made here.
    threads
        Threads to use; the result does not depend on it.
    backend
        ``"numba"``; ``"cuda"``: the GPU, or an error; ``"auto"``: the GPU where it can do this call, else the CPU, and
        one line in the log says why (:mod:`matcompute_kernels.cuda`). The GPU computes in ``dtype``.

    Returns
    -------
    ndarray
        f[N, B]; B = len(np.arange(0, r_cut + bin_size, bin_size)) - 1.

    Raises
    ------
    KernelInputError
        If a structure is unfit or has no volume, or a parameter is wrong.
    """
    edges = bin_edges(r_cut, bin_size)
    from matcompute_kernels.cuda.backend import on_gpu

    if on_gpu(backend, neighbors=neighbors is not None, bin_size=len(edges) > 8193):
        from matcompute_kernels.cuda.radial import rdf as on_device

        return on_device(batch, r_cut, bin_size, per_atom=per_atom, dtype=dtype, backend="cuda")
    kind = check_dtype(dtype)
    packed = as_batch(batch)
    check_batch(packed)
    volumes = check_volumes(packed)
    element = np.zeros(len(packed.numbers), np.int64)
    counts = pair_histograms(
        packed, r_cut, edges, element, np.zeros((1, 1), np.int64), 1, neighbors, threads
    )[:, 0]
    counts /= shell_volumes(edges)
    counts /= (packed.n_sites / volumes)[:, None]
    if per_atom:
        counts /= packed.n_sites[:, None]
    return counts.astype(kind, copy=False)


def labels(r_cut: float = 20.0, bin_size: float = 0.1, **_: Any) -> list[str]:
    """Return the name of each column."""
    edges = bin_edges(r_cut, bin_size)
    return [f"rdf [{a:.5f} - {b:.5f}]A" for a, b in pairwise(edges)]

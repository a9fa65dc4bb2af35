"""Valle-Oganov fingerprint of crystals (Acta Cryst. A 66, 507, 2010) as dscribe 2.1.2 defines it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from matcompute_kernels.checks import check_integer, check_positive
from matcompute_kernels.descriptors import mbtr as _mbtr
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.neighbors import NeighborList

__all__ = ["labels", "valle_oganov"]


def valle_oganov(
    batch: Any,
    species: Iterable[int | str],
    function: str = "distance",
    n: int = 100,
    sigma: float = 0.05,
    r_cut: float = 8.0,
    *,
    sparse: bool = False,
    dtype: Any = np.float64,
    neighbors: NeighborList | None = None,
    threads: int = 1,
) -> Any:
    """Valle-Oganov fingerprint: MBTR with the weighting and normalization of the paper.

    dscribe 2.1.2's definition (``ValleOganov``) and column order. ``distance``: grid from 0 to r_cut, weight 1/r²,
    V/(4π N_A N_B) with half the product of counts for A = B. ``angle``: grid from 0 to 180°, smooth cutoff of both
    sides, V/(N_A N_B N_C).

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures, periodic in three directions.
    species
        Elements of the columns, as symbols or atomic numbers.
    function
        ``"distance"`` or ``"angle"``.
    n
        Bins.
    sigma
        Standard deviation of the Gaussians in Å or degrees.
    r_cut
        Cutoff in Å.
    sparse
        Whether to return only the blocks of elements that occur in each structure.
    dtype
        float64 or float32 of the output.
    neighbors
        A full neighbour list of the batch that reaches at least as far, shared by several descriptors; None: made here.
    threads
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray or SparseSpectra
        f[N, S(S+1)/2 · n] or f[N, S²(S+1)/2 · n], blocks as in :func:`matcompute_kernels.mbtr`.

    Raises
    ------
    KernelInputError
        If a structure is unfit, not periodic or has an element that is not in ``species``, or a parameter is wrong.
    """
    geometry, grid, weighting = _setting(function, n, sigma, r_cut)
    return _mbtr.mbtr(
        batch,
        species,
        geometry,
        grid,
        weighting,
        normalization="valle_oganov",
        sparse=sparse,
        dtype=dtype,
        neighbors=neighbors,
        threads=threads,
    )


def labels(
    species: Iterable[int | str],
    function: str = "distance",
    n: int = 100,
    sigma: float = 0.05,
    r_cut: float = 8.0,
    **_: Any,
) -> list[str]:
    """Return the name of each column."""
    geometry, grid, _weighting = _setting(function, n, sigma, r_cut)
    return _mbtr.labels(species, geometry, grid)


def _setting(function: str, n: int, sigma: float, r_cut: float) -> tuple[str, dict, dict]:
    check_positive(sigma=sigma, r_cut=r_cut)
    check_integer(2, 10_000_000, n=n)
    if function == "distance":
        weighting = {"function": "inverse_square", "r_cut": r_cut}
        return "distance", {"min": 0.0, "max": r_cut, "sigma": sigma, "n": n}, weighting
    if function == "angle":
        weighting = {"function": "smooth_cutoff", "r_cut": r_cut}
        return "angle", {"min": 0.0, "max": 180.0, "sigma": sigma, "n": n}, weighting
    raise KernelInputError(f"function must be 'distance' or 'angle', not {function!r}")

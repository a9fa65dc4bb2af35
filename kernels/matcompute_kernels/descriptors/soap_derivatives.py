"""Analytic derivatives of SOAP by positions, strain and cell, over periodic images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.checks import check_batch
from matcompute_kernels.descriptors.derivatives import KINDS, Derivatives, check_wrt
from matcompute_kernels.descriptors.soap_gradient import derivative_rows, neighbor_sites
from matcompute_kernels.descriptors.soap_model import Model, checked_setting, density
from matcompute_kernels.neighbors import site_chunks
from matcompute_kernels.vec8 import aligned_zeros

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

__all__ = ["soap_derivatives"]

_CHUNK_PAIRS = 300_000


def soap_derivatives(
    batch: Batch | Atoms | Structure | Iterable[Any],
    species: Iterable[int | str],
    r_cut: float,
    n_max: int,
    l_max: int,
    sigma: float = 0.5,
    convention: str = "dscribe-gto",
    compression: str | Mapping[str, Any] | None = None,
    *,
    wrt: Collection[str] = KINDS,
    weighting: Mapping[str, Any] | None = None,
    smoothing: float | None = None,
    scaling: Mapping[str, float] | None = None,
) -> Derivatives:
    """Compute analytic derivatives of the SOAP rows of all sites.

    Parameters are those of :func:`matcompute_kernels.soap`.

    Parameters
    ----------
    wrt
        Which derivatives: any of ``"positions"``, ``"strain"``, ``"cell"``.

    Returns
    -------
    Derivatives
        Dense in the features: 24 bytes times features times pairs of sites that see each other. Take small batches.

    Raises
    ------
    KernelInputError
        As :func:`matcompute_kernels.soap`.

    Notes
    -----
    Definitions as featomic's gradients "positions", "strain" and "cell"; dscribe has none for periodic structures. A
    neighbour that crosses the cutoff makes a step unless the density is smoothed (``smoothing``).
    """
    batch = as_batch(batch)
    wanted = check_wrt(wrt)
    setting = checked_setting(species, r_cut, n_max, l_max, sigma, convention, compression)
    layout = setting.layout
    check_batch(batch, layout.species, layout.known)
    model = Model(batch, setting, density(r_cut, weighting, smoothing, scaling))
    n_sites, n_features = len(batch.numbers), layout.n_features
    chunks = list(site_chunks(batch, model.far, _CHUNK_PAIRS))
    ptr, sites, lists = np.zeros(n_sites + 1, np.int64), [], []
    seen = np.empty(n_sites, np.int64)
    for first, last in chunks:
        pairs = model.pairs(None, first, last)
        part = np.zeros(last - first + 1, np.int64)
        nothing = np.empty(0, np.int32)
        seen[:] = -1
        neighbor_sites(pairs.ptr, pairs.j, first, seen, part, nothing, False)
        found = np.empty(int(part[-1]), np.int32)
        seen[:] = -1
        neighbor_sites(pairs.ptr, pairs.j, first, seen, part, found, True)
        ptr[first + 1 : last + 1] = ptr[first] + part[1:]
        sites.append(found)
        lists.append(pairs)
    site = np.concatenate(sites) if sites else np.empty(0, np.int32)
    positions = np.zeros((len(site), 3, n_features)) if "positions" in wanted else None
    strain = np.zeros((n_sites, 3, 3, n_features)) if "strain" in wanted else None
    cell = np.zeros((n_sites, 3, 3, n_features)) if "cell" in wanted else None
    space = model.workspace("off")
    dc, tensors = (aligned_zeros((n, *space[2].shape)) for n in (3, 9))
    run: Any = derivative_rows
    for (first, last), pairs in zip(chunks, lists):
        rows = slice(int(ptr[first]), int(ptr[last]))
        run(
            pairs.ptr,
            pairs.j,
            pairs.distance,
            pairs.vector,
            pairs.shift,
            first,
            *model.common,
            *model.ordered(pairs),
            *space,
            dc,
            tensors,
            ptr[first : last + 1] - ptr[first],
            site[rows],
            *(
                np.zeros(0) if array is None else array[part].reshape(-1)
                for array, part in (
                    (positions, rows),
                    (strain, slice(first, last)),
                    (cell, slice(first, last)),
                )
            ),
        )
    return Derivatives(ptr, site, positions, strain, cell)

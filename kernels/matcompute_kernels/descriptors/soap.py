"""Smooth overlap of atomic positions (SOAP): the power spectrum of the neighbour density."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_integer
from matcompute_kernels.descriptors.soap_layout import BlockSparse
from matcompute_kernels.descriptors.soap_model import (
    CONVENTIONS,
    Model,
    checked_layout,
    checked_setting,
    density,
)
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.neighbors import NeighborList, check_neighbors
from matcompute_kernels.pages import lazy_zeros
from matcompute_kernels.tasks import share, structure_tasks

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure

__all__ = ["CONVENTIONS", "checked_layout", "labels", "soap"]

#: Pairs of a chunk, at 48 bytes each; up to ten times as many where one structure is large (see ``site_chunks``).
_CHUNK_PAIRS = 120_000


def soap(
    batch: Batch | Atoms | Structure | Iterable[Any],
    species: Iterable[int | str],
    r_cut: float,
    n_max: int,
    l_max: int,
    sigma: float = 0.5,
    convention: str = "dscribe-gto",
    average: str = "off",
    compression: str | Mapping[str, Any] | None = None,
    sparse: bool = False,
    dtype: Any = "float64",
    *,
    weighting: Mapping[str, Any] | None = None,
    smoothing: float | None = None,
    scaling: Mapping[str, float] | None = None,
    neighbors: NeighborList | None = None,
    threads: int = 1,
    backend: str = "numba",
) -> np.ndarray | BlockSparse:
    """Compute the SOAP power spectrum of sites or structures, over periodic images.

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    species
        Elements that columns are made for, as symbols or atomic numbers.
    r_cut
        Cutoff in Å. In the dscribe conventions it belongs to the radial functions, and neighbours count up to
        ``r_cut + sigma·√(-2 ln 10⁻³)``.
    n_max
        Number of radial functions (featomic's ``max_radial`` is one less).
    l_max
        Highest angular momentum, at most 20.
    sigma
        Width of the atoms' Gaussians in Å.
    convention
        ``"dscribe-gto"``: p = π√(8/(2l + 1)) Σ_m c c', columns Z ≤ Z', l, n, n' (n' ≥ n if Z = Z').
        ``"featomic-gto"``: p = (-1)^l/√(2l + 1) Σ_m c c', times √2 if Z ≠ Z', columns Z ≤ Z', l, n, n' (all n, n').
        ``"polynomial"``: dscribe's polynomial radial functions by exact mathematics (dscribe's own numbers differ by a
        few 10⁻⁶ of the largest feature), columns as dscribe-gto.
    average
        ``"off"``: a row per site. ``"outer"``: mean of the rows of a structure. ``"inner"``: power spectrum of the mean
        coefficients of a structure.
    compression
        None; ``"mu1nu1"``, ``"mu2"`` (Darby et al., npj Comput. Mater. 8, 166 (2022)); ``"crossover"``: equal species
        only; or a mapping with the keys ``mode`` (these, or ``"groups"``), ``groups`` (lists of elements that
        share a channel), ``pairs`` (the only pairs of elements to write) and ``species_weighting`` (factor of each
        element's density).
    sparse
        Return a :class:`BlockSparse` that holds only the pairs of species that occur in a row.
    dtype
        float64 or float32 of the result (computed in float64).
    weighting
        dscribe's density weighting: ``function`` ``"poly"`` (c, m, r0), ``"pow"`` (c, d, m, r0) or ``"exp"``
        (c, d, r0), and ``w0``, the weight of the central atom.
    smoothing
        Width in Å of featomic's shifted-cosine smoothing below r_cut; None: a step.
    scaling
        ``scale`` (Å), ``rate`` and ``exponent`` of the density's decay rate/(rate + (r/scale)^exponent): Willatt et
        al., Phys. Chem. Chem. Phys. 20, 29661 (2018).
    neighbors
        A full neighbour list of the batch that reaches at least as far; None: made here, chunk by chunk.
    threads
        Threads to use; the result does not depend on it.
    backend
        ``"numba"``; ``"cuda"``: the GPU, or an error; ``"auto"``: the GPU where it can do this call, else the CPU, and
        one line in the log says why (:mod:`matcompute_kernels.cuda`). The GPU computes in ``dtype``.

    Returns
    -------
    ndarray or BlockSparse
        [sites, features], or [structures, features] for an average. Pages of a large array that stay zero (many
        species) take no memory. Beside the result, 10 MB a thread are used, up to 100 MB where one structure has 10⁵
        atoms.

    Raises
    ------
    KernelInputError
        On bad parameters; on a structure with no atoms, positions that are not finite, a singular cell or an element
        not in species (``index`` names it).

    Notes
    -----
    Definitions: dscribe 2.1 ``soap.py`` and ``ext/soapGTO.cpp``; featomic 0.6 ``soap/power_spectrum.rs``. Bartók,
    Kondor and Csányi, Phys. Rev. B 87, 184115 (2013). Radial functions come from tables that are accurate to 2·10⁻¹²
    of the largest value.
    """
    batch = as_batch(batch)
    dtype = check_dtype(dtype)
    setting = checked_setting(species, r_cut, n_max, l_max, sigma, convention, compression)
    layout = setting.layout
    if average not in ("off", "inner", "outer"):
        raise KernelInputError(f"average must be off, inner or outer, not {average!r}")
    check_integer(1, 1024, threads=threads)
    if backend != "numba":
        from matcompute_kernels.cuda.backend import on_gpu

        if on_gpu(
            backend,
            compression=compression is not None,
            weighting=weighting is not None,
            smoothing=smoothing is not None,
            scaling=scaling is not None,
            neighbors=neighbors is not None,
            species=not _fits(batch, n_max, l_max, dtype),
        ):
            from matcompute_kernels.cuda.power_spectrum import soap as on_device

            names = layout.species.tolist()
            return on_device(
                *(batch, names, r_cut, n_max, l_max, sigma, convention, average, sparse),
                dtype=dtype,
                backend="cuda",
            )
    check_batch(batch, layout.species, layout.known)
    model = Model(batch, setting, density(r_cut, weighting, smoothing, scaling))
    far = model.far
    check_neighbors(neighbors, batch, far)
    if neighbors is not None:
        neighbors = neighbors.within(far)
    tasks = structure_tasks(batch, far, _CHUNK_PAIRS)
    rows = len(batch.numbers) if average == "off" else len(batch)
    if sparse and average == "off":
        return model.sparse_sites(tasks, neighbors, dtype, threads)
    if sparse:
        row_ptr, value_start, total = model.structure_blocks()
        values, block = np.zeros(total), np.zeros(int(row_ptr[-1]), np.int32)
        base, block_base = value_start, row_ptr[:-1]
    else:
        out = lazy_zeros((rows, layout.n_features), dtype, model.fill)
        values, block = out.reshape(-1), np.zeros(0, np.int32)
        base, block_base = np.arange(rows) * layout.n_features, np.zeros(rows, np.int64)
    # Sums are in float64: rows of another type are cast from those of one task at a time.
    cast = average != "off" and not sparse and dtype != np.float64

    def work(chunks: list[tuple[int, int]]) -> None:
        space = model.workspace(average)
        sums, start = values, base
        if cast:
            low = int(np.searchsorted(batch.ptr, chunks[0][0], "right")) - 1
            high = int(np.searchsorted(batch.ptr, chunks[-1][1]))
            sums = np.zeros((high - low) * layout.n_features)
            start = base - low * layout.n_features
        for first, last in chunks:
            pairs = model.pairs(neighbors, first, last)
            if average == "off":
                model.site_rows(pairs, space, values, base[first:last], block_base[first:last], block)
            else:
                model.structure_rows(pairs, space, average, sums, start, block_base, block)
        if cast:
            part = sums.reshape(high - low, layout.n_features)
            np.copyto(out[low:high], part, casting="same_kind", where=part != 0)

    share(work, tasks, threads)
    values = values.astype(dtype, copy=False)
    if not sparse:
        return values.reshape(rows, layout.n_features)
    sizes = np.diff(layout.offset)[block]
    return BlockSparse(layout, values, row_ptr, block, np.concatenate([[0], np.cumsum(sizes)]))


def labels(
    species: Iterable[int | str],
    n_max: int,
    l_max: int,
    convention: str = "dscribe-gto",
    compression: str | Mapping[str, Any] | None = None,
    **_: Any,
) -> list[str]:
    """Name of each column of :func:`soap`, such as ``Na-Cl l=0 n=1 n=2`` (radial functions counted from 0)."""
    return checked_layout(species, n_max, l_max, convention, compression).labels()


def _fits(batch: Batch, n_max: int, l_max: int, dtype: Any) -> bool:
    from matcompute_kernels.cuda.power_spectrum import fits, most_species

    return fits(most_species(batch), n_max, l_max, dtype)

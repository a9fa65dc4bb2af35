"""Many-body tensor representation (Huo and Rupp, arXiv:1704.06439) as dscribe 2.1.2 defines it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_species, species_index
from matcompute_kernels.descriptors.broadening import Broadening
from matcompute_kernels.descriptors.many_body import (
    GEOMETRIES,
    Weighting,
    add_pairs,
    add_singles,
    add_triplets,
    block_count,
    check_geometry,
    largest_extent,
    local_species,
    occurring_blocks,
    pair_block,
    triplet_block,
)
from matcompute_kernels.descriptors.spectra import SparseSpectra
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.neighbors import NeighborList
from matcompute_kernels.tasks import MAX_PAIRS, run_tasks

__all__ = ["labels", "mbtr", "spectra"]

NORMALIZATIONS = ("none", "l2", "n_atoms", "valle_oganov")


def mbtr(
    batch: Any,
    species: Iterable[int | str],
    geometry: str | Mapping[str, Any] = "inverse_distance",
    grid: Mapping[str, Any] | None = None,
    weighting: str | Mapping[str, Any] | None = None,
    *,
    normalization: str = "none",
    normalize_gaussians: bool = True,
    periodic: bool = True,
    sparse: bool = False,
    dtype: Any = np.float64,
    neighbors: NeighborList | None = None,
    threads: int = 1,
    backend: str = "numba",
) -> Any:
    """Many-body tensor representation of degree k = 1, 2 or 3: one smeared spectrum per combination of elements.

    dscribe 2.1.2's definition (``MBTR``), bins and column order. Sums run over the infinite crystal, each pair or
    triplet once per primitive translation; k = 3 takes the angle at the middle atom. Values are gathered into the
    moments of cells finer than σ/5 and broadened once per spectrum (:mod:`.broadening`, 1e-13 of the peak).

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    species
        Elements of the columns, as symbols or atomic numbers.
    geometry
        ``"atomic_number"`` (k = 1), ``"distance"`` in Å, ``"inverse_distance"`` in 1/Å (k = 2), ``"angle"`` in
        degrees, ``"cosine"`` (k = 3); also the peer's ``{"function": name}``.
    grid
        ``{"min": …, "max": …, "sigma": …, "n": …}`` in the unit of the geometry.
    weighting
        None or ``{"function": "unity"}`` (finite structures only, if k > 1);
        ``{"function": "exp", "r_cut" or "scale": …, "threshold": …}``: e^(-s x) with x the distance (k = 2) or the
        perimeter (k = 3), s = -ln(threshold)/r_cut (half of that for k = 3), terms below the threshold left out;
        ``{"function": "inverse_square", "r_cut": …}`` (k = 2): 1/x²;
        ``{"function": "smooth_cutoff", "r_cut": …, "sharpness": 2}`` (k = 3): f_ij f_jk with
        f = 1 + y (x/r_cut)^(y+1) - (y+1) (x/r_cut)^y.
    normalization
        ``"none"``, ``"l2"``, ``"n_atoms"`` or ``"valle_oganov"`` (crystals: V/(4π N_A N_B), half the product of
        counts for A = B; V/(N_A N_B N_C) for k = 3).
    normalize_gaussians
        Whether a Gaussian has area 1, or height 1.
    periodic
        False: lattices are ignored.
    sparse
        Whether to return only the blocks of elements that occur in each structure.
    dtype
        float64 or float32 of the output.
    neighbors
        A full neighbour list of the batch that reaches at least as far, shared by several descriptors; None: made here.
    threads
        Threads to use; the result does not depend on it.
    backend
        ``"numba"``; ``"cuda"``: the GPU (k = 2), or an error; ``"auto"``: the GPU where it can do this call, else the
        CPU, and one line in the log says why (:mod:`matcompute_kernels.cuda`). The GPU computes in ``dtype``.

    Returns
    -------
    ndarray or SparseSpectra
        f[N, blocks · n]; blocks of n bins by elements in rising Z: A; A ≤ B; or (middle B, A ≤ C) with B slowest.
        For many elements ask for ``sparse``: a row of k = 3 has S²(S+1)/2 blocks.

    Raises
    ------
    KernelInputError
        If a structure is unfit, has an element that is not in ``species``, or a parameter is wrong.

    Notes
    -----
    Pairs at exactly r_cut are left out (the peer's choice depends on the cell). Atoms may lie outside the cell (the
    peer then misses neighbours). Beside the result a thread holds the pairs of one chunk, about 15 MB.

    Examples
    --------
    >>> from ase.build import bulk
    >>> grid = {"min": 0, "max": 1, "sigma": 0.02, "n": 100}
    >>> mbtr(bulk("NaCl", "rocksalt", a=5.64), ["Na", "Cl"], "inverse_distance", grid,
    ...      {"function": "exp", "r_cut": 8, "threshold": 1e-3}).shape
    (1, 300)
    """
    from matcompute_kernels.cuda.backend import on_gpu

    name = check_geometry(geometry, tuple(GEOMETRIES))
    device = None
    if on_gpu(backend, geometry=GEOMETRIES[name][0] != 2, neighbors=neighbors is not None):
        from matcompute_kernels.cuda.device import default_device

        device = default_device()
    return spectra(
        batch,
        species,
        name,
        grid,
        weighting,
        normalization=normalization,
        normalize_gaussians=normalize_gaussians,
        periodic=periodic,
        sparse=sparse,
        dtype=dtype,
        neighbors=neighbors,
        threads=threads,
        device=device,
    )


def spectra(
    batch: Any,
    species: Iterable[int | str],
    geometry: str | Mapping[str, Any],
    grid: Mapping[str, Any] | None,
    weighting: str | Mapping[str, Any] | None,
    *,
    normalization: str = "none",
    normalize_gaussians: bool = True,
    periodic: bool = True,
    sparse: bool = False,
    dtype: Any = np.float64,
    neighbors: NeighborList | None = None,
    threads: int = 1,
    device: Any = None,
) -> Any:
    """:func:`mbtr` on a device (:mod:`matcompute_kernels.cuda.device`), or on the CPU if it is None."""
    geometry = check_geometry(geometry, tuple(GEOMETRIES))
    degree = GEOMETRIES[geometry][0]
    if device is not None and degree != 2:
        raise KernelInputError(
            f"mbtr on a GPU is of two atoms (distance, inverse_distance), not {geometry!r}"
        )
    broadening = Broadening.from_grid(grid if grid is not None else {})
    weights = Weighting.from_setting(weighting, degree)
    if normalization not in NORMALIZATIONS:
        raise KernelInputError(
            f"normalization must be one of {', '.join(NORMALIZATIONS)}, not {normalization!r}"
        )
    kind = check_dtype(dtype)
    packed = as_batch(batch)
    numbers = check_species(species)
    packed = packed if periodic else without_lattice(packed)
    check_batch(packed, numbers.tolist())
    element = species_index(packed, numbers)
    if normalization == "valle_oganov" and not packed.pbc.all():
        index = int(np.argmin(packed.pbc.all(axis=1)))
        raise KernelInputError(
            "the Valle-Oganov normalization needs a lattice that is periodic in three directions", index
        )
    if weights.function == "unity" and degree > 1 and packed.pbc.any():
        index = int(np.argmax(packed.pbc.any(axis=1)))
        raise KernelInputError(
            "a periodic structure needs a weighting that decays, such as {'function': 'exp', 'r_cut': 8, "
            "'threshold': 1e-3}, or periodic=False",
            index,
        )
    s, n = len(numbers), broadening.n
    locals_, n_locals = local_species(element, packed.ptr, s)
    base, block = occurring_blocks(degree, locals_, n_locals)
    r_cut = weights.r_cut if weights.r_cut < np.inf else largest_extent(packed)
    if device is not None:
        from matcompute_kernels.cuda.many_body import pair_spectra

        upper = np.array(np.triu_indices(s)).T[block]
        rows = np.column_stack([np.repeat(np.arange(len(packed)), np.diff(base)), upper]).astype(np.int32)
        code = GEOMETRIES[geometry][1]
        values = pair_spectra(packed, element, rows, code, weights, r_cut, broadening, kind, device)
    else:
        values = np.zeros((len(block), n))
        places = packed.ptr, element, locals_, n_locals
        _on_cpu(packed, geometry, weights, r_cut, broadening, places, base, values, neighbors, threads)
    if not normalize_gaussians:
        values *= float(grid["sigma"]) * np.sqrt(2.0 * np.pi)  # type: ignore[index]
    sizes = np.diff(base)
    if normalization == "valle_oganov" and degree > 1:
        factors = _valle_oganov_factors(packed.volumes, element, packed.ptr, s, degree)
        values *= factors[np.repeat(np.arange(len(packed)), sizes), block][:, None]
    elif normalization == "n_atoms":
        values /= np.repeat(packed.n_sites, sizes)[:, None]
    elif normalization == "l2":
        norm = np.sqrt(np.add.reduceat((values**2).sum(axis=1), base[:-1]) if len(packed) else np.zeros(0))
        values /= np.repeat(np.where(norm > 0, norm, 1.0), sizes)[:, None]
    names = tuple(_block_names(numbers, degree))
    result = SparseSpectra(values.astype(kind, copy=False), base, block, names)
    return result if sparse else result.toarray()


def _on_cpu(
    packed: Batch,
    geometry: str,
    weights: Weighting,
    r_cut: float,
    broadening: Broadening,
    places: tuple[np.ndarray, ...],
    base: np.ndarray,
    values: np.ndarray,
    neighbors: NeighborList | None,
    threads: int,
) -> None:
    """Sum up the spectra. OUTPUT: adds to values f8[B, n]."""
    degree, code = GEOMETRIES[geometry]
    n_blocks = block_count(degree, int(places[3].max(initial=1)))

    def start() -> Any:
        work = broadening.work(n_blocks)
        common = *places, work, broadening.table, broadening.numbers, base, values
        if degree == 1:
            return common
        setting = weights.numbers()
        add = add_pairs if degree == 2 else add_triplets

        def kernel(first: int, last: int, pairs: NeighborList) -> None:
            add(
                first, last, pairs.ptr, pairs.j, pairs.distance, pairs.vector, code, setting, *common
            )  # fmt: skip

        return kernel

    if degree == 1:
        add_singles(packed.numbers, *start())
    else:
        run_tasks(packed, r_cut, MAX_PAIRS, start, full=degree == 3, neighbors=neighbors, threads=threads)


def labels(
    species: Iterable[int | str],
    geometry: str | Mapping[str, Any] = "inverse_distance",
    grid: Mapping[str, Any] | None = None,
    **_: Any,
) -> list[str]:
    """Return the name of each column."""
    geometry = check_geometry(geometry, tuple(GEOMETRIES))
    degree = GEOMETRIES[geometry][0]
    centers = Broadening.from_grid(grid if grid is not None else {}).centers()
    blocks = _block_names(check_species(species), degree)
    return [f"{block} {geometry}={x:.6g}" for block in blocks for x in centers]


def _block_names(numbers: np.ndarray, degree: int) -> list[str]:
    names = [SYMBOLS[z] for z in numbers]
    if degree == 1:
        return names
    if degree == 2:
        return [f"{a}-{b}" for k, a in enumerate(names) for b in names[k:]]
    return [f"{a}-{b}-{c}" for b in names for k, a in enumerate(names) for c in names[k:]]


def without_lattice(batch: Any) -> Any:
    """Return the batch with no direction periodic."""
    return type(batch)(batch.numbers, batch.positions, batch.cell, np.zeros_like(batch.pbc), batch.ptr)


def _valle_oganov_factors(
    volumes: np.ndarray, element: np.ndarray, ptr: np.ndarray, s: int, degree: int
) -> np.ndarray:
    """V over the product of the elements' counts, f8[N, blocks]; 0 where an element is absent."""
    n = len(ptr) - 1
    counts = np.zeros((n, s))
    np.add.at(counts, (np.repeat(np.arange(n), np.diff(ptr)), element), 1.0)
    product = np.zeros((n, block_count(degree, s)))
    for a in range(s):
        for b in range(a if degree == 2 else 0, s):
            if degree == 2:
                half = 0.5 if a == b else 1.0
                product[:, pair_block(a, b, s)] = 4.0 * np.pi * half * counts[:, a] * counts[:, b]
            for c in range(a, s) if degree == 3 else ():
                product[:, triplet_block(a, b, c, s)] = counts[:, a] * counts[:, b] * counts[:, c]
    return np.divide(volumes[:, None], product, out=np.zeros_like(product), where=product > 0)

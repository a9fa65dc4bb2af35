"""Local many-body tensor representation as dscribe 2.1.2 defines it: the spectra that one atom takes part in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_species, species_index
from matcompute_kernels.compiled import njit
from matcompute_kernels.descriptors.broadening import Broadening, collect, deposit
from matcompute_kernels.descriptors.many_body import (
    GEOMETRIES,
    Weighting,
    check_geometry,
    cross_length,
    degrees,
    largest_extent,
    local_species,
    pair_block,
    smooth,
)
from matcompute_kernels.descriptors.mbtr import without_lattice
from matcompute_kernels.descriptors.spectra import SparseSpectra
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.neighbors import NeighborList
from matcompute_kernels.tasks import MAX_PAIRS, run_tasks

__all__ = ["labels", "local_mbtr"]

_GEOMETRIES = ("distance", "inverse_distance", "angle", "cosine")


def local_mbtr(
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
) -> Any:
    """Local many-body tensor representation of every atom (k = 2 or 3).

    dscribe 2.1.2's definition (``LMBTR``), bins and column order, with the central atom as element X. k = 3 has the
    angles at the neighbours (X, B, C) and those at the central atom (A, X, C).

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    species
        Elements of the columns, as symbols or atomic numbers.
    geometry
        ``"distance"`` in Å, ``"inverse_distance"`` in 1/Å (k = 2), ``"angle"`` in degrees, ``"cosine"`` (k = 3);
        also the peer's ``{"function": name}``.
    grid
        ``{"min": …, "max": …, "sigma": …, "n": …}`` in the unit of the geometry.
    weighting
        As in :func:`matcompute_kernels.mbtr`. The peer computes ``unity`` and ``exp`` (with ``scale`` only);
        ``inverse_square`` and ``smooth_cutoff`` (of the two sides at the middle atom) are ours.
    normalization
        ``"none"`` or ``"l2"`` (of each row).
    normalize_gaussians
        Whether a Gaussian has area 1, or height 1.
    periodic
        False: lattices are ignored.
    sparse
        Whether to return only the blocks of elements that occur in each structure.
    dtype
        float64 or float32.
    neighbors
        A full neighbour list of the batch that reaches at least as far, shared by several descriptors; None: made here.
    threads
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray or SparseSpectra
        f[M, blocks · n], one row a site. Blocks of k = 2: X-X (always zero, as the peer's), then X-B; of k = 3: the
        upper triangle A ≤ C over X and the elements, then X-B-C with B slowest and X first in C.

    Raises
    ------
    KernelInputError
        If a structure is unfit, has an element that is not in ``species``, or a parameter is wrong.
    """
    geometry = check_geometry(geometry, _GEOMETRIES)
    degree, code = GEOMETRIES[geometry]
    broadening = Broadening.from_grid(grid if grid is not None else {})
    weights = Weighting.from_setting(weighting, degree)
    if normalization not in ("none", "l2"):
        raise KernelInputError(f"normalization must be 'none' or 'l2', not {normalization!r}")
    kind = check_dtype(dtype)
    packed = as_batch(batch)
    numbers = check_species(species)
    if numbers[0] == 0:
        raise KernelInputError("species must not have X (Z=0): it is the central atom")
    packed = packed if periodic else without_lattice(packed)
    check_batch(packed, numbers.tolist())
    element = species_index(packed, numbers)
    if weights.function == "unity" and packed.pbc.any():
        index = int(np.argmax(packed.pbc.any(axis=1)))
        raise KernelInputError("a periodic structure needs a weighting that decays, or periodic=False", index)
    s, n = len(numbers), broadening.n
    locals_, n_locals = local_species(element, packed.ptr, s)
    largest = int(n_locals.max(initial=1))
    n_blocks = _own_blocks(degree, largest)
    row_ptr, block = _occurring_blocks(degree, locals_, n_locals, packed.n_sites)
    values = np.zeros((len(block), n), dtype=kind)
    r_cut = weights.r_cut if weights.r_cut < np.inf else largest_extent(packed)
    if weights.function == "smooth_cutoff":  # the ends of an angle may lie twice the cutoff apart
        r_cut *= 2.0
    factor = 1.0 if normalize_gaussians else float(grid["sigma"]) * np.sqrt(2.0 * np.pi)  # type: ignore[index]
    setting = weights.numbers()
    fill = _local_pairs if degree == 2 else _local_triplets

    def start() -> Any:
        work = broadening.work(n_blocks)

        def kernel(first: int, last: int, pairs: NeighborList) -> None:
            fill(
                first,
                last,
                pairs.ptr,
                pairs.j,
                pairs.distance,
                pairs.vector,
                code,
                setting,
                packed.ptr,
                element,
                locals_,
                n_locals,
                work,
                broadening.table,
                broadening.numbers,
                factor,
                normalization == "l2",
                row_ptr,
                values,
            )

        return kernel

    run_tasks(packed, r_cut, MAX_PAIRS, start, neighbors=neighbors, threads=threads)
    spectra = SparseSpectra(values, row_ptr, block, tuple(_block_names(numbers, degree)))
    return spectra if sparse else spectra.toarray()


def labels(
    species: Iterable[int | str],
    geometry: str | Mapping[str, Any] = "inverse_distance",
    grid: Mapping[str, Any] | None = None,
    **_: Any,
) -> list[str]:
    """Return the name of each column."""
    geometry = check_geometry(geometry, _GEOMETRIES)
    degree = GEOMETRIES[geometry][0]
    centers = Broadening.from_grid(grid if grid is not None else {}).centers()
    blocks = _block_names(check_species(species), degree)
    return [f"{block} {geometry}={x:.6g}" for block in blocks for x in centers]


def _block_names(numbers: np.ndarray, degree: int) -> list[str]:
    names = ["X", *(SYMBOLS[z] for z in numbers)]
    if degree == 2:
        return [f"X-{name}" for name in names]
    middle = [f"{a}-X-{c}" for k, a in enumerate(names) for c in names[k:]]
    return middle + [f"X-{b}-{c}" for b in names[1:] for c in names]


def _own_blocks(degree: int, m: int) -> int:
    """Blocks that m elements of a structure make: X-B; or A-X-C and X-B-C (those with two X stay empty)."""
    return m if degree == 2 else m * (m + 1) // 2 + m * m


def _occurring_blocks(
    degree: int, local_species: np.ndarray, n_local: np.ndarray, n_sites: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets i8[M + 1] and block numbers i4[B] of the sites' rows."""
    e = local_species.shape[1] + 1
    parts = []
    for row, m, sites in zip(local_species.tolist(), n_local.tolist(), n_sites.tolist()):
        own = [a + 1 for a in row[:m]]
        blocks = own
        if degree == 3:
            blocks = [pair_block(a, c, e) for k, a in enumerate(own) for c in own[k:]]
            blocks = blocks + [e * (e + 1) // 2 + (b - 1) * e + c for b in own for c in own]
        parts.append(np.tile(np.array(blocks, np.int32), sites))
    sizes = np.repeat([_own_blocks(degree, m) for m in n_local.tolist()], n_sites)
    return (
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        np.concatenate([np.zeros(0, np.int32), *parts]),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _finish(
    work: np.ndarray,
    table: np.ndarray,
    grid: np.ndarray,
    total: np.ndarray,
    factor: float,
    normalize: bool,
    out: np.ndarray,
) -> None:
    """Turn the cells of a site into scaled spectra. OUTPUT: out f[blocks, n]; ``work`` and ``total`` are zero after."""
    for a in range(out.shape[0]):
        collect(work, a, table, grid, total[a])
    if normalize:
        norm = 0.0
        for a in range(out.shape[0]):
            for m in range(out.shape[1]):
                norm += total[a, m] * total[a, m]
        factor = 1.0 / np.sqrt(norm) if norm > 0.0 else 1.0
    for a in range(out.shape[0]):
        for m in range(out.shape[1]):
            out[a, m] = factor * total[a, m]
            total[a, m] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _local_pairs(
    first: int,
    last: int,
    pair_ptr: np.ndarray,
    neighbor: np.ndarray,
    distance: np.ndarray,
    vector: np.ndarray,
    geometry: int,
    weighting: np.ndarray,
    ptr: np.ndarray,
    element: np.ndarray,
    local_species: np.ndarray,
    n_local: np.ndarray,
    work: np.ndarray,
    table: np.ndarray,
    grid: np.ndarray,
    factor: float,
    normalize: bool,
    row_ptr: np.ndarray,
    values: np.ndarray,
) -> None:
    """k = 2 of the sites ``first:last``. OUTPUT: values f[B, n], their blocks."""
    place = np.zeros(local_species.shape[1], np.int64)
    code, scale, longest = int(weighting[0]), weighting[2], weighting[3]
    total = np.zeros((work.shape[0], values.shape[1]))
    structure = np.searchsorted(ptr, first, side="right") - 1
    site = first
    while site < last:
        m = n_local[structure]
        for a in range(m):
            place[local_species[structure, a]] = a
        for i in range(site, min(last, ptr[structure + 1])):
            for p in range(pair_ptr[i - first], pair_ptr[i - first + 1]):
                d = distance[p]
                w = 1.0
                if code == 1:
                    if d > longest:
                        continue
                    w = np.exp(-scale * d)
                elif code == 2:
                    w = 1.0 / (d * d)
                deposit(work, place[element[neighbor[p]]], d if geometry == 0 else 1.0 / d, w, grid)
            _finish(work, table, grid, total, factor, normalize, values[row_ptr[i] : row_ptr[i + 1]])
        structure += 1
        site = ptr[structure]


@njit(cache=True, nogil=True, error_model="numpy")
def _value(geometry: int, a: float, b: float, c: float, cross: float) -> float:
    """Cosine or angle between the sides a and b opposite of c; ``cross`` is twice the area."""
    cosine = max(-1.0, min(1.0, 0.5 * (a * a + b * b - c * c) / (a * b)))
    return degrees(cosine, cross / (a * b)) if geometry == 0 else cosine


@njit(cache=True, nogil=True, error_model="numpy")
def _local_triplets(
    first: int,
    last: int,
    pair_ptr: np.ndarray,
    neighbor: np.ndarray,
    distance: np.ndarray,
    vector: np.ndarray,
    geometry: int,
    weighting: np.ndarray,
    ptr: np.ndarray,
    element: np.ndarray,
    local_species: np.ndarray,
    n_local: np.ndarray,
    work: np.ndarray,
    table: np.ndarray,
    grid: np.ndarray,
    factor: float,
    normalize: bool,
    row_ptr: np.ndarray,
    values: np.ndarray,
) -> None:
    """k = 3 of the sites ``first:last``. OUTPUT: values f[B, n], their blocks."""
    place = np.zeros(local_species.shape[1], np.int64)
    code, r_cut, scale, longest, sharpness = weighting
    total = np.zeros((work.shape[0], values.shape[1]))
    structure = np.searchsorted(ptr, first, side="right") - 1
    site = first
    while site < last:
        m = n_local[structure]
        middle = m * (m + 1) // 2
        for a in range(m):
            place[local_species[structure, a]] = a
        for i in range(site, min(last, ptr[structure + 1])):
            begin, end = pair_ptr[i - first], pair_ptr[i - first + 1]
            for p in range(begin, end):
                dp = distance[p]
                a = place[element[neighbor[p]]]
                for q in range(begin, p):
                    dq = distance[q]
                    c = place[element[neighbor[q]]]
                    dx = vector[q, 0] - vector[p, 0]
                    dy = vector[q, 1] - vector[p, 1]
                    dz = vector[q, 2] - vector[p, 2]
                    far = np.sqrt(dx * dx + dy * dy + dz * dz)
                    w_center = w_p = w_q = 1.0
                    if code == 1:
                        perimeter = dp + dq + far
                        if perimeter > longest:
                            continue
                        w_center = w_p = w_q = np.exp(-scale * perimeter)
                    elif code == 3:
                        f_p = smooth(dp, r_cut, sharpness) if dp < r_cut else 0.0
                        f_q = smooth(dq, r_cut, sharpness) if dq < r_cut else 0.0
                        f_far = smooth(far, r_cut, sharpness) if far < r_cut else 0.0
                        w_center, w_p, w_q = f_p * f_q, f_p * f_far, f_q * f_far
                    cross = 0.0
                    if geometry == 0:
                        cross = cross_length(
                            vector[p, 0], vector[p, 1], vector[p, 2], vector[q, 0], vector[q, 1], vector[q, 2]
                        )
                    at_center = _value(geometry, dp, dq, far, cross)
                    deposit(work, pair_block(min(a, c), max(a, c), m), at_center, w_center, grid)
                    deposit(work, middle + a * m + c, _value(geometry, dp, far, dq, cross), w_p, grid)
                    deposit(work, middle + c * m + a, _value(geometry, dq, far, dp, cross), w_q, grid)
            _finish(work, table, grid, total, factor, normalize, values[row_ptr[i] : row_ptr[i + 1]])
        structure += 1
        site = ptr[structure]

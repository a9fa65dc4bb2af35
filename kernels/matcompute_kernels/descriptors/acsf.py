"""Atom-centred symmetry functions (Behler, J. Chem. Phys. 134, 074106, 2011) as dscribe 2.1.2 defines them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_positive, check_species, species_index
from matcompute_kernels.descriptors.acsf_kernel import fill_rows
from matcompute_kernels.descriptors.acsf_layout import SparseRows, SymmetryFunctions
from matcompute_kernels.descriptors.derivatives import KINDS, Derivatives, check_wrt
from matcompute_kernels.neighbors import NeighborList
from matcompute_kernels.tasks import MAX_PAIRS, run_tasks

__all__ = ["acsf", "labels"]


def acsf(
    batch: Any,
    species: Iterable[int | str],
    r_cut: float,
    g2: Sequence[Sequence[float]] | np.ndarray | None = None,
    g3: Sequence[float] | np.ndarray | None = None,
    g4: Sequence[Sequence[float]] | np.ndarray | None = None,
    g5: Sequence[Sequence[float]] | np.ndarray | None = None,
    *,
    periodic: bool = True,
    derivatives: bool = False,
    sparse: bool = False,
    dtype: Any = np.float64,
    neighbors: NeighborList | None = None,
    threads: int = 1,
    wrt: Collection[str] = KINDS,
    backend: str = "numba",
) -> Any:
    """Atom-centred symmetry functions of every atom.

    dscribe 2.1.2's definition (``ACSF``) and column order. With f(r) = (1 + cos(π r/r_cut))/2, sums over neighbours j
    of one element, or over pairs j, k of two elements::

        G1 = Σ f(r_ij)          G2 = Σ exp(-η (r_ij - r_s)²) f(r_ij)          G3 = Σ cos(κ r_ij) f(r_ij)
        G4 = 2^(1-ζ) Σ (1 + λ cos θ)^ζ exp(-η (r_ij² + r_ik² + r_jk²)) f(r_ij) f(r_ik) f(r_jk),  r_jk ≤ r_cut
        G5 = 2^(1-ζ) Σ (1 + λ cos θ)^ζ exp(-η (r_ij² + r_ik²)) f(r_ij) f(r_ik)

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    species
        Elements of the columns, as symbols or atomic numbers.
    r_cut
        Cutoff in Å.
    g2
        Pairs (η in 1/Å², r_s in Å).
    g3
        κ in 1/Å.
    g4, g5
        Triplets (η in 1/Å², ζ, λ).
    periodic
        False: lattices are ignored.
    derivatives
        Whether to return also the analytic derivatives (alone: :func:`matcompute_kernels.acsf_derivatives`).
    sparse
        Whether to return only the blocks of the elements that occur in each structure.
    dtype
        float64 or float32 of the output.
    neighbors
        A full neighbour list of the batch that reaches at least as far, shared by several descriptors; None: made here.
    threads
        Threads to use; the result does not depend on it.
    wrt
        Which derivatives: any of ``"positions"``, ``"strain"``, ``"cell"``.
    backend
        ``"numba"``; ``"cuda"``: the GPU, or an error; ``"auto"``: the GPU where it can do this call, else the CPU, and
        one line in the log says why (:mod:`matcompute_kernels.cuda`). The GPU computes in ``dtype``.

    Returns
    -------
    ndarray or BlockSparse, or a pair of it and Derivatives
        f[M, F], one row a site: for each element in rising Z G1, the G2 and the G3; then for each pair of elements
        (lower triangle by rows) the G4 and the G5. With ``derivatives`` also :class:`.Derivatives` of these rows.

    Raises
    ------
    KernelInputError
        If a structure is unfit, has an element that is not in ``species``, or a parameter is wrong.

    Notes
    -----
    Where rounding takes 1 + λ cos θ below 0 (collinear atoms), 0 is used; the peer gives NaN for a ζ that is no
    integer. Atoms may lie outside the cell. Beside the result a thread holds the pairs of one chunk, about 10 MB; the
    derivatives take 24 F bytes per atom and distinct neighbour in float64, so describe large sets in parts.

    Examples
    --------
    >>> from ase.build import bulk
    >>> acsf(bulk("Al", "fcc", a=4.05), ["Al"], 5.0, g2=[[1.0, 0.0]], g4=[[0.01, 1, 1]]).shape
    (1, 3)
    """
    check_positive(r_cut=r_cut)
    kind = check_dtype(dtype)
    packed = as_batch(batch)
    numbers = check_species(species)
    functions = SymmetryFunctions.from_parameters(g2, g3, g4, g5)
    from matcompute_kernels.cuda.backend import on_gpu

    if on_gpu(
        backend,
        g3=len(functions.g3) > 0,
        g4_and_g5=len(functions.g4) + len(functions.g5) > 32,
        periodic=not periodic,
        derivatives=derivatives,
        sparse=sparse,
        neighbors=neighbors is not None,
    ):
        from matcompute_kernels.cuda.symmetry import acsf as on_device

        return on_device(packed, numbers, r_cut, g2, g4, g5, dtype=dtype, backend="cuda")
    if not periodic:
        packed = type(packed)(
            packed.numbers, packed.positions, packed.cell, np.zeros_like(packed.pbc), packed.ptr
        )
    check_batch(packed, numbers.tolist())
    element = species_index(packed, numbers)
    s = len(numbers)
    out = np.zeros((0 if sparse else len(element), functions.count(s)), dtype=kind)
    rows = SparseRows(functions, numbers, element, packed.ptr) if sparse else None
    parts: dict[int, tuple] = {}
    wanted = check_wrt(wrt)
    arrays = functions.arrays

    fill: Any = fill_rows

    def start() -> Any:
        def kernel(first: int, last: int, pairs: NeighborList) -> None:
            target = np.zeros((last - first, functions.count(s)), dtype=kind) if sparse else out
            fill(
                first,
                last,
                pairs.ptr,
                pairs.j,
                pairs.distance,
                pairs.vector,
                float(r_cut),
                element,
                s,
                *arrays,
                first if sparse else 0,
                target,
            )
            if rows is not None:
                rows.take(first, target)
            if derivatives:
                from matcompute_kernels.descriptors.acsf_derivatives import fill_derivatives

                parts[first] = fill_derivatives(pairs, first, last, element, s, functions, kind)

        return kernel

    run_tasks(packed, float(r_cut), MAX_PAIRS, start, neighbors=neighbors, threads=threads)
    result = out if rows is None else rows.join(kind)
    if derivatives:
        ordered = [parts[first] for first in sorted(parts)]
        return result, Derivatives.assemble(packed, ordered, wanted, functions.count(s), kind)
    return result


def labels(
    species: Iterable[int | str],
    r_cut: float = 0.0,
    g2: Sequence[Sequence[float]] | np.ndarray | None = None,
    g3: Sequence[float] | np.ndarray | None = None,
    g4: Sequence[Sequence[float]] | np.ndarray | None = None,
    g5: Sequence[Sequence[float]] | np.ndarray | None = None,
    **_: Any,
) -> list[str]:
    """Return the name of each column."""
    functions = SymmetryFunctions.from_parameters(g2, g3, g4, g5)
    return functions.labels(check_species(species))

"""Atom-centred symmetry functions (Behler, J. Chem. Phys. 134, 074106, 2011) as dscribe 2.1.2 defines them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_positive, check_species, species_index
from matcompute_kernels.descriptors.acsf_kernel import fill_rows
from matcompute_kernels.descriptors.derivatives import Derivatives
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.neighbors import NeighborList
from matcompute_kernels.tasks import run_tasks

__all__ = ["acsf", "labels"]

#: Pairs of a neighbour list that are held at a time (56 bytes each).
MAX_PAIRS = 100_000


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
    dtype: Any = np.float64,
    neighbors: NeighborList | None = None,
    threads: int = 1,
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
        Whether to return also the analytic derivatives.
    dtype
        float64 or float32 of the output.
    neighbors
        A full neighbour list of the batch that reaches at least as far, shared by several descriptors; None: made here.
    threads
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray or (ndarray, Derivatives)
        f[M, F], one row a site: for each element in rising Z G1, the G2 and the G3; then for each pair of elements
        (lower triangle by rows) the G4 and the G5. With ``derivatives`` also those by positions and strain.

    Raises
    ------
    KernelInputError
        If a structure is unfit, has an element that is not in ``species``, or a parameter is wrong.

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
    functions = _Functions.from_parameters(g2, g3, g4, g5)
    if not periodic:
        packed = type(packed)(
            packed.numbers, packed.positions, packed.cell, np.zeros_like(packed.pbc), packed.ptr
        )
    check_batch(packed, numbers.tolist())
    element = species_index(packed, numbers)
    s = len(numbers)
    out = np.zeros((len(element), functions.count(s)), dtype=kind)
    parts: dict[int, Derivatives] = {}
    arrays = functions.arrays

    fill: Any = fill_rows

    def start() -> Any:
        def kernel(first: int, last: int, pairs: NeighborList) -> None:
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
                out,
            )
            if derivatives:
                from matcompute_kernels.descriptors.acsf_derivatives import fill_derivatives

                parts[first] = fill_derivatives(packed, pairs, first, last, element, s, functions, kind)

        return kernel

    run_tasks(packed, float(r_cut), MAX_PAIRS, start, neighbors=neighbors, threads=threads)
    if derivatives:
        return out, Derivatives.concatenate(
            [parts[first] for first in sorted(parts)], functions.count(s), kind
        )
    return out


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
    functions = _Functions.from_parameters(g2, g3, g4, g5)
    names = [SYMBOLS[z] for z in check_species(species)]
    result = []
    for name in names:
        result.append(f"{name} G1")
        result += [f"{name} G2 eta={eta:g} r_s={r_s:g}" for eta, r_s in functions.g2]
        result += [f"{name} G3 kappa={kappa:g}" for kappa in functions.g3]
    for high in range(len(names)):
        for low in range(high + 1):
            for which, parameters in (("G4", functions.g4), ("G5", functions.g5)):
                result += [
                    f"{names[low]}-{names[high]} {which} eta={eta:g} zeta={zeta:g} lambda={lam:g}"
                    for eta, zeta, lam in parameters
                ]
    return result


@dataclass(frozen=True, eq=False)
class _Functions:
    """The parameters as arrays: g2 f8[., 2], g3 f8[.], g4 and g5 f8[., 3]."""

    g2: np.ndarray
    g3: np.ndarray
    g4: np.ndarray
    g5: np.ndarray

    @classmethod
    def from_parameters(cls, g2: Any, g3: Any, g4: Any, g5: Any) -> _Functions:
        return cls(
            _parameters("g2", g2, 2, "(eta, r_s)"),
            _parameters("g3", g3, 1, "kappa")[:, 0],
            _parameters("g4", g4, 3, "(eta, zeta, lambda)"),
            _parameters("g5", g5, 3, "(eta, zeta, lambda)"),
        )

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What the kernels take: g2, g3, and for G4 and G5 the distinct η, the distinct (ζ, λ) and which is which."""
        return (self.g2, np.ascontiguousarray(self.g3), *_distinct(self.g4), *_distinct(self.g5))

    def count(self, s: int) -> int:
        """Number of columns for s elements."""
        return (1 + len(self.g2) + len(self.g3)) * s + (len(self.g4) + len(self.g5)) * (s * (s + 1) // 2)


def _parameters(name: str, value: Any, width: int, meaning: str) -> np.ndarray:
    if value is None:
        return np.zeros((0, width))
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.zeros(())
    if array.size == 0 and array.ndim > 0:
        return np.zeros((0, width))
    if width == 1 and array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != width or not np.isfinite(array).all():
        raise KernelInputError(f"{name} must be a list of finite {meaning}, not {value!r}")
    if width == 3 and (array[:, 1] <= 0).any():
        raise KernelInputError(f"{name} needs zeta above 0")
    if width == 3 and (np.abs(array[:, 2]) > 1).any() and (array[:, 1] % 1 != 0).any():
        raise KernelInputError(f"{name} needs lambda between -1 and 1")
    if width > 1 and (array[:, 0] < 0).any():
        raise KernelInputError(f"{name} needs eta of 0 or more")
    return np.ascontiguousarray(array)


def _distinct(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct η f8[E], distinct (ζ, λ) f8[A, 2] and the numbers of both for each function, i8[., 2]."""
    if not len(parameters):
        return np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2), np.int64)
    etas, of_eta = np.unique(parameters[:, 0], return_inverse=True)
    angular, of_angular = np.unique(parameters[:, 1:], axis=0, return_inverse=True)
    return etas, np.ascontiguousarray(angular), np.column_stack([of_eta.ravel(), of_angular.ravel()])

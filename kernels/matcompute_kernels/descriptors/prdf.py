"""Partial radial distribution functions of crystals as matminer 0.10.1 defines them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations_with_replacement, pairwise
from typing import Any

import numpy as np

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_species, species_index
from matcompute_kernels.descriptors.pair_histogram import bin_edges, pair_histograms, shell_volumes
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.neighbors import NeighborList

__all__ = ["labels", "prdf"]

#: Elements as pymatgen sorts them: rising Pauling electronegativity, those without one last.
_BY_ELECTRONEGATIVITY = """Fr Cs K Rb Ba Ra Na Sr Li Ca Ac La Tb Yb Ce Pm Pr Nd Sm Eu Gd Dy Y Ho Er Tm Lu Pu Am Bk Cf
Cm Es Fm Hf Lr Md No Th Mg Zr Np Sc U Pa Ta Ti Mn Be Nb Al Tl V Zn Cr Cd In Ga Fe Co Cu Re Si Tc Ni Ag Sn Hg Po Ge Bi
B Sb Te Mo As P At H Ir Os Pd Rn Ru Pt Rh Pb W Au C Se S Xe I Br Kr N Cl O F Ar Bh Cn Db Ds Fl He Hs Lv Mc Mt Ne Nh Og
Rf Rg Sg Ts""".split()  # noqa: SIM905 (a list of 118 literals reads worse)


def prdf(
    batch: Any,
    species: Iterable[int | str],
    r_cut: float = 20.0,
    bin_size: float = 0.1,
    *,
    dtype: Any = np.float64,
    neighbors: NeighborList | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Partial radial distribution functions: per atom of A, the density of its neighbours B in a shell (1/Å³).

    matminer 0.10.1's definition (``PartialRadialDistributionFunction``; Schütt et al., Phys. Rev. B 89, 205118, 2014),
    bins and order included: pairs A, B of the elements by rising electronegativity (pymatgen's order), A before or
    equal to B. Two differences: a distance within 1e-8 Å below an edge counts as on it, and for pure H₂, N₂, O₂, F₂
    and Cl₂ the peer's result, which is halved by the reduced formula, is not followed.

    Parameters
    ----------
    batch
        Packed structures, or ASE Atoms or pymatgen Structures.
    species
        Elements of the columns, as symbols or atomic numbers, in any order.
    r_cut
        Cutoff in Å.
    bin_size
        Width of the bins in Å.
    dtype
        float64 or float32 of the output.
    neighbors
        A full neighbour list of the batch that reaches at least as far, shared by several descriptors; None: made here.
    threads
        Threads to use; the result does not depend on it.

    Returns
    -------
    ndarray
        f[N, S(S+1)/2 · B].

    Raises
    ------
    KernelInputError
        If a structure is unfit or has an element that is not in ``species``, or a parameter is wrong.
    """
    edges = bin_edges(r_cut, bin_size)
    kind = check_dtype(dtype)
    packed = as_batch(batch)
    numbers = _ordered(species)
    check_batch(packed, numbers.tolist())
    element = species_index(packed, numbers)
    s = len(numbers)
    place = np.full((s, s), -1, np.int64)
    upper = np.triu_indices(s)
    place[upper] = np.arange(len(upper[0]))
    counts = pair_histograms(packed, r_cut, edges, element, place, len(upper[0]), neighbors, threads)
    counts /= shell_volumes(edges)
    atoms = np.zeros((len(packed), s))
    np.add.at(atoms, (np.repeat(np.arange(len(packed)), packed.n_sites), element), 1.0)
    counts /= np.maximum(atoms, 1.0)[:, upper[0], None]
    return counts.reshape(len(packed), len(upper[0]) * (len(edges) - 1)).astype(kind, copy=False)


def labels(species: Iterable[int | str], r_cut: float = 20.0, bin_size: float = 0.1, **_: Any) -> list[str]:
    """Return the name of each column (the peer's)."""
    edges = bin_edges(r_cut, bin_size)
    names = [SYMBOLS[z] for z in _ordered(species)]
    return [
        f"{a}-{b} PRDF r={low:.2f}-{high:.2f}"
        for a, b in combinations_with_replacement(names, 2)
        for low, high in pairwise(edges)
    ]


def _ordered(species: Iterable[int | str]) -> np.ndarray:
    """Elements by electronegativity, u1[S]."""
    rank = {symbol: k for k, symbol in enumerate(_BY_ELECTRONEGATIVITY)}
    numbers = check_species(species)
    return np.array(sorted(numbers, key=lambda z: rank.get(SYMBOLS[z], len(rank))), dtype=np.uint8)

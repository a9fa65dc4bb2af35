"""Orbital field matrix: which valence shells meet, weighted by the faces of Voronoi cells."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_dtype
from matcompute_kernels.compiled import njit
from matcompute_kernels.descriptors.voronoi import voronoi_faces
from matcompute_kernels.elements import SYMBOLS
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.tables import electron_shells

__all__ = ["labels", "orbital_field_matrix", "shell_vectors"]

_MAX_Z = 94  # as in matminer
_ROOM = 160


@njit(cache=True, parallel=True)
def _matrices(
    numbers: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    ptr: np.ndarray,
    shells: np.ndarray,
    scale: float,
    out: np.ndarray,
    failed: np.ndarray,
) -> None:
    """Write the mean matrix of each structure, OUTPUT f8[N, S, S]; failed[i] is set if a cell has too many faces."""
    size = shells.shape[1]
    for i in prange(ptr.shape[0] - 1):
        a, b = ptr[i], ptr[i + 1]
        sites = np.empty(_ROOM, dtype=np.int64)
        distances, solid = np.empty(_ROOM), np.empty(_ROOM)
        for centre in range(b - a):
            count = voronoi_faces(positions[a:b], cell[i], centre, sites, distances, solid)
            if count <= 0:
                failed[i] = True
                break
            largest = solid[:count].max()
            own = shells[numbers[a + centre]]
            for f in range(count):
                weight = solid[f] / largest / distances[f] * scale / (b - a)
                other = shells[numbers[a + sites[f]]]
                for p in range(size):
                    if other[p] == 0:
                        continue
                    for q in range(size):
                        if own[q] != 0:
                            out[i, p, q] += weight


def orbital_field_matrix(
    batch: Any, *, period_tag: bool = False, flatten: bool = True, dtype: Any = np.float64
) -> np.ndarray:
    """Return the mean orbital field matrix of each structure.

    Parameters
    ----------
    batch
        Batch, ASE Atoms or pymatgen Structures, periodic in three directions, elements up to Pu.
    period_tag
        Add the seven periods to the 32 shells s¹ … f¹⁴.
    flatten
        Return rows instead of matrices.
    dtype
        float64 or float32.

    Returns
    -------
    numpy.ndarray
        [N, 1024] or [N, 32, 32] ([N, 1521], [N, 39, 39] with ``period_tag``) in 1/bohr; the row is the neighbour's
        shell, the column the centre's; see :func:`labels`.

    Raises
    ------
    KernelInputError
        If a structure is unfit, has no full cell or an element beyond Pu; ``index`` names it.

    Notes
    -----
    T. L. Pham et al., Sci. Technol. Adv. Mater. 18, 756 (2017), as in matminer's ``OrbitalFieldMatrix``: sum over the
    faces of a site's Voronoi cell of (solid angle / largest) / distance times the outer product of the elements' shell
    vectors, averaged over the sites. matminer takes one site of each orbit that spglib finds within 0.01 Å of the
    3 × 3 × 3 supercell; here all sites count, which is the same up to that tolerance.
    """
    from scipy.constants import value

    batch = as_batch(batch)
    check_batch(batch)
    dtype = check_dtype(dtype)
    flat = np.flatnonzero(~(batch.volumes > 0))
    if flat.size:
        raise KernelInputError("has no three-dimensional cell; Voronoi cells need one", int(flat[0]))
    heavy = np.flatnonzero((batch.numbers > _MAX_Z) | (batch.numbers == 0))
    if heavy.size:
        index = int(np.searchsorted(batch.ptr, heavy[0], side="right") - 1)
        raise KernelInputError(
            f"shells are known from H to Pu, not of {SYMBOLS[int(batch.numbers[heavy[0]])]}", index
        )
    shells = shell_vectors(bool(period_tag))
    size = shells.shape[1]
    out = np.zeros((len(batch), size, size))
    failed = np.zeros(len(batch), dtype=bool)
    scale = value("Bohr radius") / value("Angstrom star")
    _matrices(batch.numbers.astype("i8"), batch.positions, batch.cell, batch.ptr, shells, scale, out, failed)
    if failed.any():
        raise KernelInputError(
            "a Voronoi cell cannot be built; do two atoms coincide?", int(np.flatnonzero(failed)[0])
        )
    out = out.astype(dtype, copy=False)
    return out.reshape(len(batch), size * size) if flatten else out


def labels(period_tag: bool = False, **_: Any) -> list[str]:
    """Return matminer's name of each column of the flattened matrix."""
    names = [f"{letter}^{i}" for letter, most in zip("spdf", (2, 6, 10, 14)) for i in range(1, most + 1)]
    if period_tag:
        names += [f"period {i}" for i in range(1, 8)]
    return [f"OFM: {row} - {column}" for row in names for column in names]


@cache
def shell_vectors(period_tag: bool = False) -> np.ndarray:
    """Return the shell vector of each element up to Pu, i8[95, 32 or 39].

    Of the shells of the ground state those of the highest n count, and d of n − 1 and f of n − 2, n being that of the
    shell filled last (matminer's ``get_ohv``).
    """
    vectors = np.zeros((_MAX_Z + 1, 39 if period_tag else 32), dtype=np.int64)
    offset = {"s": 0, "p": 2, "d": 8, "f": 18}
    rows = np.zeros(_MAX_Z + 1, dtype=int)
    for row, first in enumerate((1, 3, 11, 19, 37, 55, 87), start=1):
        rows[first:] = row
    for z in range(1, _MAX_Z + 1):
        shells = electron_shells()[z]
        top = shells[-1][0]
        for n, letter, electrons in shells:
            if n < top - 2 or (n == top - 2 and letter != "f") or (n == top - 1 and letter not in "df"):
                continue
            vectors[z, offset[letter] + electrons - 1] = 1
        if period_tag:
            vectors[z, 31 + rows[z]] = 1
    vectors.flags.writeable = False
    return vectors

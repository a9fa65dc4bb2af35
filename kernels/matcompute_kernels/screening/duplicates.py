"""Groups of structures that are the same within tolerances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange

from matcompute_kernels.batch import as_batch
from matcompute_kernels.checks import check_batch, check_positive
from matcompute_kernels.compiled import njit
from matcompute_kernels.elements import ALPHABETICAL, MAX_Z
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.screening.match import matches
from matcompute_kernels.screening.primitive import primitive

__all__ = ["duplicate_groups"]

_PRIMITIVE_TOLERANCE = 0.25  # Å, pymatgen's

#: Place of each element in the alphabet.
_RANK = np.zeros(MAX_Z + 1, dtype=np.int64)
_RANK[ALPHABETICAL] = np.arange(MAX_Z + 1)


@njit(cache=True, parallel=True)
def _reduce_all(
    kind: np.ndarray,
    positions: np.ndarray,
    cell: np.ndarray,
    ptr: np.ndarray,
    shrink: bool,
    new_kind: np.ndarray,
    frac: np.ndarray,
    new_cell: np.ndarray,
    count: np.ndarray,
) -> None:
    """Reduce every structure; its sites start at its old offset (OUTPUT from new_kind on)."""
    for i in prange(ptr.shape[0] - 1):
        a, b = ptr[i], ptr[i + 1]
        tolerance = _PRIMITIVE_TOLERANCE if shrink else 0.0
        k, f, c = primitive(kind[a:b], positions[a:b], cell[i], tolerance)
        n = k.shape[0]
        count[i] = n
        new_kind[a : a + n] = k
        frac[a : a + n] = f
        new_cell[i] = c


@njit(cache=True, parallel=True)
def _group_all(
    class_ptr: np.ndarray,
    members: np.ndarray,
    kind: np.ndarray,
    frac: np.ndarray,
    cell: np.ndarray,
    start: np.ndarray,
    count: np.ndarray,
    ltol: float,
    stol: float,
    angle_tol: float,
    scale: bool,
    leader: np.ndarray,
) -> None:
    """Write the first structure of each structure's group, OUTPUT i8[N]; only members of one class are compared."""
    for c in prange(class_ptr.shape[0] - 1):
        for p in range(class_ptr[c], class_ptr[c + 1]):
            i = members[p]
            if leader[i] >= 0:
                continue
            leader[i] = i
            a0, a1 = start[i], start[i] + count[i]
            for q in range(p + 1, class_ptr[c + 1]):
                j = members[q]
                if leader[j] >= 0 or count[j] != count[i]:
                    continue
                b0, b1 = start[j], start[j] + count[j]
                if matches(
                    kind[a0:a1], frac[a0:a1], cell[i], kind[b0:b1], frac[b0:b1], cell[j],
                    ltol, stol, angle_tol, scale,
                ):  # fmt: skip
                    leader[j] = i


def duplicate_groups(
    batch: Any,
    *,
    ltol: float = 0.2,
    stol: float = 0.3,
    angle_tol: float = 5.0,
    primitive_cell: bool = True,
    scale: bool = True,
) -> list[np.ndarray]:
    """Return groups of structures that are the same.

    Parameters
    ----------
    batch
        Batch, ASE Atoms or pymatgen Structures, periodic in three directions.
    ltol
        Relative tolerance of lattice vectors' lengths.
    stol
        Tolerance of sites in units of (V / n)^(1/3).
    angle_tol
        Tolerance of lattice angles in degrees.
    primitive_cell
        Reduce to primitive cells (within 0.25 Å) first.
    scale
        Scale to the same volume first.

    Returns
    -------
    list of numpy.ndarray
        i8 indices, rising; the groups are ordered by their first index and cover all structures.

    Raises
    ------
    KernelInputError
        If a structure is unfit or has no full cell (``index`` names it), or a tolerance is no number above 0.

    Notes
    -----
    Same groups as pymatgen's ``StructureMatcher(...).group_structures`` (S. P. Ong et al., Comput. Mater. Sci. 68, 314
    (2013)): a structure is compared with the first of each earlier group of its composition. Structures whose reduced
    compositions or numbers of sites in the reduced cell differ are told apart without a comparison.
    """
    batch = as_batch(batch)
    check_batch(batch)
    check_positive(ltol=ltol, stol=stol, angle_tol=angle_tol)
    n = len(batch)
    if n == 0:
        return []
    flat = np.flatnonzero(~(batch.volumes > 0))
    if flat.size:
        raise KernelInputError("has no three-dimensional cell; matching needs one", int(flat[0]))
    kind = _RANK[batch.numbers]
    new_kind, frac = np.zeros(len(kind), dtype="i8"), np.zeros((len(kind), 3))
    cell, count = np.zeros((n, 3, 3)), np.zeros(n, dtype="i8")
    _reduce_all(
        kind, batch.positions, batch.cell, batch.ptr, bool(primitive_cell), new_kind, frac, cell, count
    )
    _, formula = np.unique(np.array(batch.formulas()), return_inverse=True)
    key = formula.ravel() * (int(count.max()) + 1) + count
    members = np.lexsort((np.arange(n), key))
    class_ptr = np.concatenate([[0], np.flatnonzero(np.diff(key[members])) + 1, [n]])
    leader = np.full(n, -1, dtype="i8")
    _group_all(
        class_ptr, members, new_kind, frac, cell, batch.ptr[:-1].copy(), count,
        ltol, stol, angle_tol, bool(scale), leader,
    )  # fmt: skip
    order = np.argsort(leader, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(leader[order])) + 1)

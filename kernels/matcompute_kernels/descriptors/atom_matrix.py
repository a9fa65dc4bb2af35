"""What the atom-by-atom matrices (Coulomb, sine, Ewald) share: order of the atoms, padding, labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from matcompute_kernels.batch import Batch, as_batch
from matcompute_kernels.checks import check_batch, check_dtype, check_integer
from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError

__all__ = ["PERMUTATIONS", "arrange", "fail_if_coincident", "matrix_labels", "prepare"]

#: Ways to make the rows independent of the order of the atoms, and the code that the kernels take.
PERMUTATIONS = {"none": 0, "sorted_l2": 1, "eigenspectrum": 2}


def prepare(
    structures: Any, n_atoms_max: int | None, permutation: str, dtype: Any, *, periodic: bool
) -> tuple[Batch, int, np.ndarray]:
    """Check what the matrices take; return the batch, the largest number of atoms and zeros for the output.

    Raises
    ------
    KernelInputError
        If a structure is unfit or larger than ``n_atoms_max``, or a parameter is wrong.
    """
    if permutation not in PERMUTATIONS:
        raise KernelInputError(f"permutation must be one of {', '.join(PERMUTATIONS)}, not {permutation!r}")
    kind = check_dtype(dtype)
    batch = as_batch(structures)
    if periodic:  # the lattice counts, whatever pbc says
        batch = Batch(batch.numbers, batch.positions, batch.cell, np.ones_like(batch.pbc), batch.ptr)
    else:
        batch = Batch(batch.numbers, batch.positions, batch.cell, np.zeros_like(batch.pbc), batch.ptr)
    check_batch(batch)
    counts = batch.n_sites
    largest = int(counts.max(initial=1))
    if n_atoms_max is None:
        n_atoms_max = largest
    check_integer(1, 2**31, n_atoms_max=n_atoms_max)
    if largest > n_atoms_max:
        index = int(np.argmax(counts > n_atoms_max))
        raise KernelInputError(f"{counts[index]} atoms are more than n_atoms_max={n_atoms_max}", index)
    n_columns = n_atoms_max if permutation == "eigenspectrum" else n_atoms_max**2
    return batch, n_atoms_max, np.zeros((len(batch), n_columns), dtype=kind)


def matrix_labels(symbol: str, n_atoms_max: int, permutation: str) -> list[str]:
    """Return the name of each column of an atom-by-atom matrix."""
    if permutation == "eigenspectrum":
        return [f"{symbol} eigenvalue {k}" for k in range(n_atoms_max)]
    return [f"{symbol} {i},{j}" for i in range(n_atoms_max) for j in range(n_atoms_max)]


def fail_if_coincident(index: int) -> None:
    """Raise for the structure whose matrix has an infinite entry (-1: none)."""
    if index >= 0:
        raise KernelInputError("two atoms (or an atom and an image) at one place", index)


@njit(cache=True, nogil=True)
def arrange(matrix: np.ndarray, permutation: int, n_max: int, out: np.ndarray) -> None:
    """Write a symmetric matrix f8[n, n] in the asked order to a row of n_max² (or n_max) zeros.

    OUTPUT: out f[n_max²], or f[n_max] for the eigenspectrum (falling absolute value).
    """
    n = matrix.shape[0]
    if permutation == 2:
        values = np.linalg.eigvalsh(matrix)
        order = np.argsort(np.abs(values))
        for k in range(n):
            out[k] = values[order[n - 1 - k]]
        return
    if permutation == 1:
        norms = np.zeros(n)
        for i in range(n):
            for j in range(n):
                norms[i] -= matrix[i, j] * matrix[i, j]
        order = np.argsort(norms, kind="mergesort")
        for i in range(n):
            for j in range(n):
                out[i * n_max + j] = matrix[order[i], order[j]]
        return
    for i in range(n):
        for j in range(n):
            out[i * n_max + j] = matrix[i, j]

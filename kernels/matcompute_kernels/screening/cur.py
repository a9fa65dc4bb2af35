"""CUR selection: the rows that carry the leading singular vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from matcompute_kernels.checks import check_integer
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.screening.features import feature_matrix

__all__ = ["cur"]


def cur(features: Any, n: int, *, k: int = 1, recompute_every: int = 1, axis: int = 0) -> np.ndarray:
    """Return the rows (or columns) that CUR decomposition picks, in order.

    Parameters
    ----------
    features
        [N, F].
    n
        Number of picks.
    k
        Number of singular vectors in the importance score π_i = Σ_k U_ik².
    recompute_every
        Picks between two computations of the score; 0: the n highest scores at once, with no orthogonalisation.
    axis
        0 picks rows (samples), 1 columns (features).

    Returns
    -------
    numpy.ndarray
        i8[n].

    Raises
    ------
    KernelInputError
        If features are no finite matrix (``index`` names the row), or a parameter is out of range.

    Notes
    -----
    skmatter's ``CUR`` (G. Imbalzano et al., J. Chem. Phys. 148, 241730 (2018)): after each pick all rows are made
    orthogonal to it. The matrix is not copied for that: only the smaller Gram matrix is kept orthogonal. Its leading
    eigenvectors times the rows are the wanted singular vectors.
    """
    x = feature_matrix(features).astype(np.float64, copy=False)
    if axis not in (0, 1):
        raise KernelInputError(f"axis must be 0 (rows) or 1 (columns), not {axis!r}")
    if axis == 1:
        x = np.ascontiguousarray(x.T)
    rows, columns = x.shape
    check_integer(1, max(rows, 1), n=n)
    check_integer(1, max(min(rows, columns) - 1, 1), k=k)
    check_integer(0, rows, recompute_every=recompute_every)
    thin = columns <= rows
    gram = x.T @ x if thin else x @ x.T
    basis = np.empty((0, columns))
    picks = np.empty(n, dtype=np.int64)
    free = np.ones(rows, dtype=bool)
    score, guess = _scores(x, gram, k, thin, None)
    for count in range(n):
        pick = int(np.argmax(np.where(free, score, -np.inf)))
        picks[count] = pick
        free[pick] = False
        if recompute_every == 0 or count == n - 1:
            continue
        if thin:
            # subtracting twice keeps the direction orthogonal to rounding
            direction = x[pick].copy()
            for _ in range(2):
                direction -= basis.T @ (basis @ direction)
            length = float(np.linalg.norm(direction))
            if length > 1e-12 * max(float(np.linalg.norm(x[pick])), 1e-300):
                direction /= length
                basis = np.concatenate([basis, direction[None]])
                image = gram @ direction
                gram -= np.outer(direction, image) + np.outer(image, direction)
                gram += (direction @ image) * np.outer(direction, direction)
        elif gram[pick, pick] > 0:
            gram -= np.outer(gram[:, pick], gram[pick] / gram[pick, pick])
        if (count + 1) % recompute_every == 0:
            score, guess = _scores(x, gram, k, thin, guess)
    return picks


def _scores(
    x: np.ndarray, gram: np.ndarray, k: int, thin: bool, guess: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return π of every row, f8[N], and the leading eigenvector as a guess for the next time."""
    size = len(gram)
    if size <= 64 or k >= size // 4:
        values, vectors = eigh(gram, subset_by_index=(size - k, size - 1))
    else:
        start = np.ones(size) if guess is None else guess + 1e-3 / np.sqrt(size)
        try:
            values, vectors = eigsh(gram, k=k, which="LA", v0=start)
        except ArpackNoConvergence:
            values, vectors = eigh(gram, subset_by_index=(size - k, size - 1))
    if not thin:
        return (vectors**2).sum(axis=1), vectors[:, -1]
    kept = values > 1e-28 * max(float(values.max()), 1e-300)
    left = x @ vectors[:, kept]
    return ((left**2) / values[kept]).sum(axis=1), vectors[:, -1]

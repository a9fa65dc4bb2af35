"""Nearest neighbours of feature vectors by brute force, in tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from matcompute_kernels.checks import check_integer
from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.screening.features import feature_matrix

__all__ = ["METRICS", "knn"]

#: Distances: |x − y|, Σ|x − y|, 1 − x·y/(|x||y|).
METRICS = ("euclidean", "manhattan", "cosine")

_ROWS, _COLUMNS = 512, 1024


@njit(cache=True, fastmath={"contract", "nsz", "nnan"})
def _keep(
    dots: np.ndarray, norms: np.ndarray, first: int, skip: np.ndarray, best: np.ndarray, index: np.ndarray
) -> None:
    """Merge the candidates ``first + j`` with score norms[j] − 2·dots[i, j] into each row's k lowest.

    best f8[n, k] (rising) and index i8[n, k] are OUTPUT. A run of 16 candidates is left at once when none is low
    enough. Candidate ``skip[i]`` is left out. Of equal scores the earlier candidate stays in front.
    """
    k = best.shape[1]
    m = dots.shape[1]
    for i in range(dots.shape[0]):
        row = dots[i]
        scores, names = best[i], index[i]
        limit = scores[k - 1]
        for j0 in range(0, m, 16):
            end = min(j0 + 16, m)
            any_low = False
            for j in range(j0, end):
                any_low |= norms[j] - 2.0 * row[j] < limit
            if not any_low:
                continue
            for j in range(j0, end):
                score = norms[j] - 2.0 * row[j]
                if score < limit and first + j != skip[i]:
                    at = k - 1
                    while at > 0 and scores[at - 1] > score:
                        scores[at] = scores[at - 1]
                        names[at] = names[at - 1]
                        at -= 1
                    scores[at] = score
                    names[at] = first + j
                    limit = scores[k - 1]


@njit(cache=True, fastmath={"contract", "nsz", "nnan", "reassoc"})
def _manhattan(x: np.ndarray, y: np.ndarray, out: np.ndarray) -> None:
    """Write −Σ|x − y|/2, OUTPUT f8[n, m], so that 0 − 2·out is the distance."""
    for i in range(x.shape[0]):
        for j in range(y.shape[0]):
            total = 0.0
            for k in range(x.shape[1]):
                total += abs(x[i, k] - y[j, k])
            out[i, j] = -0.5 * total


@njit(cache=True, fastmath={"contract", "nsz", "nnan", "reassoc"})
def _exact(x: np.ndarray, y: np.ndarray, index: np.ndarray, out: np.ndarray) -> None:
    """Write |x − y| of the neighbours from their differences (no cancellation), OUTPUT f8[n, k]."""
    for i in range(index.shape[0]):
        for q in range(index.shape[1]):
            row = y[index[i, q]]
            total = 0.0
            for k in range(x.shape[1]):
                d = np.float64(x[i, k]) - np.float64(row[k])
                total += d * d
            out[i, q] = np.sqrt(total)


def knn(
    features: Any, k: int, *, queries: Any = None, metric: str = "euclidean", backend: str = "numba"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest rows of ``features`` to each query.

    Parameters
    ----------
    features
        f8 or f4 [N, F].
    k
        Number of neighbours.
    queries
        [Q, F]; None: the rows of ``features``, each without itself.
    metric
        One of :data:`METRICS`.
    backend
        ``"numba"``; ``"cuda"``: the GPU, or an error; ``"auto"``: the GPU where it can do this call, else the CPU, and
        one line in the log says why (:mod:`matcompute_kernels.cuda`).

    Returns
    -------
    distances : numpy.ndarray
        f8[Q, k], rising.
    indices : numpy.ndarray
        i8[Q, k]; rows of ``features``.

    Raises
    ------
    KernelInputError
        If features are no finite matrix (``index`` names the row), or k exceeds the rows there are.

    Notes
    -----
    Exact search: dot products in tiles of 512 × 1024 (never N²), the k lowest kept; Euclidean distances are computed
    anew from differences.
    """
    x = feature_matrix(features)
    own = queries is None
    q = x if own else feature_matrix(queries, "queries", x.shape[1]).astype(x.dtype, copy=False)
    if metric not in METRICS:
        raise KernelInputError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
    check_integer(1, max(len(x) - own, 1), k=k)
    from matcompute_kernels.cuda.backend import on_gpu

    if on_gpu(backend, metric=metric == "cosine", k=k > 64):
        from matcompute_kernels.cuda.features import knn as on_device

        return on_device(x, k, queries=None if own else q, metric=metric, backend="cuda")
    if len(x) - own < k:
        raise KernelInputError(f"k={k} neighbours of {len(x)} rows")
    if metric == "cosine":
        x = _unit(x, "features")
        q = x if own else _unit(q, "queries")
    if metric == "euclidean":
        norms = np.einsum("ij,ij->i", x, x, dtype=np.float64)
    else:
        norms = np.zeros(len(x))
    best = np.full((len(q), k), np.inf)
    index = np.full((len(q), k), -1, dtype=np.int64)
    store = np.empty(_ROWS * _COLUMNS, dtype=x.dtype)
    for b in range(0, len(x), _COLUMNS):
        columns = x[b : b + _COLUMNS]
        for a in range(0, len(q), _ROWS):
            rows = q[a : a + _ROWS]
            tile = store[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            if metric == "manhattan":
                _manhattan(rows, columns, tile)
            else:
                np.matmul(rows, columns.T, out=tile)
            skip = np.arange(a, a + len(rows)) if own else np.full(len(rows), -1)
            _keep(tile, norms[b : b + _COLUMNS], b, skip, best[a : a + _ROWS], index[a : a + _ROWS])
    if metric == "manhattan":
        return np.maximum(best, 0.0), index
    if metric == "cosine":
        return np.maximum(1.0 + 0.5 * best, 0.0), index
    distances = np.empty_like(best)
    _exact(q, x, index, distances)
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(distances, order, 1), np.take_along_axis(index, order, 1)


def _unit(x: np.ndarray, name: str) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if np.any(length == 0):
        raise KernelInputError(f"{name} has a row of zeros, which has no direction", int(np.argmin(length)))
    return x / length

"""Regularised-entropy match of the sites of two structures."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numba import prange

from matcompute_kernels.checks import check_positive
from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.screening.features import exp_one, local_features
from matcompute_kernels.screening.kernel_matrix import site_chunks, tile_function

__all__ = ["rematch"]

_MAX_STEPS = 100_000


@njit(cache=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})
def _match(
    similarity: np.ndarray, alpha: float, threshold: float, plan: np.ndarray, work: np.ndarray
) -> float:
    """Similarity of two structures from that of their sites, by Sinkhorn's iteration; NaN if it does not converge.

    The error is looked at in every step but each fifth, as dscribe does, so that the same number of steps is made.
    plan and work are scratch.
    """
    n, m = similarity.shape
    u, u_old, v, v_old, sums = work[0], work[1], work[2], work[3], work[4]
    inverse = 1.0 / alpha
    for i in range(n):
        for j in range(m):
            plan[i, j] = exp_one((similarity[i, j] - 1.0) * inverse)
        u[i] = 1.0 / n
    for j in range(m):
        v[j] = 1.0 / m
    step = 0
    error = 1.0
    while error > threshold:
        for j in range(m):
            sums[j] = 0.0
        for i in range(n):
            a = u[i]
            row = plan[i]
            for j in range(m):
                sums[j] += a * row[j]
        for j in range(m):
            v_old[j] = v[j]
            v[j] = 1.0 / (m * sums[j])
        for i in range(n):
            total = 0.0
            row = plan[i]
            for j in range(m):
                total += row[j] * v[j]
            u_old[i] = u[i]
            u[i] = 1.0 / (n * total)
        if step % 5 != 0:
            du, uu, dv, vv = 0.0, 0.0, 0.0, 0.0
            for i in range(n):
                du += (u[i] - u_old[i]) ** 2
                uu += u[i] * u[i]
            for j in range(m):
                dv += (v[j] - v_old[j]) ** 2
                vv += v[j] * v[j]
            error = du / uu + dv / vv
        step += 1
        if step > _MAX_STEPS or not np.isfinite(error):
            return np.nan
    total = 0.0
    for i in range(n):
        part = 0.0
        for j in range(m):
            part += plan[i, j] * v[j] * similarity[i, j]
        total += part * u[i]
    return total


@njit(cache=True, error_model="numpy", parallel=True)
def _match_all(
    values: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    pairs: np.ndarray,
    alpha: float,
    threshold: float,
    largest: int,
    out: np.ndarray,
) -> None:
    """Match the given pairs of structures of a tile of site similarities, OUTPUT f8[P]."""
    strips = min(pairs.shape[0], 64)
    for s in prange(strips):
        plan = np.empty((largest, largest))
        work = np.empty((5, largest))
        for p in range(s, pairs.shape[0], strips):
            a, b = pairs[p, 0], pairs[p, 1]
            block = values[rows[a] : rows[a + 1], columns[b] : columns[b + 1]]
            n, m = block.shape
            out[p] = _match(block, alpha, threshold, plan[:n, :m], work)


def rematch(
    x: Any,
    y: Any = None,
    *,
    alpha: float = 0.1,
    threshold: float = 1e-6,
    metric: str = "linear",
    gamma: float | None = None,
    degree: float = 3,
    coef0: float = 1.0,
    normalize: bool = True,
) -> np.ndarray:
    """Return the REMatch similarity of every structure of ``x`` to every structure of ``y``.

    Parameters
    ----------
    x, y
        Lists of site features [sites, F], one matrix a structure (rows of length 1 for the linear metric), or a pair
        (matrix of all sites, ptr); y None: x with itself.
    alpha
        Weight of the entropy: near 0 the best match, large the average kernel.
    threshold
        Sinkhorn's iteration ends when the squared relative change is below.
    metric, gamma, degree, coef0
        Site kernel, see :func:`~matcompute_kernels.screening.kernel_matrix.kernel_matrix`.
    normalize
        Divide by √(K_ii K_jj).

    Returns
    -------
    numpy.ndarray
        f8[N, M].

    Raises
    ------
    KernelInputError
        If features are unfit, or the iteration does not converge; ``index`` names the structure of ``x``.

    Notes
    -----
    S. De, A. P. Bartók, G. Csányi, M. Ceriotti, Phys. Chem. Chem. Phys. 18, 13754 (2016); same numbers as dscribe's
    ``REMatchKernel``. Site similarities are computed for tiles of about 1,000 × 1,000 sites.
    """
    check_positive(alpha=alpha, threshold=threshold)
    sites, ptr = local_features(x, "x")
    symmetric = y is None
    others, other_ptr = (sites, ptr) if y is None else local_features(y, "y")
    if others.shape[1] != sites.shape[1] and len(other_ptr) > 1:
        raise KernelInputError(f"y has {others.shape[1]} columns where x has {sites.shape[1]}")
    function = tile_function(metric, gamma, degree, coef0, sites.shape[1])
    largest = int(max(np.diff(ptr).max(initial=1), np.diff(other_ptr).max(initial=1)))
    out = np.empty((len(ptr) - 1, len(other_ptr) - 1))
    for a0, a1 in site_chunks(ptr):
        for b0, b1 in site_chunks(other_ptr):
            if symmetric and b1 <= a0:
                continue
            values = function(sites[ptr[a0] : ptr[a1]], others[other_ptr[b0] : other_ptr[b1]])
            pairs = np.indices((a1 - a0, b1 - b0)).reshape(2, -1).T
            if symmetric and a0 == b0:
                pairs = pairs[pairs[:, 0] <= pairs[:, 1]]
            part = np.empty(len(pairs))
            rows, columns = ptr[a0 : a1 + 1] - ptr[a0], other_ptr[b0 : b1 + 1] - other_ptr[b0]
            _match_all(values, rows, columns, np.ascontiguousarray(pairs), alpha, threshold, largest, part)
            out[a0 + pairs[:, 0], b0 + pairs[:, 1]] = part
            if symmetric:
                out[b0 + pairs[:, 1], a0 + pairs[:, 0]] = part
    if np.isnan(out).any():
        i, j = np.argwhere(np.isnan(out))[0].tolist()
        raise KernelInputError(
            f"no match with structure {j}: site similarities far from 1 over- or underflow; normalise the features",
            i,
        )
    if normalize:
        left = np.diagonal(out).copy() if symmetric else _own(sites, ptr, function, alpha, threshold, largest)
        right = left if symmetric else _own(others, other_ptr, function, alpha, threshold, largest)
        out /= np.sqrt(np.outer(left, right))
    return out


def _own(
    sites: np.ndarray, ptr: np.ndarray, function: tile_function, alpha: float, threshold: float, largest: int
) -> np.ndarray:
    """Similarity of each structure to itself."""
    plan, work = np.empty((largest, largest)), np.empty((5, largest))
    out = np.empty(len(ptr) - 1)
    for i, (a, b) in enumerate(pairwise(ptr.tolist())):
        own = function(sites[a:b], sites[a:b])
        out[i] = _match(own, alpha, threshold, plan[: b - a, : b - a], work)
    return out

"""Farthest-point sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from matcompute_kernels.checks import check_integer
from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.screening.features import feature_matrix

__all__ = ["fps", "fps_distances"]

_ROWS = 2048  # rows of features that are multiplied at once
_MOST = 256  # candidates looked at together


@njit(cache=True, fastmath={"contract", "nsz", "nnan"})
def _lower(
    dots: np.ndarray, norms: np.ndarray, picked_norms: np.ndarray, first: int, nearest: np.ndarray
) -> None:
    """Lower the squared distances to the nearest pick (OUTPUT nearest) by the picks of ``dots`` f8[rows, p]."""
    for i in range(dots.shape[0]):
        row = dots[i]
        best = np.inf
        for p in range(row.shape[0]):
            d = picked_norms[p] - 2.0 * row[p]
            best = d if d < best else best
        best += norms[first + i]
        if best < nearest[first + i]:
            nearest[first + i] = best


@njit(cache=True, fastmath={"contract", "nsz", "nnan", "reassoc"})
def _pick_among(
    features: np.ndarray,
    norms: np.ndarray,
    candidates: np.ndarray,
    distance: np.ndarray,
    outside: float,
    outside_index: int,
    most: int,
    picked: np.ndarray,
    at: np.ndarray,
) -> int:
    """Pick greedily among the candidates as long as the farthest of them is the farthest of all.

    ``outside`` bounds the distance of the points that are no candidates: their distances can only shrink. Ties go to
    the lower index, as in a plain search. OUTPUT: picked i8, at f8 (squared distance when picked); returns the count.
    """
    count = 0
    n, width = features.shape
    while count < most:
        best = -1
        for c in range(n):
            if (
                best < 0
                or distance[c] > distance[best]
                or (distance[c] == distance[best] and candidates[c] < candidates[best])
            ):
                best = c
        if distance[best] < outside or (distance[best] == outside and candidates[best] > outside_index):
            break
        picked[count] = candidates[best]
        at[count] = distance[best]
        count += 1
        centre = features[best]
        for c in range(n):
            total = 0.0
            for k in range(width):
                total += features[c, k] * centre[k]
            d = norms[c] + norms[best] - 2.0 * total
            if d < distance[c]:
                distance[c] = d
        distance[best] = -np.inf
    return count


def fps(features: Any, n: int, *, start: int | Sequence[int] = 0, backend: str = "numba") -> np.ndarray:
    """Return the rows that farthest-point sampling picks, in order.

    Parameters
    ----------
    features
        f8 or f4 [N, F].
    n
        Number of picks, at most N.
    start
        The first pick or picks.
    backend
        ``"numba"``; ``"cuda"``: the GPU, or an error; ``"auto"``: the GPU where it can do this call, else the CPU, and
        one line in the log says why (:mod:`matcompute_kernels.cuda`).

    Returns
    -------
    numpy.ndarray
        i8[n].

    Raises
    ------
    KernelInputError
        If features are no finite matrix (``index`` names the row), or n or start is out of range.

    Notes
    -----
    Each pick is the row whose Euclidean distance to its nearest pick is largest (lowest index of equals): skmatter's
    ``sample_selection.FPS``; T. F. Gonzalez, Theor. Comput. Sci. 38, 293 (1985). A plain search streams all features
    once a pick. Here the farthest few hundred rows are set aside; picks are made among them until one of the others
    might be farther (distances only shrink, so theirs bound them), and all features are then multiplied once by
    that group of picks.
    """
    from matcompute_kernels.cuda.backend import on_gpu

    if on_gpu(backend, start=not isinstance(start, int | np.integer)):
        from matcompute_kernels.cuda.features import fps as on_device

        assert isinstance(start, int | np.integer)
        return on_device(features, n, start=int(start), backend="cuda")
    return fps_distances(features, n, start=start)[0]


def fps_distances(
    features: Any, n: int, *, start: int | Sequence[int] = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return picks, their distance when picked (inf for the first), and each row's distance to its nearest pick.

    The parameters are those of :func:`fps`.
    """
    x = feature_matrix(features)
    total = len(x)
    check_integer(1, max(total, 1), n=n)
    first = np.atleast_1d(np.asarray(start))
    if (
        first.dtype.kind not in "iu"
        or first.ndim != 1
        or not 1 <= len(first) <= n
        or first.min() < 0
        or first.max() >= total
    ):
        raise KernelInputError(f"start must be a row or rows from 0 to {total - 1}, at most n, not {start!r}")
    if len(set(first.tolist())) < len(first):
        raise KernelInputError("start names a row twice")
    norms = np.einsum("ij,ij->i", x, x, dtype=np.float64)
    nearest = np.full(total, np.inf)
    picks = np.empty(n, dtype=np.int64)
    at = np.full(n, np.inf)
    dots = np.empty((_ROWS, _MOST), dtype=x.dtype)

    def update(rows: np.ndarray) -> None:
        for p in range(0, len(rows), _MOST):
            some = rows[p : p + _MOST]
            centres = np.ascontiguousarray(x[some]).T
            for a in range(0, total, _ROWS):
                block = x[a : a + _ROWS]
                product = dots.reshape(-1)[: len(block) * len(some)].reshape(len(block), len(some))
                np.matmul(block, centres, out=product)
                _lower(product, norms, norms[some], a, nearest)

    count = len(first)
    picks[:count] = first
    for j in range(1, count):  # distances of given picks, in their order
        at[j] = np.sqrt(max(_distance(x, norms, first[:j], int(first[j])), 0.0))
    update(picks[:count])
    nearest[picks[:count]] = -np.inf
    width = 16
    while count < n:
        size = min(width, total - count)
        if size < total:
            level = np.partition(nearest, total - size)[total - size]
            farther, equal = np.flatnonzero(nearest > level), np.flatnonzero(nearest == level)
            room = size - len(farther)  # of equals the first ones, so that ties go to the lower index
            candidates = np.sort(np.concatenate([farther, equal[:room]]))
            if len(equal) > room:
                outside, outside_index = float(level), int(equal[room])
            else:
                outside, outside_index = float(np.max(nearest, where=nearest < level, initial=-np.inf)), total
        else:
            candidates, outside, outside_index = np.arange(total), -np.inf, total
        rows = np.empty(size, dtype=np.int64)
        squared = np.empty(size)
        made = _pick_among(
            np.ascontiguousarray(x[candidates]), norms[candidates], candidates, nearest[candidates],
            outside, outside_index, min(size, n - count), rows, squared,
        )  # fmt: skip
        picks[count : count + made] = rows[:made]
        at[count : count + made] = np.sqrt(np.maximum(squared[:made], 0.0))
        count += made
        update(rows[:made])
        nearest[rows[:made]] = -np.inf
        width = min(_MOST, max(16, 3 * made if made < size else 2 * size))
    nearest[picks] = 0.0
    return picks, at, np.sqrt(np.maximum(nearest, 0.0))


def _distance(x: np.ndarray, norms: np.ndarray, rows: np.ndarray, to: int) -> float:
    return float((norms[rows] + norms[to] - 2.0 * (x[rows] @ x[to])).min())

"""Similarity matrices between items, in tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from matcompute_kernels.checks import check_integer, check_positive
from matcompute_kernels.compiled import njit
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.screening.features import exp2_one, feature_matrix, local_features
from matcompute_kernels.screening.manhattan import laplacian

__all__ = ["KERNELS", "average_kernel", "kernel_matrix", "kernel_tiles", "tile_function"]

#: Kernels of feature vectors; "average" is the mean of one of them over all pairs of sites.
KERNELS = ("linear", "polynomial", "laplacian", "rbf")

_TILE = 1024
_PANEL = 4096  # rows that are multiplied at once where the result is an array in memory


@njit(cache=True, fastmath={"contract", "nsz", "nnan", "reassoc"})
def _rbf(dots: np.ndarray, left: np.ndarray, right: np.ndarray, scale: float) -> None:
    """Turn dot products into 2^(2 · scale · dot − left − right), in place; exponents above 0 count as 0."""
    double = 2.0 * scale
    for i in range(dots.shape[0]):
        row = dots[i]
        a = left[i]
        for j in range(row.shape[0]):
            x = double * row[j] - (a + right[j])
            row[j] = exp2_one(x if x < 0.0 else 0.0)


@njit(cache=True, fastmath={"contract", "nsz", "nnan", "reassoc"})
def _power(dots: np.ndarray, gamma: float, coef0: float, degree: int) -> None:
    """Turn dot products into (γ x·y + c)^degree for a whole degree, in place."""
    for i in range(dots.shape[0]):
        row = dots[i]
        if degree == 2:
            for j in range(row.shape[0]):
                base = gamma * row[j] + coef0
                row[j] = base * base
        elif degree == 3:
            for j in range(row.shape[0]):
                base = gamma * row[j] + coef0
                row[j] = base * base * base
        else:
            for j in range(row.shape[0]):
                base = gamma * row[j] + coef0
                value = base
                for _ in range(degree - 1):
                    value *= base
                row[j] = value


@njit(cache=True, fastmath={"contract", "nsz", "nnan", "reassoc"})
def _block_means(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
    """Write the mean of each block of sites, OUTPUT f8[A, B]."""
    for a in range(rows.shape[0] - 1):
        for b in range(columns.shape[0] - 1):
            total = 0.0
            for i in range(rows[a], rows[a + 1]):
                row = values[i]
                for j in range(columns[b], columns[b + 1]):
                    total += row[j]
            out[a, b] = total / ((rows[a + 1] - rows[a]) * (columns[b + 1] - columns[b]))


class tile_function:
    """Similarities between rows of two matrices: ``f(x, y)`` → [n, m].

    Parameters
    ----------
    kernel
        One of :data:`KERNELS`.
    gamma, degree, coef0
        As in scikit-learn's ``pairwise_kernels``; gamma None is 1/F.
    columns
        F.
    """

    def __init__(self, kernel: str, gamma: float | None, degree: float, coef0: float, columns: int) -> None:
        if kernel not in KERNELS:
            raise KernelInputError(f"kernel must be one of {', '.join(KERNELS)}, not {kernel!r}")
        if gamma is not None:
            check_positive(gamma=gamma)
        check_positive(degree=degree)
        self.kernel, self.degree, self.coef0 = kernel, degree, float(coef0)
        self.gamma = 1.0 / columns if gamma is None else float(gamma)

    def __call__(self, x: np.ndarray, y: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if out is None:
            out = np.empty((x.shape[0], y.shape[0]), dtype=x.dtype)
        if self.kernel == "laplacian":
            laplacian(x, y, self.gamma, out)
            return out
        np.matmul(x, y.T, out=out)
        if self.kernel == "polynomial":
            if float(self.degree).is_integer() and self.degree <= 16:
                _power(out, self.gamma, self.coef0, int(self.degree))
            else:
                np.power(self.gamma * out + self.coef0, self.degree, out=out)
        elif self.kernel == "rbf":
            scale = self.gamma / math.log(2.0)
            left = scale * np.einsum("ij,ij->i", x, x, dtype=np.float64)
            right = scale * np.einsum("ij,ij->i", y, y, dtype=np.float64)
            _rbf(out, left, right, scale)
        return out


def kernel_tiles(
    x: Any,
    y: Any = None,
    kernel: str = "linear",
    *,
    gamma: float | None = None,
    degree: float = 3,
    coef0: float = 1.0,
    tile: int = _TILE,
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield (rows, columns, similarities) tile by tile; nothing larger than tile × tile is held.

    Without ``y`` only tiles on and above the diagonal come. The array is overwritten by the next tile.
    The parameters are those of :func:`kernel_matrix`.
    """
    x = feature_matrix(x, "x")
    symmetric = y is None
    y = x if y is None else feature_matrix(y, "y", x.shape[1]).astype(x.dtype, copy=False)
    check_integer(1, 1 << 20, tile=tile)
    function = tile_function(kernel, gamma, degree, coef0, x.shape[1])
    store = np.empty(min(tile, max(len(x), 1)) * min(tile, max(len(y), 1)), dtype=x.dtype)
    for a in range(0, len(x), tile):
        rows = slice(a, min(a + tile, len(x)))
        for b in range(a if symmetric else 0, len(y), tile):
            columns = slice(b, min(b + tile, len(y)))
            n, m = rows.stop - a, columns.stop - b
            yield rows, columns, function(x[rows], y[columns], store[: n * m].reshape(n, m))


def kernel_matrix(
    x: Any,
    y: Any = None,
    kernel: str = "linear",
    *,
    gamma: float | None = None,
    degree: float = 3,
    coef0: float = 1.0,
    metric: str = "linear",
    normalize: bool | None = None,
    tile: int = _TILE,
    out: Any = None,
    backend: str = "numba",
) -> Any:
    """Return the similarity of every row of ``x`` to every row of ``y``.

    Parameters
    ----------
    x, y
        Features f8 or f4 [N, F] and [M, F]; y None: x with itself, of which half is computed. For ``"average"``: a
        list of per-structure matrices [sites, F], or a pair (matrix of all sites, ptr).
    kernel
        ``"linear"`` x·y, ``"polynomial"`` (γ x·y + c)^degree, ``"laplacian"`` exp(−γ Σ|x − y|), ``"rbf"``
        exp(−γ |x − y|²): scikit-learn's definitions; ``"average"``: mean of ``metric`` over all pairs of sites,
        dscribe's ``AverageKernel``.
    gamma
        γ, None for 1/F.
    degree, coef0
        Of the polynomial.
    metric
        Site kernel of ``"average"``.
    normalize
        Divide by √(K_ii K_jj). None: only ``"average"``, as dscribe does.
    tile
        Rows and columns of a tile.
    out
        Where to write, [N, M]: anything that takes ``out[rows, columns] = tile`` (a memory map, an HDF5 dataset), so
        that N × M is never in memory. See also :func:`kernel_tiles`.
    backend
        ``"numba"``; ``"cuda"``: the GPU, or an error; ``"auto"``: the GPU where it can do this call, else the CPU, and
        one line in the log says why (:mod:`matcompute_kernels.cuda`).

    Returns
    -------
    numpy.ndarray
        [N, M] or ``out``.

    Raises
    ------
    KernelInputError
        If features are no finite matrix (``index`` names the row) or a parameter is wrong.
    """
    from matcompute_kernels.cuda.backend import on_gpu

    if on_gpu(backend, kernel=kernel == "average", normalize=bool(normalize), out=out is not None):
        from matcompute_kernels.cuda.features import kernel_matrix as on_device

        return on_device(x, y, kernel, gamma=gamma, degree=degree, coef0=coef0, backend="cuda")
    if kernel == "average":
        if out is not None:
            raise KernelInputError("kernel='average' takes no out")
        normalize = True if normalize is None else normalize
        return average_kernel(
            x, y, metric=metric, gamma=gamma, degree=degree, coef0=coef0, normalize=normalize
        )
    check_integer(1, 1 << 20, tile=tile)
    x = feature_matrix(x, "x")
    symmetric = y is None
    y = x if y is None else feature_matrix(y, "y", x.shape[1]).astype(x.dtype, copy=False)
    if out is None:
        out = np.empty((len(x), len(y)), dtype=x.dtype)
    elif tuple(out.shape) != (len(x), len(y)):
        raise KernelInputError(f"out has shape {tuple(out.shape)}, expected {(len(x), len(y))}")
    options: dict[str, Any] = {"gamma": gamma, "degree": degree, "coef0": coef0}
    function = tile_function(kernel, columns=x.shape[1], **options)
    left = right = None
    if normalize:
        left = 1.0 / np.sqrt(_self_similarity(x, function))
        right = left if symmetric else 1.0 / np.sqrt(_self_similarity(y, function))
    plain = isinstance(out, np.ndarray) and out.flags.c_contiguous and out.dtype == x.dtype
    if plain and (kernel == "linear" or not symmetric):
        panel = len(x) if kernel == "linear" else _PANEL
        for a in range(0, len(x), max(panel, 1)):
            values = function(x[a : a + panel], y, out[a : a + panel])
            if left is not None and right is not None:
                values *= left[a : a + panel, None] * right
        return out
    for rows, columns, values in kernel_tiles(x, None if symmetric else y, kernel, tile=tile, **options):
        if left is not None and right is not None:
            values *= left[rows, None] * right[None, columns]
        out[rows, columns] = values
        if symmetric and rows != columns:
            out[columns, rows] = values.T
    return out


def average_kernel(
    x: Any,
    y: Any = None,
    *,
    metric: str = "linear",
    gamma: float | None = None,
    degree: float = 3,
    coef0: float = 1.0,
    normalize: bool = True,
) -> np.ndarray:
    """Return the mean site similarity of every two structures (see :func:`kernel_matrix`), f8[N, M]."""
    sites, ptr = local_features(x, "x")
    symmetric = y is None
    others, other_ptr = (sites, ptr) if y is None else local_features(y, "y")
    if others.shape[1] != sites.shape[1] and len(other_ptr) > 1:
        raise KernelInputError(f"y has {others.shape[1]} columns where x has {sites.shape[1]}")
    function = tile_function(metric, gamma, degree, coef0, sites.shape[1])
    if metric == "linear":  # the mean of dot products is the dot product of the means
        left = np.add.reduceat(sites, ptr[:-1]) / np.diff(ptr)[:, None] if len(ptr) > 1 else sites
        right = left if symmetric else np.add.reduceat(others, other_ptr[:-1]) / np.diff(other_ptr)[:, None]
        out = left @ right.T
        norms = np.einsum("ij,ij->i", left, left), np.einsum("ij,ij->i", right, right)
    else:
        out = np.empty((len(ptr) - 1, len(other_ptr) - 1))
        for a0, a1 in site_chunks(ptr):
            for b0, b1 in site_chunks(other_ptr):
                if symmetric and b1 <= a0:
                    continue
                values = function(sites[ptr[a0] : ptr[a1]], others[other_ptr[b0] : other_ptr[b1]])
                block = np.empty((a1 - a0, b1 - b0))
                _block_means(
                    values, ptr[a0 : a1 + 1] - ptr[a0], other_ptr[b0 : b1 + 1] - other_ptr[b0], block
                )
                out[a0:a1, b0:b1] = block
                if symmetric:
                    out[b0:b1, a0:a1] = block.T
        norms = _self_means(sites, ptr, function), None
        norms = (norms[0], norms[0] if symmetric else _self_means(others, other_ptr, function))
    if normalize:
        out /= np.sqrt(np.outer(*norms))
    return out


def site_chunks(ptr: np.ndarray, most: int = _TILE) -> list[tuple[int, int]]:
    """Return ranges of structures with at most ``most`` sites (one structure at least)."""
    chunks, first = [], 0
    for i in range(1, len(ptr)):
        if i > first + 1 and ptr[i] - ptr[first] > most:
            chunks.append((first, i - 1))
            first = i - 1
    if len(ptr) > 1:
        chunks.append((first, len(ptr) - 1))
    return chunks


def _self_means(sites: np.ndarray, ptr: np.ndarray, function: tile_function) -> np.ndarray:
    means = [function(sites[a:b], sites[a:b]).mean() for a, b in pairwise(ptr.tolist())]
    return np.array(means)


def _self_similarity(x: np.ndarray, function: tile_function) -> np.ndarray:
    if function.kernel in ("rbf", "laplacian"):
        return np.ones(len(x), dtype=x.dtype)
    dots = np.einsum("ij,ij->i", x, x)
    if function.kernel == "linear":
        return dots
    return (function.gamma * dots + function.coef0) ** function.degree

"""Kernel tiles, nearest neighbours and farthest-point sampling of feature matrices on a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from matcompute_kernels.checks import check_integer, check_positive
from matcompute_kernels.cuda.device import Device, chosen_device
from matcompute_kernels.cuda.launch import launch
from matcompute_kernels.cuda.pipeline import run_chunks
from matcompute_kernels.cuda.planner import Plan, plan_chunks
from matcompute_kernels.errors import KernelInputError
from matcompute_kernels.screening.features import feature_matrix

__all__ = ["fps", "kernel_matrix", "knn"]

#: KIND of tile.cu.
_KINDS = {"linear": 0, "polynomial": 1, "laplacian": 2, "rbf": 3, "euclidean": 4, "manhattan": 5}
_SIDE = 32
#: Rows of fps_update.cu's blocks.
_ROWS = 64
#: Neighbours whose list a thread keeps in registers.
MOST_NEIGHBORS = 64


def kernel_matrix(
    x: Any,
    y: Any = None,
    kernel: str = "linear",
    *,
    gamma: float | None = None,
    degree: float = 3,
    coef0: float = 1.0,
    backend: str = "auto",
    device: Device | None = None,
) -> np.ndarray:
    """Similarity of every row of x to every row of y; definitions of :func:`matcompute_kernels.kernel_matrix`.

    Sums are in float64 for either type. ``backend`` and ``device`` as in :func:`matcompute_kernels.cuda.rdf`.

    Returns
    -------
    ndarray
        [N, M], of the type of x.

    Raises
    ------
    KernelInputError
        If features are no finite matrix or a parameter is wrong.
    CudaError
        If CUDA is asked for and cannot be used.
    """
    chosen = chosen_device(backend, device)
    if chosen is None:
        from matcompute_kernels.screening.kernel_matrix import kernel_matrix as on_cpu

        return np.asarray(on_cpu(x, y, kernel, gamma=gamma, degree=degree, coef0=coef0))
    if kernel not in ("linear", "polynomial", "laplacian", "rbf"):
        raise KernelInputError(
            f"kernel must be linear, polynomial, laplacian or rbf on a GPU, not {kernel!r}"
        )
    left = feature_matrix(x, "x")
    right = left if y is None else feature_matrix(y, "y", left.shape[1]).astype(left.dtype, copy=False)
    gamma = 1.0 / left.shape[1] if gamma is None else gamma
    check_positive(gamma=gamma, degree=degree)
    out = np.empty((len(left), len(right)), left.dtype)
    plan = _row_plan(left, right.shape[0] * right.itemsize, right.nbytes, chosen)
    device_right = chosen.put(right)

    def start(first: int, last: int) -> Callable[[], None]:
        values = _tile(left[first:last], device_right, kernel, (gamma, degree, coef0), chosen)

        def fetch() -> None:
            out[first:last] = chosen.get(values)

        return fetch

    run_chunks(plan, chosen, start)
    return out


def knn(
    features: Any,
    k: int,
    *,
    queries: Any = None,
    metric: str = "euclidean",
    backend: str = "auto",
    device: Device | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest rows to each query; definition of :func:`matcompute_kernels.knn`, at most 64 neighbours.

    Distances come from differences, summed in float64; for float32 features they are then rounded to float32.
    ``backend`` and ``device`` as in :func:`matcompute_kernels.cuda.rdf`.

    Returns
    -------
    distances : ndarray
        f8[Q, k], rising.
    indices : ndarray
        i8[Q, k]; of equal distances the lower row first.

    Raises
    ------
    KernelInputError
        If features are no finite matrix, or k exceeds the rows there are.
    CudaError
        If CUDA is asked for and cannot be used.
    """
    chosen = chosen_device(backend, device)
    if chosen is None:
        from matcompute_kernels.screening.knn import knn as on_cpu

        return on_cpu(features, k, queries=queries, metric=metric)
    x = feature_matrix(features)
    own = queries is None
    q = x if own else feature_matrix(queries, "queries", x.shape[1]).astype(x.dtype, copy=False)
    if metric not in ("euclidean", "manhattan"):
        raise KernelInputError(f"metric must be euclidean or manhattan on a GPU, not {metric!r}")
    check_integer(1, MOST_NEIGHBORS, k=k)
    if len(x) - own < k:
        raise KernelInputError(f"k={k} neighbours of {len(x)} rows")
    distances, indices = np.empty((len(q), k)), np.empty((len(q), k), np.int64)
    plan = _row_plan(q, len(x) * x.itemsize + 16 * k, x.nbytes, chosen)
    device_x = chosen.put(x)

    def start(first: int, last: int) -> Callable[[], None]:
        scores = _tile(q[first:last], device_x, metric, (1.0, 1.0, 0.0), chosen)
        value, column = chosen.empty((last - first, k), np.float64), chosen.empty((last - first, k), np.int64)
        skip = np.int64(first if own else -1)
        launch(
            "lowest",
            last - first,
            [scores, np.int32(len(x)), skip, value, column],
            real=x.dtype,
            constants={"K": k},
            device=chosen,
        )

        def fetch() -> None:
            distances[first:last] = chosen.get(value)
            indices[first:last] = chosen.get(column)

        return fetch

    run_chunks(plan, chosen, start)
    return (np.sqrt(distances) if metric == "euclidean" else distances), indices


def fps(
    features: Any, n: int, *, start: int = 0, backend: str = "auto", device: Device | None = None
) -> np.ndarray:
    """Return the rows that farthest-point sampling picks; definition of :func:`matcompute_kernels.fps`, one start.

    The picks stay on the device until the last one is made. ``backend`` and ``device`` as in
    :func:`matcompute_kernels.cuda.rdf`.

    Returns
    -------
    ndarray
        i8[n].

    Raises
    ------
    KernelInputError
        If features are no finite matrix, n or start is out of range, or the features do not fit into the device.
    CudaError
        If CUDA is asked for and cannot be used.
    """
    chosen = chosen_device(backend, device)
    if chosen is None:
        from matcompute_kernels.screening.fps import fps as on_cpu

        return on_cpu(features, n, start=start)
    x = feature_matrix(features)
    check_integer(1, max(len(x), 1), n=n)
    check_integer(0, max(len(x) - 1, 0), start=start)
    blocks = -(-len(x) // _ROWS)
    plan_chunks(np.array([x.nbytes]), chosen.free_bytes(), fixed=8 * (len(x) + n) + 16 * blocks, buffers=1)
    data = chosen.put(x)
    picks = chosen.put(np.full(n, start, np.int64))
    nearest = chosen.put(np.full(len(x), 1e300))
    value, row = chosen.empty(blocks, np.float64), chosen.empty(blocks, np.int64)
    for pick in range(n - 1):
        launch(
            "fps_update",
            blocks,
            [data, np.int32(len(x)), np.int32(x.shape[1]), picks, np.int32(pick), nearest, value, row],
            real=x.dtype,
            device=chosen,
        )
        launch(
            "fps_pick",
            1,
            [value, row, np.int32(blocks), np.int32(pick + 1), picks],
            real=x.dtype,
            device=chosen,
        )
    return chosen.get(picks)


def _row_plan(left: np.ndarray, row: int, fixed: int, device: Device) -> Plan:
    """Chunks of rows of ``left``, each with its row of results, beside ``fixed`` bytes that are not sent yet.

    A launch takes at most 65,535 tiles of rows.
    """
    sizes = np.full(len(left), left.shape[1] * left.itemsize + row, np.int64)
    return plan_chunks(sizes, device.free_bytes(), fixed=fixed, most=65535 * _SIDE)


def _tile(
    rows: np.ndarray, right: Any, kind: str, numbers: tuple[float, float, float], device: Device
) -> Any:
    n, width = rows.shape
    m = right.shape[0]
    out = device.empty((n, m), rows.dtype)
    launch(
        "tile",
        (-(-m // _SIDE), -(-n // _SIDE)),
        [
            *(device.put(rows), right, np.int32(n), np.int32(m), np.int32(width)),
            *map(np.float64, numbers),
            out,
        ],
        block=(16, 16),
        real=rows.dtype,
        constants={"KIND": _KINDS[kind]},
        device=device,
    )
    return out

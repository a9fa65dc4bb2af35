from __future__ import annotations

import numpy as np
import pytest

from matcompute_kernels import KernelInputError, fps, kernel_matrix, knn
from matcompute_kernels.cuda import fps as device_fps
from matcompute_kernels.cuda import kernel_matrix as device_matrix
from matcompute_kernels.cuda import knn as device_knn

#: Rows and columns around the limits of tiles, warps and blocks.
SIZES = [(1, 1, 1), (31, 33, 16), (32, 32, 17), (65, 40, 5)]
BOUND = {"f8": 1e-10, "f4": 2e-6}


@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [("linear", "f8"), ("polynomial", "f8"), ("laplacian", "f8"), ("rbf", "f8"), ("rbf", "f4")],
)
def test_kernel_matrix(emulator, way, kernel, dtype):
    device = emulator(*way)
    rng = np.random.default_rng(4)
    for n, m, width in SIZES if dtype == "f8" else SIZES[-1:]:
        x, y = rng.normal(size=(n, width)).astype(dtype), rng.normal(size=(m, width)).astype(dtype)
        options = {"kernel": kernel, "gamma": 0.1 / width, "degree": 2.5 if m == 40 else 3, "coef0": 30.0}
        got = device_matrix(x, y, **options, device=device)
        expected = kernel_matrix(x.astype("f8"), y.astype("f8"), **options)
        assert got.dtype == np.dtype(dtype)
        assert np.abs(got - expected).max() <= BOUND[dtype] * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize(("metric", "dtype"), [("euclidean", "f8"), ("manhattan", "f8"), ("euclidean", "f4")])
def test_knn(emulator, way, metric, dtype):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(150, 9)).astype(dtype)
    q = rng.normal(size=(5, 9)).astype(dtype)
    device = emulator(*way, free=20_000)  # in chunks
    for queries in (None, q):
        rows = x[:40] if queries is None else x
        distances, indices = device_knn(rows, 7, queries=queries, metric=metric, device=device)
        expected, expected_indices = knn(rows.astype("f8"), 7, queries=queries, metric=metric)
        assert (indices == expected_indices).all()
        assert np.abs(distances - expected).max() < BOUND[dtype] * 10


def test_kernel_matrix_in_chunks(emulator):
    x = np.random.default_rng(4).normal(size=(65, 5))
    few = device_matrix(x, kernel="linear", device=emulator("shuffled", free=20_000))
    np.testing.assert_allclose(few, x @ x.T, rtol=0, atol=1e-10)


def test_knn_of_equal_rows(emulator, way):
    x = np.repeat(np.arange(3.0), 50)[:, None]
    distances, indices = device_knn(x, 7, device=emulator(*way))
    assert not distances.any()
    assert indices[60].tolist() == list(range(50, 57))
    assert indices[51].tolist() == [50, 52, 53, 54, 55, 56, 57]


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_fps(emulator, way, dtype):
    rng = np.random.default_rng(2)
    for rows, width in ((1, 3), (64, 33), (130, 70)):
        x = rng.normal(size=(rows, width)).astype(dtype)
        n, start = min(rows, 12), rows // 2
        assert (
            device_fps(x, n, start=start, device=emulator(*way)).tolist() == fps(x, n, start=start).tolist()
        )


def test_fps_of_equal_distances(emulator):
    grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), -1).reshape(-1, 3)
    x = np.concatenate([grid, grid])
    assert device_fps(x, 30, device=emulator("shuffled")).tolist() == fps(x, 30).tolist()


def test_bad_input(emulator):
    device = emulator()
    x = np.random.default_rng(0).normal(size=(5, 2))
    for call, text in [
        (lambda: device_knn(x, 5, device=device), "k=5 neighbours of 5 rows"),
        (lambda: device_knn(x, 65, device=device), "k must be an integer from 1 to 64"),
        (lambda: device_knn(x, 1, metric="cosine", device=device), "metric must be"),
        (lambda: device_matrix(x, kernel="average", device=device), "kernel must be"),
        (lambda: device_matrix(x, x[:, :1], device=device), "y has 1 columns"),
        (lambda: device_fps(x, 6, device=device), "n must"),
        (lambda: device_fps(x, 2, start=9, device=device), "start must"),
        (lambda: device_fps(x, 2, device=emulator(free=100)), "bytes"),
    ]:
        with pytest.raises(KernelInputError, match=text):
            call()


def test_on_the_cpu():
    x = np.random.default_rng(0).normal(size=(30, 4))
    assert (device_fps(x, 5, backend="numba") == fps(x, 5)).all()
    assert (device_knn(x, 3, backend="numba")[1] == knn(x, 3)[1]).all()
    assert (device_matrix(x, kernel="rbf", backend="numba") == kernel_matrix(x, kernel="rbf")).all()

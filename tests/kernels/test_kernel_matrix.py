"""Similarity matrices against their formulae and dscribe's average kernel."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from matcompute_kernels import KernelInputError, kernel_matrix
from matcompute_kernels.screening.features import exp_in_place
from matcompute_kernels.screening.kernel_matrix import kernel_tiles

PEERS = Path(__file__).parent / "data" / "screening_peers.npz"
SITE_KERNELS = {
    "linear": {},
    "rbf": {"gamma": 0.7},
    "polynomial": {"degree": 2, "gamma": 0.5, "coef0": 0.3},
    "laplacian": {"gamma": 0.2},
}


def plain(x: np.ndarray, y: np.ndarray, kernel: str, gamma: float) -> np.ndarray:
    if kernel == "linear":
        return x @ y.T
    if kernel == "polynomial":
        return (gamma * x @ y.T + 1) ** 3
    if kernel == "rbf":
        return np.exp(-gamma * cdist(x, y, "sqeuclidean"))
    return np.exp(-gamma * cdist(x, y, "cityblock"))


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "rbf", "laplacian"])
@pytest.mark.parametrize("tile", [7, 64, 1024])
def test_formulae(kernel: str, tile: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(101, 13)), rng.normal(size=(83, 13))
    for gamma in (None, 0.3):
        g = 1 / 13 if gamma is None else gamma
        options = {"gamma": gamma, "tile": tile}
        for other in (y, None):
            expected = plain(x, x if other is None else other, kernel, g)
            np.testing.assert_allclose(
                kernel_matrix(x, other, kernel, **options), expected, rtol=1e-11, atol=1e-12
            )
            into = np.zeros(expected.shape, order="F")  # not contiguous: through tiles
            assert kernel_matrix(x, other, kernel, out=into, **options) is into
            np.testing.assert_allclose(into, expected, rtol=1e-11, atol=1e-12)
        whole = np.zeros((101, 101))
        for rows, columns, values in kernel_tiles(x, None, kernel, **options):
            assert values.shape[0] <= tile
            assert values.shape[1] <= tile
            whole[rows, columns] = values
        upper = np.triu_indices(101)
        np.testing.assert_allclose(whole[upper], plain(x, x, kernel, g)[upper], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "rbf", "laplacian"])
@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_no_rows(kernel: str, n: int, m: int) -> None:
    assert kernel_matrix(np.zeros((n, 4)), np.zeros((m, 4)), kernel).shape == (n, m)


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "rbf", "laplacian"])
@pytest.mark.parametrize("columns", [7, 600])
def test_with_itself_is_symmetric_to_the_last_bit(kernel: str, columns: int) -> None:
    x = np.random.default_rng(3).normal(size=(137, columns))
    own = kernel_matrix(x, kernel=kernel)
    np.testing.assert_array_equal(own, own.T)
    if kernel == "laplacian":
        np.testing.assert_array_equal(np.diagonal(own), 1.0)


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "rbf", "laplacian"])
def test_normalized_and_float32(kernel: str) -> None:
    rng = np.random.default_rng(1)
    x, y = np.abs(rng.normal(size=(40, 9))), np.abs(rng.normal(size=(30, 9)))
    own = kernel_matrix(x, kernel=kernel, normalize=True)
    np.testing.assert_allclose(np.diagonal(own), 1, rtol=1e-12)
    cross = kernel_matrix(x, y, kernel, normalize=True)
    single = kernel_matrix(x.astype("f4"), y.astype("f4"), kernel, normalize=True)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, cross, rtol=2e-5)


def test_fractional_degree() -> None:
    x = np.abs(np.random.default_rng(1).normal(size=(10, 4)))
    ours = kernel_matrix(x, kernel="polynomial", degree=2.5, gamma=1.0)
    np.testing.assert_allclose(ours, (x @ x.T + 1) ** 2.5, rtol=1e-12)


@pytest.mark.parametrize("metric", list(SITE_KERNELS))
def test_average_is_dscribes(metric: str) -> None:
    with np.load(PEERS) as data:
        rows, ptr = data["site_rows"], data["site_ptr"]
        sets = [rows[a:b] for a, b in pairwise(ptr)]
        options = {"metric": metric, **SITE_KERNELS[metric]}
        whole = data[f"average_{metric}"]
        np.testing.assert_allclose(
            kernel_matrix(sets, None, "average", **options), whole, rtol=1e-10, atol=1e-12
        )
        np.testing.assert_allclose(
            kernel_matrix((rows, ptr), kernel="average", **options), whole, rtol=1e-10, atol=1e-12
        )
        cross = kernel_matrix(sets[:2], sets[2:], "average", normalize=False, **options)
        np.testing.assert_allclose(cross, data[f"average_{metric}_cross"], rtol=1e-10, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-700, 700), min_size=1, max_size=40))
def test_exponential(values: list[float]) -> None:
    x = np.array(values)
    expected = np.exp(x)
    exp_in_place(x)
    np.testing.assert_allclose(x, expected, rtol=5e-16)


def test_bad_input() -> None:
    x = np.ones((4, 3))
    broken = x.copy()
    broken[2, 1] = np.nan
    with pytest.raises(KernelInputError) as error:
        kernel_matrix(broken)
    assert error.value.index == 2
    with pytest.raises(KernelInputError, match="columns"):
        kernel_matrix(x, np.ones((4, 2)))
    with pytest.raises(KernelInputError, match="kernel must be"):
        kernel_matrix(x, kernel="cosine")
    with pytest.raises(KernelInputError, match="gamma"):
        kernel_matrix(x, kernel="rbf", gamma=-1)
    with pytest.raises(KernelInputError, match="numbers"):
        kernel_matrix([["a"]])
    with pytest.raises(KernelInputError, match="out has shape"):
        kernel_matrix(x, out=np.zeros((3, 3)))
    with pytest.raises(KernelInputError, match="structure 1"):
        kernel_matrix([x, np.zeros((0, 3))], kernel="average")
    assert kernel_matrix(np.zeros((0, 3))).shape == (0, 0)

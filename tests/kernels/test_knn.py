"""Nearest neighbours against a full distance matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from matcompute_kernels import KernelInputError, knn

NAMES = {"euclidean": "euclidean", "manhattan": "cityblock", "cosine": "cosine"}


@pytest.mark.parametrize("metric", list(NAMES))
@pytest.mark.parametrize(("rows", "queries"), [(1500, 700), (40, 3)])
def test_full_matrix(metric: str, rows: int, queries: int) -> None:
    rng = np.random.default_rng(rows)
    x, q = rng.normal(size=(rows, 11)), rng.normal(size=(queries, 11))
    distances, indices = knn(x, 6, queries=q, metric=metric)
    full = cdist(q, x, NAMES[metric])
    np.testing.assert_array_equal(indices, np.argsort(full, axis=1)[:, :6])
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :6], rtol=1e-10)
    own, names = knn(x, 4, metric=metric)
    full = cdist(x, x, NAMES[metric])
    np.fill_diagonal(full, np.inf)
    np.testing.assert_array_equal(names, np.argsort(full, axis=1)[:, :4])
    np.testing.assert_allclose(own, np.sort(full, axis=1)[:, :4], rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60))
def test_many_equal_rows(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, size=(rows, 2)).astype(float)
    k = int(rng.integers(1, rows))
    distances, indices = knn(x, k)
    full = cdist(x, x)
    np.fill_diagonal(full, np.inf)
    np.testing.assert_allclose(distances, np.sort(full, axis=1)[:, :k], atol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(full, indices, 1), distances, atol=1e-12)
    assert all(len(set(row)) == k for row in indices.tolist())


def test_small_distances_far_from_the_origin() -> None:
    x = 1e4 + np.random.default_rng(0).normal(size=(200, 5)) * 1e-2
    distances, _ = knn(x, 3)
    full = cdist(x, x)
    np.fill_diagonal(full, np.inf)
    assert np.abs(distances[:, 0] / full.min(axis=1) - 1).max() < 1e-2


def test_float32() -> None:
    x = np.random.default_rng(0).normal(size=(300, 6))
    assert np.array_equal(knn(x.astype("f4"), 5)[1], knn(x, 5)[1])


def test_bad_input() -> None:
    x = np.ones((4, 2))
    with pytest.raises(KernelInputError, match="k"):
        knn(x, 4)
    with pytest.raises(KernelInputError, match="k"):
        knn(x, 0)
    with pytest.raises(KernelInputError, match="metric"):
        knn(x, 1, metric="edit")
    with pytest.raises(KernelInputError, match="queries has 3 columns"):
        knn(x, 1, queries=np.ones((2, 3)))
    with pytest.raises(KernelInputError, match="row of zeros"):
        knn(x, 1, queries=np.zeros((2, 2)), metric="cosine")

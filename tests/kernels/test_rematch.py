"""REMatch against dscribe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcompute_kernels import KernelInputError, kernel_matrix, rematch

PEERS = Path(__file__).parent / "data" / "screening_peers.npz"


def site_sets() -> list[np.ndarray]:
    with np.load(PEERS) as data:
        return np.split(data["site_rows"], data["site_ptr"][1:-1])


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        ("linear", {}),
        ("rbf", {"gamma": 0.7}),
        ("polynomial", {"degree": 2, "gamma": 0.5, "coef0": 0.3}),
        ("laplacian", {"gamma": 0.2}),
    ],
)
def test_peer(metric: str, options: dict) -> None:
    sets = site_sets()
    with np.load(PEERS) as data:
        np.testing.assert_allclose(
            rematch(sets, metric=metric, **options), data[f"rematch_{metric}"], rtol=1e-10
        )
        cross = rematch(sets[:2], sets[2:], metric=metric, normalize=False, **options)
        np.testing.assert_allclose(cross, data[f"rematch_{metric}_cross"], rtol=1e-10, atol=1e-12)
        if metric == "rbf":
            soft = rematch(sets, metric=metric, alpha=1.5, **options)
            np.testing.assert_allclose(soft, data["rematch_alpha"], rtol=1e-10)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_limits_and_symmetry(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sets = [rng.normal(size=(rng.integers(1, 7), 4)) for _ in range(3)]
    sets = [s / np.linalg.norm(s, axis=1, keepdims=True) for s in sets]
    ours = rematch(sets)
    np.testing.assert_allclose(ours, ours.T)
    np.testing.assert_allclose(np.diagonal(ours), 1)
    order = [s[rng.permutation(len(s))] for s in sets]
    np.testing.assert_allclose(rematch(order), ours, rtol=1e-6)
    soft = rematch(sets, alpha=1e6, normalize=False)
    average = kernel_matrix(sets, kernel="average", normalize=False)
    np.testing.assert_allclose(soft, average, atol=1e-4)


def test_chunks_of_sites_give_the_same() -> None:
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(200, 3)) for _ in range(9)]  # more than a tile of sites
    whole = rematch(sets, metric="rbf", gamma=0.1)
    assert whole[0, 8] == pytest.approx(rematch([sets[0], sets[8]], metric="rbf", gamma=0.1)[0, 1], rel=1e-12)


def test_bad_input() -> None:
    sets = site_sets()
    with pytest.raises(KernelInputError, match="alpha"):
        rematch(sets, alpha=0)
    with pytest.raises(KernelInputError, match="normalise the features"):
        rematch([sets[0] * 1e3, sets[1] * 1e3])
    broken = sets[1].copy()
    broken[0, 0] = np.nan
    with pytest.raises(KernelInputError) as error:
        rematch([sets[0], broken])
    assert error.value.index == 1
    with pytest.raises(KernelInputError, match="columns"):
        rematch(sets, [np.ones((2, 5))])
    assert rematch([]).shape == (0, 0)

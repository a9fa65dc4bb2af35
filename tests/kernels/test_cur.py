"""CUR selection against skmatter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcompute_kernels import KernelInputError, cur

PEERS = Path(__file__).parent / "data" / "screening_peers.npz"


@pytest.mark.parametrize(
    ("name", "n", "options"),
    [
        ("cur", 15, {}),
        ("cur_k3", 15, {"k": 3}),
        ("cur_0", 15, {"recompute_every": 0}),
        ("cur_features", 10, {"axis": 1}),
    ],
)
def test_peer(name: str, n: int, options: dict) -> None:
    with np.load(PEERS) as data:
        assert cur(data["features"], n, **options).tolist() == data[name].tolist()


def test_peer_with_more_columns_than_rows() -> None:
    with np.load(PEERS) as data:
        assert cur(data["features"][:15], 8).tolist() == data["cur_wide"].tolist()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_plain_deflation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rng.integers(6, 40), rng.integers(4, 15))) * rng.uniform(0.2, 2)
    n = int(rng.integers(1, 4))
    rest, picks = x.copy(), []
    for _ in range(n):
        left = np.linalg.svd(rest, full_matrices=False)[0][:, 0] ** 2
        left[picks] = -1
        picks.append(int(np.argmax(left)))
        unit = rest[picks[-1]] / np.linalg.norm(rest[picks[-1]])
        rest = rest - np.outer(rest @ unit, unit)
    assert cur(x, n).tolist() == picks


def test_more_picks_than_rank() -> None:
    x = np.outer(np.arange(1.0, 9.0), [1.0, 2.0, 3.0])
    assert sorted(cur(x, 8).tolist()) == list(range(8))


def test_bad_input() -> None:
    with pytest.raises(KernelInputError, match="n must"):
        cur(np.ones((3, 3)), 4)
    with pytest.raises(KernelInputError, match="k must"):
        cur(np.ones((3, 3)), 2, k=3)
    with pytest.raises(KernelInputError, match="axis"):
        cur(np.ones((3, 3)), 2, axis=2)

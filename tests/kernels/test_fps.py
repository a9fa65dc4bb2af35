"""Farthest-point sampling against skmatter and a plain search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcompute_kernels import KernelInputError, fps
from matcompute_kernels.screening.fps import fps_distances

PEERS = Path(__file__).parent / "data" / "screening_peers.npz"


def plain(x: np.ndarray, n: int, start: int) -> list[int]:
    picks = [start]
    nearest = ((x - x[start]) ** 2).sum(axis=1)
    while len(picks) < n:
        nearest[picks] = -1
        picks.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, ((x - x[picks[-1]]) ** 2).sum(axis=1))
    return picks


def test_peer() -> None:
    with np.load(PEERS) as data:
        assert fps(data["features"], 60, start=7).tolist() == data["fps"].tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 300), st.integers(1, 12))
def test_plain_search(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    n, start = int(rng.integers(1, rows + 1)), int(rng.integers(rows))
    assert fps(x, n, start=start).tolist() == plain(x, n, start)


def test_equal_distances_and_duplicates() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3), -1).reshape(-1, 3)
    x = np.concatenate([grid, grid])
    assert fps(x, 125).tolist() == plain(x, 125, 0)
    everything = fps(x, 250)
    assert sorted(everything.tolist()) == list(range(250))


def test_distances_and_several_starts() -> None:
    x = np.random.default_rng(4).normal(size=(500, 8))
    picks, at, nearest = fps_distances(x, 50, start=[3, 9])
    assert picks[:2].tolist() == [3, 9]
    assert np.isinf(at[0])
    assert np.all(np.diff(at[2:]) <= 1e-12)
    all_distances = np.linalg.norm(x[:, None] - x[picks][None], axis=2)
    np.testing.assert_allclose(nearest, all_distances.min(axis=1), atol=1e-6)
    assert at[5] == pytest.approx(all_distances[picks[5], :5].min())
    assert fps(x.astype("f4"), 50, start=[3, 9]).tolist() == picks.tolist()


def test_bad_input() -> None:
    x = np.zeros((5, 2))
    for n in (0, 6, 2.5):
        with pytest.raises(KernelInputError, match="n must"):
            fps(x, n)
    for start in (5, -1, [0, 0], "random"):
        with pytest.raises(KernelInputError, match="start"):
            fps(x, 3, start=start)
    x[3] = np.inf
    with pytest.raises(KernelInputError) as error:
        fps(x, 2)
    assert error.value.index == 3

"""Pareto fronts against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcompute_kernels import KernelInputError, pareto_front


def by_definition(x: np.ndarray) -> np.ndarray:
    no_worse = (x[:, None] <= x[None]).all(axis=2)
    better = (x[:, None] < x[None]).any(axis=2)
    return ~(no_worse & better).any(axis=0)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(1, 5), st.booleans())
def test_definition(seed: int, rows: int, columns: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, (rows, columns)).astype(float) if coarse else rng.normal(size=(rows, columns))
    np.testing.assert_array_equal(pareto_front(x), by_definition(x))
    flags = rng.random(columns) < 0.5
    expected = by_definition(np.where(flags, -x, x))
    np.testing.assert_array_equal(pareto_front(x, flags.tolist()), expected)


def test_ranks_peel_front_after_front() -> None:
    x = np.random.default_rng(0).normal(size=(200, 3))
    ranks = pareto_front(x, fronts=3)
    rest = np.arange(200)
    for rank in range(3):
        front = by_definition(x[rest])
        np.testing.assert_array_equal(np.flatnonzero(ranks == rank), rest[front])
        rest = rest[~front]
    assert (ranks[rest] == -1).all()
    assert pareto_front(x, fronts=1000).min() == 0


def test_bad_input() -> None:
    with pytest.raises(KernelInputError) as error:
        pareto_front([[0.0, 1.0], [np.nan, 0.0]])
    assert error.value.index == 1
    with pytest.raises(KernelInputError, match="maximize"):
        pareto_front([[0.0, 1.0]], [True, False, True])
    with pytest.raises(KernelInputError, match="fronts"):
        pareto_front([[0.0, 1.0]], fronts=0)

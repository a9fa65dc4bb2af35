"""Batches: everything once, equal work, no core idle, overhead bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcompute.campaign.batches import MAX_BATCH_SIZE, batch_count, choose_batches

COSTS = st.lists(st.floats(0, 1e4), min_size=1, max_size=300)


@settings(max_examples=200, deadline=None)
@given(
    costs=COSTS, batch_size=st.none() | st.integers(1, 50), cores=st.integers(1, 64), each=st.integers(1, 8)
)
def test_every_structure_is_in_one_batch(
    costs: list[float], batch_size: int | None, cores: int, each: int
) -> None:
    batches = choose_batches(costs, batch_size=batch_size, cores=cores, cores_per_batch=each)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(costs)))
    assert all(np.all(np.diff(rows) > 0) for rows in batches)
    if batch_size is not None:
        assert max(map(len, batches)) <= batch_size
        assert len(batches) == -(-len(costs) // batch_size)
    again = choose_batches(costs, batch_size=batch_size, cores=cores, cores_per_batch=each)
    assert [rows.tolist() for rows in batches] == [rows.tolist() for rows in again]


@settings(max_examples=100, deadline=None)
@given(costs=COSTS, count=st.integers(1, 20))
def test_work_is_balanced(costs: list[float], count: int) -> None:
    """Graham's bound: no batch is longer than the mean plus the longest structure."""
    batches = choose_batches(costs, count=count)
    work = [float(np.sum(np.asarray(costs)[rows])) for rows in batches]
    assert max(work) <= sum(costs) / count + max(costs) + 1e-6


def test_balanced_by_cost_not_by_number() -> None:
    costs = np.array([100.0] + [1.0] * 100)
    big, small = choose_batches(costs, count=2)
    assert {len(big), len(small)} == {1, 100}


@pytest.mark.parametrize(
    ("total", "n", "cores", "each", "expected"),
    [
        (100.0, 1000, 2, 1, 5),  # 20 s of work each at least: AiiDA's second stays below 5 %
        (3.0, 1000, 2, 1, 1),  # too little to share
        (8.0, 1000, 2, 1, 2),  # little, but worth both cores
        (1000.0, 1000, 2, 1, 6),  # three a core
        (36_000.0, 10_000, 2, 1, 80),  # 7.5 min each
        (36_000.0, 10_000, 64, 8, 24),  # 8 batches at a time, three rounds
        (1e6, 7, 64, 1, 7),  # never more batches than structures
        (10.0, 100_000, 1, 1, 10),  # a shard has an upper size
        (0.0, 5, 2, 1, 1),
        (0.0, 0, 2, 1, 0),
    ],
)
def test_counts(total: float, n: int, cores: int, each: int, expected: int) -> None:
    assert batch_count(total, n, cores=cores, cores_per_batch=each) == expected


def test_size_limits() -> None:
    assert batch_count(1.0, 100, batch_size=30) == 4
    assert max(map(len, choose_batches(np.zeros(25_000)))) <= MAX_BATCH_SIZE
    assert choose_batches([]) == []
    with pytest.raises(ValueError, match="finite"):
        choose_batches([1.0, np.nan])


def test_a_hundred_thousand_are_cut_quickly() -> None:
    import time

    costs = np.random.default_rng(1).uniform(1, 100, 100_000)
    start = time.process_time()
    batches = choose_batches(costs, cores=64)
    assert time.process_time() - start < 5
    work = np.array([costs[rows].sum() for rows in batches])
    assert work.max() / work.min() < 1.03

"""Limits: how many more jobs a centre may get, and what says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcompute.centres import Centre
from matcompute.centres.limits import Load, backoff_s, partition_room, room

NOW = 1_000_000.0


def centre(**scheduler: object) -> Centre:
    return Centre.model_validate(
        {
            "schema": "matcompute.centre/v1",
            "centre": {"id": "here"},
            "scheduler": {"max_submitted": 10, **scheduler},
            "partitions": [
                {"name": "cpu", "cores": 4, "mem_gb": 8, "max_jobs": 3},
                {"name": "x", "cores": 1, "mem_gb": 1},
            ],
        }
    )


def test_the_window() -> None:
    found = room(centre(), Load(in_flight=4), now=NOW)
    assert found.count == 6
    assert room(centre(), Load(in_flight=12), now=NOW).count == 0
    assert "12 of 10 batches" in room(centre(), Load(in_flight=12), now=NOW).limit


def test_the_whole_queue_of_the_user_counts() -> None:
    """Seven listed, two of them ours then; meanwhile we have four: five of somebody else's, nine of eleven in all."""
    load = Load(in_flight=4, user_jobs=7, in_flight_then=2)
    found = room(centre(max_user_jobs=11), load, now=NOW)
    assert found.count == 2
    assert "you have 9 of 11 jobs there, 5 not from here" in found.limit


def test_submissions_in_a_minute() -> None:
    recent = [NOW - 70, NOW - 50, NOW - 20, NOW - 1]
    found = room(centre(submit_per_min=3), Load(recent=recent), now=NOW)
    assert found.count == 0
    assert found.wait_s == pytest.approx(10.0), "then the one of 50 s ago does not count any more"
    assert room(centre(submit_per_min=3), Load(recent=recent[:3]), now=NOW).count == 1


def test_less_than_one_in_a_minute() -> None:
    found = room(centre(submit_per_min=0.5), Load(recent=[NOW - 100]), now=NOW)
    assert (found.count, found.wait_s) == (0, pytest.approx(20.0))
    assert room(centre(submit_per_min=0.5), Load(recent=[NOW - 121]), now=NOW).count == 1


def test_one_limit_over_all_centres() -> None:
    found = room(centre(), Load(in_flight=1), now=NOW, everywhere=19, max_jobs=20)
    assert found.count == 1
    assert "19 of 20 at all centres" in found.limit


def test_jobs_of_a_partition() -> None:
    assert partition_room(centre(), "cpu", 1) == 2
    assert partition_room(centre(), "cpu", 5) == 0
    assert partition_room(centre(), "x", 5) is None


@given(st.integers(1, 200))
def test_backoff_grows_and_is_bounded(failures: int) -> None:
    wait = backoff_s(failures, first=10, longest=600)
    expected = min(600.0, 10 * 2.0 ** (failures - 1))
    assert 0.8 * expected <= wait <= 1.2 * expected
    assert backoff_s(0) == 0.0

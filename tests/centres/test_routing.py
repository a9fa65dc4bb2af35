"""Routing: what never happens (over random profiles), what each strategy prefers, and what it says about it."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcompute.centres.routing import (
    STRATEGIES,
    CentreState,
    Demand,
    Group,
    PartitionState,
    Reason,
    route,
)
from matcompute.dataset.metadata import GRADES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CODES = ["node", "pw", "lmp"]

partitions = st.builds(
    PartitionState,
    name=st.sampled_from(["cpu", "gpu", "debug"]),
    nodes=st.integers(0, 20),
    cores=st.integers(1, 128),
    memory_gb=st.floats(1, 1000),
    gpus=st.integers(0, 8),
    max_nodes=st.integers(1, 8),
    max_wall_s=st.sampled_from([600.0, 86400.0, np.inf]),
    charge=st.sampled_from(["core_h", "node_h", "gpu_h"]),
    per_hour=st.floats(0, 5),
    up=st.booleans(),
    wait_s=st.floats(0, 1e5),
    codes=st.none() | st.frozensets(st.sampled_from(CODES)),
)
some_centres = st.lists(
    st.builds(
        CentreState,
        id=st.sampled_from(["a", "b", "c", "d", "e"]),
        partitions=st.lists(partitions, min_size=1, max_size=3).map(tuple),
        clearance=st.sampled_from(GRADES),
        up=st.booleans(),
        codes=st.none() | st.frozensets(st.sampled_from(CODES)),
        window=st.integers(1, 1000),
        in_flight_core_s=st.floats(0, 1e6),
        quota_left_core_s=st.sampled_from([0.0, 100.0, 5000.0, np.inf]),
        factors=st.dictionaries(st.sampled_from(["w", "v"]), st.floats(0.1, 10)),
        blocked=st.dictionaries(st.sampled_from(["w", "x", ""]), st.just("disk full"), max_size=1),
    ),
    max_size=5,
    unique_by=lambda centre: centre.id,
)
some_groups = st.lists(
    st.builds(
        Group,
        workload=st.sampled_from(["w", "v"]),
        grade=st.sampled_from(GRADES),
        allow=st.none() | st.frozensets(st.sampled_from(["a", "b", "c"])),
        deny=st.frozensets(st.sampled_from(["a", "d"])),
        codes=st.frozensets(st.sampled_from(CODES), max_size=1),
        strategy=st.sampled_from(sorted(STRATEGIES)),
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    groups = draw(some_groups)
    n = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return Demand.of(
        groups,
        rng.integers(0, len(groups), n),
        rng.exponential(500.0, n),
        cores=rng.choice([1, 8, 200], n),
        gpus=rng.choice([0, 0, 2], n),
        memory_gb=rng.choice([0.0, 100.0], n),
        walltime_s=rng.choice([0.0, 3600.0], n),
    )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_never_happens(data: st.DataObject) -> None:
    """Every promise of the filters holds for what was chosen, and a task is left out only if nothing fits."""
    centres = data.draw(some_centres)
    demand = data.draw(demands())
    decision = route(demand, centres)
    spent = dict.fromkeys((centre.id for centre in centres), 0.0)
    for i in range(len(demand)):
        group = demand.groups[int(demand.group[i])]
        where = decision.where(i)
        if where is None:
            assert (decision.reasons[i] != Reason.FITS).all()
            continue
        centre, partition = where
        assert GRADES.index(centre.clearance) >= GRADES.index(group.grade)
        assert group.allow is None or centre.id in group.allow
        assert centre.id not in group.deny
        assert not {"", group.workload} & set(centre.blocked)
        assert centre.codes is None or group.codes <= centre.codes
        assert partition.codes is None or group.codes <= partition.codes
        assert demand.cores[i] <= partition.cores * partition.max_nodes
        nodes = -(-int(demand.cores[i]) // partition.cores)
        assert demand.memory_gb[i] <= partition.memory_gb * nodes
        assert demand.gpus[i] <= partition.gpus * nodes
        assert demand.walltime_s[i] <= partition.max_wall_s
        assert centre.up
        assert partition.up
        expected = demand.core_s[i] * centre.factors.get(group.workload, 1.0)
        assert decision.core_s[i] == pytest.approx(expected)
        spent[centre.id] += expected
        assert len(decision.explain(i)) == len(centres)
    for centre in centres:
        assert spent[centre.id] <= centre.quota_left_core_s * (1 + 1e-12)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_it_depends_on_nothing_else(data: st.DataObject) -> None:
    """Asked twice, it decides the same: nothing is kept between two calls."""
    centres = data.draw(some_centres)
    demand = data.draw(demands())
    first, second = route(demand, centres), route(demand, centres)
    assert np.array_equal(first.column, second.column)
    assert np.array_equal(first.reasons, second.reasons)


def centre(name: str, **values: object) -> CentreState:
    """A centre of one partition; keys that a partition has go there."""
    mine = {key: values.pop(key) for key in list(values) if key in PartitionState.__dataclass_fields__}
    part = PartitionState("cpu", **{"nodes": 10, "cores": 10, "memory_gb": 100.0, **mine})  # type: ignore[arg-type]
    return CentreState(name, (part,), **values)  # type: ignore[arg-type]


def names(demand: Demand, centres: list[CentreState]) -> list[str]:
    decision = route(demand, centres)
    return [centres[k].id if k >= 0 else "-" for k in decision.centre]


def one(strategy: str = "fastest", **values: object) -> Demand:
    return Demand.of([Group("w", strategy=strategy)], [0], [3600.0], **values)  # type: ignore[arg-type]


def test_fastest_takes_the_shorter_queue_and_then_fills_both() -> None:
    centres = [centre("slow", wait_s=1000.0), centre("soon")]
    assert names(one(), centres) == ["soon"]
    many = Demand.of([Group("w", strategy="fastest")], np.zeros(400, int), np.full(400, 3600.0))
    found = names(many, centres)
    # The queue of 1000 s on 100 cores is worth 27.8 tasks of an hour: the rest is shared equally.
    assert found.count("soon") - found.count("slow") == pytest.approx(1000 * 100 / 3600, abs=2)


def test_fastest_uses_what_was_measured() -> None:
    centres = [centre("a", factors={"w": 3.0}), centre("b", factors={"w": 1.0})]
    many = Demand.of([Group("w", strategy="fastest")], np.zeros(400, int), np.full(400, 3600.0))
    found = names(many, centres)
    assert found.count("b") / found.count("a") == pytest.approx(3.0, rel=0.05)


def test_cheapest_waits_for_the_cheap_one_and_spills_over_at_its_quota() -> None:
    cheap = centre("cheap", per_hour=0.01, wait_s=1e5, quota_left_core_s=2.5 * 3600)
    many = Demand.of([Group("w", strategy="cheapest")], np.zeros(4, int), np.full(4, 3600.0))
    decision = route(many, [centre("dear", per_hour=0.05), cheap])
    assert [decision.centres[k].id for k in decision.centre] == ["cheap", "cheap", "dear", "dear"]
    assert decision.reasons[2, 1] == Reason.QUOTA
    assert decision.reasons[1, 1] == Reason.FITS


@pytest.mark.parametrize(("wait", "expected"), [(100.0, "cheap"), (20000.0, "dear")])
def test_balanced_pays_for_time_that_is_worth_it(wait: float, expected: str) -> None:
    centres = [centre("dear", per_hour=0.04), centre("cheap", per_hour=0.02, wait_s=wait)]
    assert names(one("balanced"), centres) == [expected]


def test_whole_nodes_and_gpus_are_charged_for() -> None:
    node = centre("node", charge="node_h", per_hour=1.0)
    gpu = centre("gpu", charge="gpu_h", per_hour=1.0, gpus=4)
    core = centre("core", per_hour=1.0)
    decision = route(one(cores=2, gpus=1), [node, gpu, core])
    # An hour of work on two cores lasts half an hour: of one node, of one GPU, of two cores.
    assert decision.cost[0].tolist() == pytest.approx([0.5, 0.5, 1.0])


REFUSALS = [
    ("clearance", {}, {"grade": "important"}, {}, "cleared for 'general' data, these are 'important'"),
    ("code", {"codes": frozenset({"node"})}, {"codes": frozenset({"pw"})}, {}, "has no code pw"),
    ("cores", {}, {}, {"cores": 11}, "asks for 11 cores, one of its jobs may have 10"),
    ("memory", {}, {}, {"memory_gb": 200}, "asks for 200 GB, its nodes have 100 GB"),
    ("gpus", {}, {}, {"gpus": 1}, "asks for 1 GPUs, its nodes have 0"),
    ("wall", {"max_wall_s": 60.0}, {}, {"walltime_s": 90}, "asks for 90 s, its jobs may last 60 s"),
    ("quota", {"quota_left_core_s": 1800.0}, {}, {}, "needs 1 core-hours, the quota leaves 0.5"),
    ("down", {"up": False, "why": "does not answer since 12:00"}, {}, {}, "does not answer since 12:00"),
    ("partition", {"up": False}, {}, {}, "partition cpu starts no jobs"),
    ("blocked", {"blocked": {"w": "disk full"}}, {}, {}, "left alone after a failure: disk full"),
    ("denied", {}, {"deny": frozenset({"here"})}, {}, "denies"),
    ("allowed", {}, {"allow": frozenset({"there"})}, {}, "does not allow"),
]


@pytest.mark.parametrize(("name", "of", "group", "asks", "text"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_it_says_why_not(name: str, of: dict, group: dict, asks: dict, text: str) -> None:
    if name == "down":
        here = replace(centre("here"), **of)
    else:
        here = centre("here", **of)
    demand = Demand.of([Group("w", **group)], [0], [3600.0], **asks)
    decision = route(demand, [here])
    assert decision.where(0) is None
    ((found, verdict, why),) = decision.explain(0)
    assert (found, verdict) == ("here", "no")
    assert text in why


def test_it_says_where_and_on_what_terms() -> None:
    decision = route(one(), [centre("a", wait_s=30.0, per_hour=0.5), centre("b", factors={"w": 0.5})])
    assert decision.explain(0) == [
        ("a", "fits", "partition cpu: wait 30 s, charge 0.5, not measured yet"),
        ("b", "chosen", "partition cpu: wait 0 s, free of charge, 0.5 × the estimated work"),
    ]


def test_nothing_to_choose_from() -> None:
    assert route(one(), []).centre.tolist() == [-1]
    assert route(Demand.of([Group()], [], []), [centre("a")]).centre.tolist() == []
    with pytest.raises(ValueError, match="finite"):
        Demand.of([Group()], [0], [np.inf])


@pytest.mark.parametrize("n", [125, 5_000], ids=["as it stands", "compiled"])
def test_the_plain_loop_decides_the_same(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark's peer asks every centre for every task; how fast the two are, the benchmark says."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    peer = runpy.run_path(str(BENCHMARKS / "routing.py"))
    for seed in range(4):
        demand, centres = peer["problem"](n, 8, seed)
        # Half the work finds no quota.
        left = float(demand.core_s.sum()) / 2 / len(centres)
        centres = [replace(centre, quota_left_core_s=left) for centre in centres]
        decision = route(demand, centres)
        assert np.array_equal(decision.column, peer["one_by_one"](demand, centres))
        assert (decision.column >= 0).any()
        assert (decision.reasons == Reason.QUOTA).any()

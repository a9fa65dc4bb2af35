"""Placing, watching and leaving centres: what the dispatcher decides, on real tables and profiles, without AiiDA."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from matcompute.campaign.dispatcher.loop import stuck_values
from matcompute.campaign.dispatcher.placing import Turn, alternatives, capacity, take_turn
from matcompute.campaign.dispatcher.reroute import MOST_REROUTED, JobLook, to_take_back
from matcompute.campaign.dispatcher.watch import judge, note_answer, note_silence
from matcompute.campaign.explain import explain_campaign
from matcompute.campaign.model import Campaign
from matcompute.campaign.placement import Situation
from matcompute.campaign.state import State
from matcompute.campaign.state.batches import (
    BatchRow,
    batches_of,
    create_batches,
    reroute_batch,
    set_batch,
)
from matcompute.campaign.state.campaigns import CampaignRow, by_id, register, set_campaign, stages_of
from matcompute.campaign.state.centres import (
    CentreRow,
    add_block,
    begun_at,
    centre_rows,
    end_submission,
    note_submission,
    set_centre,
)
from matcompute.campaign.state.flow import add_materials, ready_rows, seed
from matcompute.campaign.state.notices import notices
from matcompute.campaign.state.usage import note_job
from matcompute.centres import Centre
from matcompute.centres.schedulers.queue import PartitionLook, QueuedJob, QueueLook

CAMPAIGN = """\
schema: matcompute.campaign/v1
name: c
title: C
domain: advanced-steel
licence: CC0-1.0
contributors: [{name: A}]
GRADE
structures:
  - {prototypes: [L1_2], elements: [Al, Ni]}
stages:
  - relax: {calculator: emt}
"""


def centre(name: str, *, clearance: str = "general", window: int = 3, **extra: Any) -> Centre:
    """A Slurm centre of two nodes of eight cores."""
    data = {
        "schema": "matcompute.centre/v1",
        "centre": {"id": name, "clearance": clearance},
        "login": {"transport": "ssh", "hosts": ["login"]},
        "scheduler": {"type": "slurm", "max_submitted": window, **extra.pop("scheduler", {})},
        "partitions": [{"name": "cpu", "nodes": 2, "cores": 8, "mem_gb": 32, "max_wall": "2 h"}],
        "codes": [{"name": "matcompute-node", "executable": "/bin/mc"}],
        **extra,
    }
    return Centre.model_validate(data)


class TablesOnly:
    """The part of the pool that placing needs: profiles and the tables."""

    def __init__(self, profiles: dict[str, Centre], max_jobs: int | None = None) -> None:
        self.profiles, self.max_jobs = profiles, max_jobs

    def situation(self, connection: Any) -> Situation:
        return Situation.read(connection, self.profiles, max_jobs=self.max_jobs)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path / "state.sqlite") as opened:
        yield opened


def make(state: State, n: int = 12, extra: str = "", estimate: float = 100.0) -> CampaignRow:
    """A campaign with n planned batches of one structure."""
    text = CAMPAIGN.replace("GRADE", extra)
    with state.write() as connection:
        row = register(
            connection,
            name="c",
            title="",
            file="c.yaml",
            text=text,
            digest="0",
            budget_core_s=None,
            stages=[("relax", "relax", False)],
        )
        (here,) = stages_of(connection, row.id)
        add_materials(
            connection,
            row.id,
            [f"m{k}" for k in range(n)],
            [f"{k:032x}" for k in range(n)],
            np.full(n, 4),
            np.zeros(n, dtype=bool),
        )
        seed(connection, row.id, here)
        rows, _ = ready_rows(connection, here.id)
        create_batches(
            connection,
            row,
            here,
            "",
            [rows[k : k + 1] for k in range(n)],
            [estimate] * n,
            workload="relax/emt",
        )
        set_campaign(connection, row.id, state="running")
        return by_id(connection, row.id)


def turn(state: State, row: CampaignRow, *centres: Centre, max_jobs: int | None = None) -> Turn:
    return take_turn(state, [row], TablesOnly({c.id: c for c in centres}, max_jobs))  # type: ignore[arg-type]


def counts(found: Turn) -> dict[str, int]:
    names = [place.centre for place in found.places]
    return {name: names.count(name) for name in sorted(set(names))}


def submit(state: State, found: Turn, **values: Any) -> None:
    """Pretend that what was placed was submitted."""
    with state.write() as connection:
        for place in found.places:
            note_submission(
                connection,
                batch_id=place.batch.id,
                campaign_id=place.row.id,
                attempt=0,
                centre_id=place.centre,
                partition=place.partition,
                project=place.project,
                why=place.why,
            )
            set_batch(
                connection,
                place.batch.id,
                state="submitted",
                centre=place.centre,
                partition=place.partition,
                project=place.project,
                expected_s=place.core_s,
                process_uuid=f"u{place.batch.id}",
                **values,
            )


def test_windows_are_filled_and_no_more(state: State) -> None:
    row, a, b = make(state), centre("a", window=3), centre("b", window=2)
    first = turn(state, row, a, b)
    assert counts(first) == {"a": 3, "b": 2}
    assert all(place.walltime_s == 720.0 for place in first.places), (
        "four times the estimate, and time to start"
    )
    submit(state, first)
    assert counts(turn(state, row, a, b)) == {}
    assert counts(turn(state, row, a, b, centre("d", window=1))) == {"d": 1}


def test_one_limit_over_all(state: State) -> None:
    row, a, b = make(state), centre("a"), centre("b")
    assert sum(counts(turn(state, row, a, b, max_jobs=4)).values()) == 4


def test_submissions_a_minute(state: State) -> None:
    row, a = make(state), centre("a", window=10, scheduler={"submit_per_min": 2})
    first = turn(state, row, a)
    assert counts(first) == {"a": 2}
    submit(state, first)
    assert counts(turn(state, row, a)) == {}


def test_the_users_other_jobs_count(state: State) -> None:
    row, a = make(state), centre("a", window=10, scheduler={"max_user_jobs": 5})
    jobs = tuple(QueuedJob(str(k), "theirs", "cpu", "running") for k in range(3))
    note_answer(state, a, QueueLook(jobs, {"cpu": PartitionLook(2, 16, 16)}))
    assert counts(turn(state, row, a)) == {"a": 2}


@pytest.mark.parametrize("grade", ["important", "core"])
def test_the_grade_decides(state: State, grade: str) -> None:
    row = make(state, extra=f"classification: {{grade: {grade}}}")
    a, b, c = centre("a"), centre("b", clearance="important"), centre("c", clearance="core")
    assert set(counts(turn(state, row, a, b, c))) == ({"b", "c"} if grade == "important" else {"c"})
    (stuck,) = turn(state, row, a).stuck
    assert stuck.kind == "nowhere"
    assert f"these are '{grade}'" in stuck.text


def test_a_quota_is_never_planned_beyond(state: State) -> None:
    """0.1 core-hours are 360 core-seconds: three batches of 100, also over several turns."""
    row, a = make(state), centre("a", window=10, projects=[{"account": "p", "quota_core_h": 0.1}])
    first = turn(state, row, a)
    assert counts(first) == {"a": 3}
    assert {place.project for place in first.places} == {"p"}
    submit(state, first)
    again = turn(state, row, a)
    assert counts(again) == {}
    (stuck,) = again.stuck
    assert stuck.kind == "waits", "what is in flight may need less than expected"
    with state.write() as connection:
        for place in first.places:
            set_batch(connection, place.batch.id, state="finished")
            done = next(b for b in batches_of(connection, row.id) if b.id == place.batch.id)
            note_job(connection, done, job_uuid=f"j{done.id}", core_s=110.0)
    (stuck,) = turn(state, row, a).stuck
    assert stuck.kind == "quota"
    assert stuck_values(row, stuck.kind, stuck.text)["state"] == "over-budget"
    assert counts(turn(state, row, a, centre("b"))) == {"b": 3}, "elsewhere there is some left"


def test_a_campaign_charges_its_own_project(state: State) -> None:
    projects = [{"account": "p", "quota_core_h": 0.0, "default": True}, {"account": "q"}]
    row = make(state, extra="centres: {allow: [a], projects: {a: q}}")
    found = turn(state, row, centre("a", projects=projects))
    assert counts(found) == {"a": 3}
    assert {place.project for place in found.places} == {"q"}


def test_what_is_down_or_blocked_is_left_out(state: State) -> None:
    row, a, b = make(state), centre("a"), centre("b")
    note_silence(state, a, "no route")
    assert set(counts(turn(state, row, a, b))) == {"a", "b"}, "one failure may be a hiccup"
    note_silence(state, a, "no route")
    assert set(counts(turn(state, row, a, b))) == {"b"}
    (stuck,) = turn(state, row, a).stuck
    assert stuck.kind == "waits"
    assert "no route" in stuck.text
    with state.write() as connection:
        add_block(connection, "b", "relax/emt", "disk full")
    (stuck,) = turn(state, row, b).stuck
    assert stuck.kind == "blocked"
    assert stuck_values(row, "blocked", stuck.text)["state"] == "stopped"
    note_answer(state, a, QueueLook((), {"cpu": PartitionLook(2, 16, 16)}))
    assert set(counts(turn(state, row, a, b))) == {"a"}
    with state.read() as connection:
        assert [n.event for n in reversed(notices(connection))] == ["centre-down", "centre-up"]


def test_alternatives_and_capacity(state: State) -> None:
    row, a, b = make(state), centre("a"), centre("b", window=50)
    stage = Campaign.load(_file(state, row)).stage("relax")
    situation = Situation({"a": a, "b": b})
    assert alternatives(row, stage, situation, deny="a")
    assert not alternatives(row, stage, Situation({"a": a}), deny="a")
    found = capacity(row, stage, Situation({"a": a}))
    # Three jobs in flight for sixteen cores: each takes five.
    assert (found.per_batch, found.slots, found.cores) == (5, 3, 15)
    assert found.factor is None


def _file(state: State, row: CampaignRow) -> Path:
    path = state.path.parent / "c.yaml"
    path.write_text(row.text)
    return path


def batch(centre_id: str = "a", attempts: int = 0) -> BatchRow:
    return SimpleNamespace(id=1, centre=centre_id, attempts=attempts)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("state_of", "job", "goes"),
    [
        ("draining", JobLook(1, "7", "queued", "withscheduler"), True),
        ("draining", JobLook(1, "7", "running", "withscheduler"), False),
        ("draining", JobLook(2, "7", "queued", "withscheduler"), False),
        ("draining", JobLook(1, "7", "done", "retrieving"), False),
        ("draining", JobLook(0, None, None, None), True),
        ("down", JobLook(1, "7", "queued", "withscheduler"), False),
        ("down", JobLook(1, None, None, "submitting"), False),
        ("down", JobLook(1, None, None, "uploading"), True),
        ("up", JobLook(1, "7", "queued", "withscheduler"), False),
    ],
)
def test_what_is_taken_back(state_of: str, job: JobLook, goes: bool) -> None:
    """Only what cannot have begun, and what cannot run there all the same."""
    rows = {"a": CentreRow("a", state_of, "why")}
    found = to_take_back([batch()], {1: job}, rows, lambda _: True)
    assert bool(found) == goes
    assert to_take_back([batch()], {1: job}, rows, lambda _: False) == []
    assert to_take_back([batch(attempts=MOST_REROUTED)], {1: job}, rows, lambda _: True) == []


def test_what_had_begun_goes_on_where_it_has_begun(state: State) -> None:
    """It was taken back a moment too late: its checkpoint is there, and so it goes nowhere else."""
    row, a, b = make(state, n=2), centre("a", window=1), centre("b", window=1)
    first = turn(state, row, a, b)
    submit(state, first)
    taken = next(place for place in first.places if place.centre == "a")
    with state.write() as connection:
        found = next(item for item in batches_of(connection, row.id) if item.id == taken.batch.id)
        end_submission(connection, found.id, "rerouting", "draining")
        reroute_batch(connection, found, begun=True)
        assert begun_at(connection, [found.id]) == {found.id: "a"}
    assert counts(turn(state, row, a, centre("c", window=9))) == {"a": 1}
    assert counts(turn(state, row, b, centre("c", window=9))) == {"c": 1}, "its centre is not there any more"
    with state.write() as connection:
        set_centre(connection, "a", state="draining", reason="maintenance")
    waiting = turn(state, row, a, centre("c", window=9))
    assert counts(waiting) == {}
    assert [item.kind for item in waiting.stuck] == ["waits"]


def test_a_centre_is_judged_by_its_own_partitions() -> None:
    a = centre("a")
    good, off = PartitionLook(2, 16, 4), PartitionLook(0, 0, 0, state="2 drained")
    assert judge(a, QueueLook((), {"cpu": good, "gpu": off})) == ("up", "")
    assert judge(a, QueueLook(None, {})) == ("up", "")
    verdict, why = judge(a, QueueLook((), {"cpu": off, "gpu": good}))
    assert (verdict, why) == ("draining", "no node starts jobs (cpu: 2 drained)")
    assert judge(a, QueueLook((), {"other": good}))[0] == "draining"


def test_an_answer_is_kept(state: State) -> None:
    a = centre("a")
    note_answer(state, a, QueueLook((), {"cpu": PartitionLook(1, 8, 0, 4, 32, "1 allocated")}))
    with state.read() as connection:
        row = centre_rows(connection)["a"]
    assert row.state == "up"
    assert row.answered is not None
    assert time.time() - row.answered < 60
    (cpu,) = Situation({"a": a}, rows={"a": row}).states()[0].partitions
    # Thirty-two cores' worth of jobs before ours on eight cores that are all busy.
    assert cpu.wait_s == pytest.approx(1800 * (32 / 8 + 0.5))
    assert cpu.nodes == 1


def test_explanation_of_a_campaign(state: State, tmp_path: Path) -> None:
    row = make(state, extra="centres: {deny: [local], strategy: cheapest}")
    found = turn(state, row, centre("a"))
    submit(state, found)
    folder = tmp_path / "centres"
    folder.mkdir()
    (folder / "broken.yaml").write_text("schema: nonsense\n")
    workspace = SimpleNamespace(centres_dir=folder, root=tmp_path)
    explained = explain_campaign(workspace, state, "c")  # type: ignore[arg-type]
    assert explained.strategy == "cheapest"
    assert "broken" in explained.unusable
    (stage,) = explained.stages
    assert stage.placed == {"a": {"submitted": 3}}
    assert stage.core_s == pytest.approx(100.0)
    assert [(choice.centre, choice.verdict) for choice in stage.choices] == [("local", "no")]
    assert explained.to_json()["stages"][0]["workload"] == "relax/emt"

"""State tables about centres: rows, blocks, submissions, accounting, notices; a workspace of before is upgraded."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from matcompute.campaign.state import HEAD, State
from matcompute.campaign.state.batches import batches_of, create_batches, set_batch
from matcompute.campaign.state.campaigns import by_id, register, stages_of
from matcompute.campaign.state.centres import (
    BLOCK_S,
    add_block,
    blocks,
    centre_rows,
    clear_blocks,
    end_submission,
    in_flight,
    note_submission,
    recent_submissions,
    set_centre,
    submissions_of,
)
from matcompute.campaign.state.flow import add_materials, ready_rows, seed
from matcompute.campaign.state.migrate import upgrade
from matcompute.campaign.state.notices import add_notice, due_notices, forget_notice, set_notice
from matcompute.campaign.state.usage import (
    GROUPINGS,
    ask_again_later,
    jobs_of,
    measured_factors,
    note_job,
    pending_jobs,
    project_core_s,
    queue_waits,
    settle_job,
    usage_by,
    usage_over_time,
)


@pytest.fixture
def state(tmp_path: Path) -> State:
    with State(tmp_path / "state.sqlite") as opened:
        yield opened


@pytest.fixture
def batches(state: State) -> list:
    """Four batches of one stage, of 10 core-seconds each as estimated."""
    with state.write() as connection:
        row = register(
            connection,
            name="c",
            title="",
            file="c.yaml",
            text="",
            digest="0",
            budget_core_s=None,
            stages=[("relax", "relax", False)],
        )
        (here,) = stages_of(connection, row.id)
        add_materials(connection, row.id, list("abcd"), list("wxyz"), np.full(4, 4), np.zeros(4, dtype=bool))
        seed(connection, row.id, here)
        rows, _ = ready_rows(connection, here.id)
        made = create_batches(connection, row, here, "", [rows[k : k + 1] for k in range(4)], [10.0] * 4)
        for batch, centre in zip(made, "aabb", strict=True):
            set_batch(connection, batch.id, centre=centre, partition="cpu", project="p", workload="relax/emt")
        return batches_of(connection, row.id)


def test_a_workspace_of_before_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    upgrade(path, "0001")
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO campaign (id, uuid, name, title, file, text, digest, state, wanted, reason, hint, "
        "n_materials, core_s, revision, created) VALUES (1,'u','c','','','','','running','run','','',1,0,0,0)"
    )
    connection.execute(
        "INSERT INTO stage (id, campaign_id, position, name, kind, is_gate, state, revision) "
        "VALUES (1,1,0,'relax','relax',0,'running',0)"
    )
    connection.execute(
        "INSERT INTO batch (id, campaign_id, stage_id, number, key, centre, state, message, n_total, n_done, n_ok, "
        "n_failed, estimate_s, core_s, created) VALUES (1,1,1,1,'u/relax/1','local','submitted','',1,0,0,0,1,0,0)"
    )
    connection.commit()
    connection.close()
    with State(path) as opened, opened.read() as read:
        (batch,) = batches_of(read, 1)
    assert HEAD == "0003"
    assert (batch.centre, batch.partition, batch.attempts) == ("local", "", 0)
    assert batch.label == "u/relax/1", "a process that is running is found again"


def test_since_follows_the_state(state: State) -> None:
    with state.write() as connection:
        first = set_centre(connection, "a", state="up")
        same = set_centre(connection, "a", state="up", failures=1)
        changed = set_centre(connection, "a", state="down", reason="ssh")
        assert same.since == first.since
        assert changed.since > first.since
        assert centre_rows(connection)["a"].reason == "ssh"


def test_blocks_double_and_end(state: State) -> None:
    with state.write() as connection:
        first = add_block(connection, "a", "", "disk full")
        second = add_block(connection, "a", "", "disk full again")
        add_block(connection, "a", "relax/emt", "not installed")
        assert first.until - first.created == pytest.approx(BLOCK_S)
        assert second.until - second.created == pytest.approx(2 * BLOCK_S)
        assert len(blocks(connection)) == 2
        assert blocks(connection, now=time.time() + 1e6) == []
        assert clear_blocks(connection, "a", "eos/emt") == 1, (
            "the general one; the other workload keeps its own"
        )
        assert clear_blocks(connection, "a") == 1


def test_attempts_are_a_history(state: State, batches: list) -> None:
    batch = batches[0]
    common = {"batch_id": batch.id, "campaign_id": batch.campaign_id, "partition": "cpu", "project": "p"}
    with state.write() as connection:
        note_submission(connection, attempt=0, centre_id="a", why="first", **common)
        note_submission(connection, attempt=0, centre_id="a", why="after a crash", **common)
        end_submission(connection, batch.id, "rerouted", "drained")
        note_submission(connection, attempt=1, centre_id="b", why="a is drained", **common)
        rows = submissions_of(connection, [batch.id])
        assert [(r["attempt"], r["centre"], r["outcome"], r["why"]) for r in rows] == [
            (0, "a", "rerouted", "after a crash"),
            (1, "b", "", "a is drained"),
        ]
        assert {k: len(v) for k, v in recent_submissions(connection, time.time() - 60).items()} == {
            "a": 1,
            "b": 1,
        }
        assert recent_submissions(connection, time.time() + 1) == {}


def test_in_flight_by_centre(state: State, batches: list) -> None:
    with state.write() as connection:
        for batch in batches[:3]:
            set_batch(connection, batch.id, state="submitted")
        set_batch(connection, batches[0].id, expected_s=30.0)
        found = in_flight(connection)
    assert (found["a"].count, found["a"].core_s) == (2, 40.0)
    assert found["a"].by_partition == {"cpu": 2}
    assert found["b"].by_project == {"p": 10.0}


def test_accounting_replaces_what_the_program_said(state: State, batches: list) -> None:
    with state.write() as connection:
        for k, batch in enumerate(batches):
            note_job(connection, batch, job_uuid=f"j{k}", job_id=str(k), core_s=20.0, wall_s=10.0, state="ok")
        note_job(connection, batches[0], job_uuid="j0", core_s=99.0)  # the same job again changes nothing
        before = by_id(connection, batches[0].campaign_id).core_s
        waiting = pending_jobs(connection, "a", most_asked=3)
        assert [job.job_id for job in waiting] == ["0", "1"]
        settle_job(connection, waiting[0], "sacct", core_s=25.0, queue_s=7.0, state="COMPLETED")
        ask_again_later(connection, [waiting[1].id] * 1)
        after = by_id(connection, batches[0].campaign_id).core_s
        assert after - before == pytest.approx(5.0)
        assert batches_of(connection, batches[0].campaign_id)[0].core_s == pytest.approx(5.0)
        assert [job.asked for job in pending_jobs(connection, "a", most_asked=3)] == [1]
        assert pending_jobs(connection, "a", most_asked=1) == []
        assert project_core_s(connection) == {("a", "p"): 45.0, ("b", "p"): 40.0}
        assert queue_waits(connection) == {("a", "cpu"): 7.0}
        assert [job.source for job in jobs_of(connection, batches[0].campaign_id)] == ["sacct"] + [
            "summary"
        ] * 3
        (a, b) = usage_by(connection, "centre")
        assert (a.key, a.jobs, a.core_h) == ({"centre": "a"}, 2, pytest.approx(45 / 3600))
        assert a.accounted == pytest.approx(25 / 45)
        assert b.wait_s is None
        for grouping in GROUPINGS:
            rows = usage_by(connection, grouping)
            assert sum(row.core_h for row in rows) == pytest.approx(85 / 3600), grouping
            assert sum(hours for _, _, hours in usage_over_time(connection, grouping)) == pytest.approx(
                85 / 3600
            )
        assert usage_by(connection, "stage", centre="b")[0].to_json()["stage"] == "relax"
        assert usage_by(connection, "centre", since=time.time() + 10) == []
        assert usage_by(connection, "centre", campaign_name="other") == []


def test_what_a_workload_costs_is_measured_from_the_newest_batches(state: State, batches: list) -> None:
    with state.write() as connection:
        for k, (batch, used) in enumerate(zip(batches, (5.0, 15.0, 40.0, 0.0), strict=True)):
            set_batch(
                connection,
                batch.id,
                state="finished",
                n_done=1,
                core_s=used,
                exit_status=0,
                finished=float(k),
            )
        found = measured_factors(connection)
        assert found["a"] == {"relax/emt": 1.0}
        assert found["b"] == {"relax/emt": 4.0}, "a batch without a measurement says nothing"
        assert found[""] == {"relax/emt": 2.0}
        assert measured_factors(connection, batches=1)["a"] == {"relax/emt": 1.5}


def test_a_notice_is_written_once(state: State) -> None:
    with state.write() as connection:
        assert add_notice(connection, "c/done/0", "done", "finished", campaign="c")
        assert not add_notice(connection, "c/done/0", "done", "finished", campaign="c")
        (row,) = due_notices(connection, now=time.time(), most_tries=3)
        set_notice(connection, row.id, tries=1, next_try=time.time() + 60, error="refused")
        assert due_notices(connection, now=time.time(), most_tries=3) == []
        assert len(due_notices(connection, now=time.time() + 61, most_tries=3)) == 1
        set_notice(connection, row.id, delivered=time.time())
        assert due_notices(connection, now=time.time() + 61, most_tries=3) == []
        forget_notice(connection, "c/done/0")
        assert add_notice(connection, "c/done/0", "done", "finished again")

"""State tables: migrations, two processes at once, flow of materials, and speed at 10⁵ materials."""

from __future__ import annotations

import gc
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select, text

from matcompute.campaign.state import HEAD, SchemaError, State, StateError
from matcompute.campaign.state.batches import (
    BatchRow,
    batches_of,
    create_batches,
    members,
    open_batches,
    record_batch,
    release_batch,
    set_batch,
    spent,
)
from matcompute.campaign.state.campaigns import (
    CampaignRow,
    StageRow,
    by_id,
    find,
    register,
    set_stage,
    stages_of,
)
from matcompute.campaign.state.counts import campaign_status, failure_groups
from matcompute.campaign.state.flow import (
    add_materials,
    complete,
    propagate,
    ready_count,
    ready_rows,
    record_gate,
    retry_failed,
    seed,
)
from matcompute.campaign.state.migrate import head
from matcompute.campaign.state.models import metadata, task
from matcompute.dataset.status import Status
from matcompute.errors import InputError

STAGES = [("relax", "relax", False), ("hull", "hull", True), ("eos", "eos", False), ("top", "top", True)]


@pytest.fixture
def state(tmp_path: Path) -> State:
    with State(tmp_path / "state.sqlite") as opened:
        yield opened


def make(state: State, n: int = 10, stages: list = STAGES, references: tuple[int, ...] = ()) -> CampaignRow:
    with state.write() as connection:
        row = register(
            connection,
            name=f"c{time.monotonic_ns()}",
            title="",
            file="c.yaml",
            text="",
            digest="0",
            budget_core_s=None,
            stages=stages,
        )
        flags = np.zeros(n, dtype=bool)
        flags[list(references)] = True
        ids = [f"Cu-{k:016x}" for k in range(n)]
        add_materials(connection, row.id, ids, [f"{k:032x}" for k in range(n)], np.full(n, 4), flags)
        seed(connection, row.id, stages_of(connection, row.id)[0])
        return by_id(connection, row.id)


def plan(state: State, row: CampaignRow, position: int, size: int) -> list[BatchRow]:
    with state.write() as connection:
        here = stages_of(connection, row.id)[position]
        rows, _ = ready_rows(connection, here.id)
        groups = [rows[k : k + size] for k in range(0, len(rows), size)]
        return create_batches(connection, row, here, "local", groups, [1.0] * len(groups))


def record(state: State, row: CampaignRow, batch: BatchRow, status: np.ndarray, core_s: float = 1.0) -> None:
    with state.write() as connection:
        stages = stages_of(connection, row.id)
        position = next(s.position for s in stages if s.id == batch.stage_id)
        messages = [None if s == Status.OK else f"bad {k}" for k, s in enumerate(status)]
        record_batch(
            connection,
            stages,
            position,
            batch,
            result_uuid=f"r{batch.id}",
            status=status,
            messages=messages,
            core_s=core_s,
            exit_status=0,
        )


def states(state: State, stage: StageRow) -> dict[tuple[int, int], tuple[str, int]]:
    with state.read() as connection:
        query = select(task.c.row, task.c.attempt, task.c.state, task.c.status).where(
            task.c.stage_id == stage.id
        )
        return {(r, a): (s, x) for r, a, s, x in connection.execute(query)}


def stages(state: State, row: CampaignRow) -> list[StageRow]:
    with state.read() as connection:
        return stages_of(connection, row.id)


def test_head_is_the_newest_migration() -> None:
    assert head() == HEAD


def test_migrations_give_the_tables_of_the_models(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with State(tmp_path / "state.sqlite") as opened, opened.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    State(path).close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(SchemaError, match=r"schema '9999' is newer.*0003"):
        State(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"this is not a database, it is a text of some length " * 40)
    with pytest.raises(StateError, match="damaged"):
        State(path)


def test_write_ahead_log_and_busy_timeout(state: State) -> None:
    with state.read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() >= 30_000
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_many_processes_open_and_write_a_new_database(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from matcompute.campaign.state import State
from matcompute.campaign.state.campaigns import register
import sys
with State(Path({str(tmp_path / "state.sqlite")!r})) as state:
    for k in range(20):
        with state.write() as c:
            register(c, name=f"p{{sys.argv[1]}}-{{k}}", title="", file="", text="", digest="",
                     budget_core_s=None, stages=[("relax", "relax", False)])
"""
    running = [subprocess.Popen([sys.executable, "-c", program, str(k)]) for k in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    with State(tmp_path / "state.sqlite") as state, state.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM campaign")).scalar() == 80


def test_a_name_that_is_not_there(state: State) -> None:
    row = make(state)
    with state.read() as connection, pytest.raises(InputError, match="did you mean"):
        find(connection, row.name[:-1])


def test_materials_flow_without_a_barrier(state: State) -> None:
    row = make(state, stages=[("relax", "relax", False), ("eos", "eos", False)])
    first, second = plan(state, row, 0, 5)
    status = np.full(5, Status.OK)
    status[2] = Status.EXPLODED
    record(state, row, first, status)
    relax, eos = stages(state, row)
    # The failed one stays behind; the second batch has not even begun.
    assert sorted(r for r, _ in states(state, eos)) == [0, 1, 3, 4]
    assert states(state, relax)[(2, 1)] == ("done", Status.EXPLODED)
    (batch,) = plan(state, row, 1, 100)
    with state.read() as connection:
        found = members(connection, stages_of(connection, row.id), 1, batch.id)
        assert not complete(connection, stages_of(connection, row.id), 0)
    assert found.rows.tolist() == [0, 1, 3, 4]
    assert found.parents.tolist() == [first.id] * 4
    assert found.parent_rows.tolist() == [0, 1, 3, 4]
    record(state, row, second, np.full(5, Status.OK))
    with state.read() as connection:
        assert complete(connection, stages_of(connection, row.id), 0)
        assert ready_count(connection, eos.id) == 5


def test_recording_twice_changes_nothing(state: State) -> None:
    row = make(state, stages=[("relax", "relax", False), ("eos", "eos", False)])
    (batch,) = plan(state, row, 0, 10)
    for _ in range(2):
        record(state, row, batch, np.full(10, Status.OK), core_s=7.0)
    with state.read() as connection:
        assert spent(connection, row.id) == (7.0, 0.0)
        assert ready_count(connection, stages_of(connection, row.id)[1].id) == 10


def test_a_released_batch_makes_its_materials_ready(state: State) -> None:
    row = make(state)
    (batch,) = plan(state, row, 0, 10)
    with state.write() as connection:
        set_batch(connection, batch.id, state="submitted", process_uuid="u")
        assert [b.id for b in open_batches(connection)] == [batch.id]
        assert spent(connection, row.id) == (0.0, 1.0)
        for _ in range(2):
            release_batch(connection, batch, state="failed", message="the model is missing", core_s=3.0)
        assert ready_count(connection, batch.stage_id) == 10
        assert spent(connection, row.id) == (3.0, 0.0)
    (again,) = plan(state, row, 0, 10)
    assert again.key != batch.key


def test_references_go_to_the_hull_and_no_further(state: State) -> None:
    row = make(
        state,
        n=6,
        references=(4, 5),
        stages=[
            ("relax", "relax", False),
            ("filter", "filter", True),
            ("static", "static", False),
            ("hull", "hull", True),
            ("eos", "eos", False),
        ],
    )
    (batch,) = plan(state, row, 0, 10)
    status = np.full(6, Status.OK)
    status[5] = Status.CRASHED
    record(state, row, batch, status)

    def gate(position: int, rows: list[int], passed: list[bool]) -> None:
        with state.write() as connection:
            known = stages_of(connection, row.id)
            record_gate(
                connection,
                known,
                position,
                np.array(rows),
                np.array(passed),
                np.full(len(rows), Status.NOT_SELECTED),
            )
            set_stage(connection, known[position].id, state="finished")
            propagate(connection, stages_of(connection, row.id), position)

    gate(1, [0, 1, 2, 3], [True, True, False, True])
    static = stages(state, row)[2]
    # Reference 4 passes a gate that did not look at it; 5 has failed.
    assert sorted(r for r, _ in states(state, static)) == [0, 1, 3, 4]
    (batch,) = plan(state, row, 2, 10)
    record(state, row, batch, np.full(4, Status.OK))
    gate(3, [0, 1, 3, 4], [True, False, True, True])
    assert sorted(r for r, _ in states(state, stages(state, row)[4])) == [0, 3]


def test_retry_of_what_failed(state: State) -> None:
    row = make(state)
    (batch,) = plan(state, row, 0, 10)
    status = np.full(10, Status.OK)
    status[[3, 7]] = Status.NOT_CONVERGED
    record(state, row, batch, status)
    with state.write() as connection:
        known = stages_of(connection, row.id)
        rows = np.array([k for k in range(10) if k not in (3, 7)])
        record_gate(connection, known, 1, rows, np.ones(8, dtype=bool), np.full(8, Status.NOT_SELECTED))
        set_stage(connection, known[1].id, state="finished")
        groups = failure_groups(connection, row.id)
        assert [(g.stage, g.status, g.count, g.example_message) for g in groups] == [
            ("relax", Status.NOT_CONVERGED, 2, "bad 3")
        ]
        assert retry_failed(connection, known, ["eos"]) == 0
        assert retry_failed(connection, known) == 2
        known = stages_of(connection, row.id)
        assert (known[1].state, known[1].revision) == ("waiting", 1)
        assert retry_failed(connection, known) == 0, "what is tried again has not failed yet"
    relax = stages(state, row)[0]
    found = states(state, relax)
    assert found[(3, 1)] == ("superseded", Status.NOT_CONVERGED)
    assert found[(3, 2)] == ("ready", 0)
    (again,) = plan(state, row, 0, 10)
    record(state, row, again, np.full(2, Status.OK))
    with state.write() as connection:
        known = stages_of(connection, row.id)
        assert complete(connection, known, 0)
        record_gate(
            connection, known, 1, np.arange(10), np.ones(10, dtype=bool), np.full(10, Status.NOT_SELECTED)
        )
        set_stage(connection, known[1].id, state="finished")
        propagate(connection, stages_of(connection, row.id), 1)
        (batch,) = create_batches(
            connection, row, known[2], "local", [ready_rows(connection, known[2].id)[0]], [1.0]
        )
        found = members(connection, known, 2, batch.id)
        # Structures come from the newest attempt.
        assert found.parents[found.rows == 3] == again.id
        counts = campaign_status(connection, row.id).stages
    assert (counts[0].n_total, counts[0].n_ok, counts[0].n_failed) == (10, 10, 0)


def test_unique_on_campaign_material_stage_attempt(state: State) -> None:
    row = make(state)
    relax = stages(state, row)[0]
    with pytest.raises(StateError, match="UNIQUE"), state.write() as connection:
        connection.execute(
            task.insert().values(
                campaign_id=row.id, stage_id=relax.id, row=0, attempt=1, state="ready", status=0
            )
        )


@pytest.mark.timeout(600)
def test_work_grows_with_the_number_of_materials(tmp_path: Path) -> None:
    """Ten times as many materials take about ten times as long, not a hundred times."""
    seconds = []
    for n in (10_000, 100_000):
        with State(tmp_path / f"{n}.sqlite") as state:
            seconds.append(_seconds_with(state, n))
    small, large = seconds
    for name in ("register", "plan", "record", "plan again", "members"):
        assert large[name] < 30 * small[name] + 0.2, (name, small, large)
    assert large["status"] < 30 * small["status"] + 0.2, (small, large)


def _seconds_with(state: State, n: int) -> dict[str, float]:
    """Return the processor time of each step of a campaign of n materials."""
    seconds: dict[str, float] = {}

    def timed(name: str, call: object) -> object:
        # Collections would go through all that other tests have left in this process.
        gc.disable()
        try:
            begun = time.process_time()
            result = call()  # type: ignore[operator]
            seconds[name] = time.process_time() - begun
        finally:
            gc.enable()
        return result

    chain = [("relax", "relax", False), ("eos", "eos", False), ("filter", "filter", True)]
    row = timed("register", lambda: make(state, n=n, stages=chain))
    size = n // 100
    batches = timed("plan", lambda: plan(state, row, 0, size))
    assert len(batches) == 100
    status = np.full(size, Status.OK)
    status[::50] = Status.NOT_CONVERGED
    timed("record", lambda: [record(state, row, b, status) for b in batches])
    with state.read() as connection:
        counts = timed("status", lambda: campaign_status(connection, row.id))
        relax, eos = counts.stages[:2]
        assert (relax.n_ok, relax.n_failed, eos.n_total) == (0.98 * n, 0.02 * n, 0.98 * n)
        groups = timed("failures", lambda: failure_groups(connection, row.id))
        assert groups[0].count == 0.02 * n
        found = timed("batches", lambda: batches_of(connection, row.id))
        assert len(found) == 100
    (batch, *_) = timed("plan again", lambda: plan(state, row, 1, n // 2))
    with state.read() as connection:
        known = stages_of(connection, row.id)
        found = timed("members", lambda: members(connection, known, 1, batch.id))
        assert len(found.rows) == n // 2
        assert connection.execute(select(func.count()).select_from(task)).scalar() == 1.98 * n
    return seconds

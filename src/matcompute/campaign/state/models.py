"""The campaign state tables: material × stage × attempt × state × centre × AiiDA UUID.

Plain :mod:`sqlalchemy` tables, no mapped classes: a campaign holds up to 10⁶ materials and every step of the dispatcher
is a set-based statement.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = [
    "BATCH_COMPUTED",
    "BATCH_OPEN",
    "BATCH_UNRECORDED",
    "CAMPAIGN_ACTIVE",
    "CAMPAIGN_STATES",
    "CENTRE_STATES",
    "batch",
    "block",
    "campaign",
    "centre",
    "dispatcher",
    "material",
    "metadata",
    "notice",
    "stage",
    "submission",
    "task",
    "usage",
]

#: What a campaign can be, in the order in which it usually happens.
CAMPAIGN_STATES: dict[str, str] = {
    "registered": "waits for the dispatcher",
    "ingesting": "structures are being read and screened",
    "running": "stages are being computed",
    "paused": "nothing new is submitted",
    "over-budget": "the budget is used up; nothing new is submitted",
    "merging": "the dataset is being written",
    "finished": "the dataset is written",
    "stopped": "an error needs attention",
    "cancelled": "cancelled by the user",
}
#: The dispatcher has work with these.
CAMPAIGN_ACTIVE = ("registered", "ingesting", "running", "merging")
# A batch is planned → intent → submitted (→ computed) → finished, or ends as failed or cancelled (its materials are
# ready again).
#: A batch in one of these states may have a process in AiiDA.
BATCH_OPEN = ("intent", "submitted")
#: The process of a single structure has ended; its results are written together with those of others.
BATCH_COMPUTED = "computed"
#: What is not recorded yet.
BATCH_UNRECORDED = (*BATCH_OPEN, BATCH_COMPUTED)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

campaign = Table(
    "campaign",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("title", Text, nullable=False, default=""),
    Column("file", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("budget_core_s", Float),
    Column("state", String(16), nullable=False),
    #: What the user asked for: run, pause or cancel. The dispatcher obeys.
    Column("wanted", String(8), nullable=False, default="run"),
    Column("reason", Text, nullable=False, default=""),
    Column("hint", Text, nullable=False, default=""),
    Column("n_materials", Integer, nullable=False, default=0),
    Column("core_s", Float, nullable=False, default=0.0),
    Column("structures_uuid", String(36)),
    Column("ingest_report", JSON),
    Column("dataset_uuid", String(36)),
    Column("dataset", Text),
    #: Counts how often the campaign was brought back to life by a retry; part of the label of what is made anew.
    Column("revision", Integer, nullable=False, default=0),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
)

stage = Table(
    "stage",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("campaign_id", ForeignKey("campaign.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("name", String(80), nullable=False),
    Column("kind", String(80), nullable=False),
    Column("is_gate", Boolean, nullable=False),
    Column("state", String(16), nullable=False, default="waiting"),
    #: Of a gate: how often it was evaluated anew.
    Column("revision", Integer, nullable=False, default=0),
    Column("gate_uuid", String(36)),
    Column("n_passed", Integer),
    Column("n_considered", Integer),
    Column("started", Float),
    Column("finished", Float),
    UniqueConstraint("campaign_id", "position"),
)

# A material is a row of the campaign's structures file.
material = Table(
    "material",
    metadata,
    Column("campaign_id", ForeignKey("campaign.id", ondelete="CASCADE"), primary_key=True),
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("entry_id", String(120), nullable=False),
    Column("structure_hash", String(32), nullable=False),
    Column("n_sites", Integer, nullable=False),
    #: An elemental reference that the campaign added: computed up to the last hull gate, selected by none.
    Column("is_reference", Boolean, nullable=False, default=False),
    Index("ix_material_entry", "campaign_id", "entry_id"),
    sqlite_with_rowid=False,
)

batch = Table(
    "batch",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("campaign_id", ForeignKey("campaign.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("stage_id", ForeignKey("stage.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    #: ``<campaign uuid>/<stage>/<number>``: the label of the AiiDA process, by which a restart finds it.
    Column("key", String(160), nullable=False, unique=True),
    Column("centre", String(80), nullable=False),
    Column("state", String(16), nullable=False),
    Column("process_uuid", String(36)),
    Column("input_uuid", String(36)),
    Column("result_uuid", String(36)),
    Column("exit_status", Integer),
    Column("message", Text, nullable=False, default=""),
    Column("n_total", Integer, nullable=False),
    Column("n_done", Integer, nullable=False, default=0),
    Column("n_ok", Integer, nullable=False, default=0),
    Column("n_failed", Integer, nullable=False, default=0),
    Column("estimate_s", Float, nullable=False, default=0.0),
    Column("core_s", Float, nullable=False, default=0.0),
    Column("created", Float, nullable=False),
    Column("submitted", Float),
    Column("finished", Float),
    Column("partition", String(80), nullable=False, default="", server_default=""),
    #: Account at the centre that is charged.
    Column("project", String(80), nullable=False, default="", server_default=""),
    #: What is computed (``relax/chgnet``): the key under which costs are measured.
    Column("workload", String(160), nullable=False, default="", server_default=""),
    #: How often it was taken back from a centre and given to another one; part of its process's label.
    Column("attempts", Integer, nullable=False, default=0, server_default="0"),
    #: Expected core-seconds at the centre where it is: the estimate times what was measured there.
    Column("expected_s", Float),
    #: A structure with a process of its own, from the AiiDA plugin of a code.
    Column("single", Boolean, nullable=False, default=False, server_default="0"),
    #: Jobs that it may have in flight at once.
    Column("jobs", Integer, nullable=False, default=1, server_default="1"),
    #: Of a single structure: what the next attempt does otherwise, and how the last one ended.
    Column("remedy", JSON),
    Column("outcome", JSON),
    UniqueConstraint("stage_id", "number"),
    Index("ix_batch_state", "state"),
)

# States: ready → batched → done; superseded by a later attempt. status: matcompute.dataset.Status.
task = Table(
    "task",
    metadata,
    Column("campaign_id", ForeignKey("campaign.id", ondelete="CASCADE"), primary_key=True),
    Column("stage_id", ForeignKey("stage.id", ondelete="CASCADE"), primary_key=True),
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("state", String(10), nullable=False),
    Column("status", Integer, nullable=False, default=0),
    Column("batch_id", ForeignKey("batch.id", ondelete="SET NULL")),
    #: Position in the batch's shard.
    Column("batch_row", Integer),
    Column("message", Text),
    CheckConstraint("state in ('ready','batched','done','superseded')", name="state"),
    Index("ix_task_batch", "batch_id", "batch_row"),
    Index("ix_task_stage_state", "stage_id", "state", "status"),
    sqlite_with_rowid=False,
)

#: What a centre can be.
CENTRE_STATES: dict[str, str] = {
    "up": "takes work",
    "draining": "answers, but starts no jobs: what has not begun goes elsewhere",
    "down": "does not answer: nothing is submitted; what is there is taken up when it is back",
}

centre = Table(
    "centre",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("state", String(10), nullable=False, default="up"),
    Column("reason", Text, nullable=False, default=""),
    Column("since", Float, nullable=False),
    #: When it was asked last, and when it answered last.
    Column("checked", Float),
    Column("answered", Float),
    #: Failed questions in a row.
    Column("failures", Integer, nullable=False, default=0),
    #: The user's jobs and everybody's as the scheduler lists them; see matcompute.centres.schedulers.queue.
    Column("queue", JSON),
    #: Live partitions: {name: {"nodes": …, "state": …}}.
    Column("partitions", JSON),
)

# A centre, or a workload there, that is left alone for a while because a batch failed there.
block = Table(
    "block",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("centre", String(80), nullable=False),
    #: Empty: everything.
    Column("workload", String(160), nullable=False, default=""),
    Column("reason", Text, nullable=False),
    Column("count", Integer, nullable=False, default=1),
    Column("created", Float, nullable=False),
    Column("until", Float, nullable=False),
    UniqueConstraint("centre", "workload"),
)

# Each time that a batch was given to a centre: the log for submissions per minute, and the batch's history.
submission = Table(
    "submission",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("batch_id", ForeignKey("batch.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("campaign_id", ForeignKey("campaign.id", ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("centre", String(80), nullable=False),
    Column("partition", String(80), nullable=False, default=""),
    Column("project", String(80), nullable=False, default=""),
    Column("why", Text, nullable=False, default=""),
    Column("process_uuid", String(36)),
    Column("submitted", Float, nullable=False),
    Column("ended", Float),
    #: finished, failed, cancelled; rerouting (it is being taken back), rerouted, begun (taken back too late).
    Column("outcome", String(16), nullable=False, default=""),
    Column("reason", Text, nullable=False, default=""),
    UniqueConstraint("batch_id", "attempt"),
    Index("ix_submission_centre", "centre", "submitted"),
)

# What each job used: first as its node program says, then as the scheduler's accounting says.
usage = Table(
    "usage",
    metadata,
    Column("id", Integer, primary_key=True),
    #: AiiDA UUID of the job.
    Column("job_uuid", String(36), nullable=False, unique=True),
    Column("batch_id", ForeignKey("batch.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("campaign_id", ForeignKey("campaign.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("stage_id", ForeignKey("stage.id", ondelete="CASCADE"), nullable=False),
    Column("centre", String(80), nullable=False),
    Column("partition", String(80), nullable=False, default=""),
    Column("project", String(80), nullable=False, default=""),
    Column("workload", String(160), nullable=False, default=""),
    Column("job_id", String(40), nullable=False, default=""),
    #: As the scheduler says (COMPLETED, NODE_FAIL, …), else as AiiDA says.
    Column("state", String(40), nullable=False, default=""),
    Column("exit_status", Integer),
    Column("reason", Text, nullable=False, default=""),
    Column("core_s", Float, nullable=False, default=0.0),
    Column("gpu_s", Float, nullable=False, default=0.0),
    Column("wall_s", Float, nullable=False, default=0.0),
    Column("queue_s", Float),
    Column("max_rss_gb", Float),
    Column("node", Text, nullable=False, default=""),
    #: summary (the node program), sacct, qacct.
    Column("source", String(10), nullable=False),
    #: Times that the scheduler was asked in vain.
    Column("asked", Integer, nullable=False, default=0),
    Column("ended", Float, nullable=False),
    Index("ix_usage_centre", "centre", "project"),
    Index("ix_usage_ended", "ended"),
)

# What people are told, once each: written with the event, delivered by the dispatcher.
notice = Table(
    "notice",
    metadata,
    Column("id", Integer, primary_key=True),
    #: Says which event it is; the same event is told once.
    Column("key", String(200), nullable=False, unique=True),
    Column("event", String(16), nullable=False),
    Column("campaign", String(80), nullable=False, default=""),
    Column("centre", String(80), nullable=False, default=""),
    Column("text", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("delivered", Float),
    Column("tries", Integer, nullable=False, default=0),
    Column("next_try", Float, nullable=False, default=0.0),
    Column("error", Text, nullable=False, default=""),
)

# One row: who dispatches in this workspace. The file lock is the truth about "is it alive"; this tells what it does.
dispatcher = Table(
    "dispatcher",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("pid", Integer),
    Column("state", String(16), nullable=False, default="exited"),
    Column("message", Text, nullable=False, default=""),
    Column("started", Float),
    Column("heartbeat", Float),
)

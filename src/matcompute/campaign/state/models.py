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
    "BATCH_OPEN",
    "CAMPAIGN_ACTIVE",
    "CAMPAIGN_STATES",
    "batch",
    "campaign",
    "dispatcher",
    "material",
    "metadata",
    "stage",
    "task",
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
# A batch is planned → intent → submitted → finished, or ends as failed or cancelled (its materials are ready again).
#: A batch in one of these states may have a process in AiiDA.
BATCH_OPEN = ("intent", "submitted")

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

"""Alembic's environment: one SQLite file, given by :func:`matcompute.campaign.state.migrate.upgrade`."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import create_engine, event, pool

from matcompute.campaign.state.models import metadata

path = context.config.attributes["path"]
engine = create_engine(f"sqlite:///{path}", poolclass=pool.NullPool, connect_args={"timeout": 60})


@event.listens_for(engine, "connect")
def _connect(dbapi: Any, _record: Any) -> None:
    dbapi.isolation_level = None
    dbapi.execute("PRAGMA journal_mode=WAL")


@event.listens_for(engine, "begin")
def _begin(connection: Any) -> None:
    # One real transaction: a migration that is killed half way leaves the old schema.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


with engine.connect() as connection:
    # SQLite cannot alter most things: Alembic's batch mode copies the table.
    context.configure(
        connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True
    )
    with context.begin_transaction():
        context.run_migrations()

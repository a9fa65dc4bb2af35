"""Batches of a single structure: jobs in flight, what another attempt does, how the last one ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("batch", sa.Column("single", sa.Boolean(), server_default="0", nullable=False))
    op.add_column("batch", sa.Column("jobs", sa.Integer(), server_default="1", nullable=False))
    op.add_column("batch", sa.Column("remedy", sa.JSON(), nullable=True))
    op.add_column("batch", sa.Column("outcome", sa.JSON(), nullable=True))


def downgrade() -> None:
    for name in ("outcome", "remedy", "jobs", "single"):
        op.drop_column("batch", name)

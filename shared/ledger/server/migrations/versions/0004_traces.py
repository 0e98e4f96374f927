"""Trace and span of an entry."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns ``trace_id`` and ``span_id``."""
    op.add_column("entries", sa.Column("trace_id", sa.String(32)))
    op.add_column("entries", sa.Column("span_id", sa.String(16)))


def downgrade() -> None:
    """Drop the columns ``trace_id`` and ``span_id``."""
    with op.batch_alter_table("entries") as table:
        table.drop_column("trace_id")
        table.drop_column("span_id")

"""Replica of an entry."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column ``replica``."""
    op.add_column("entries", sa.Column("replica", sa.String(64)))


def downgrade() -> None:
    """Drop the column ``replica``."""
    with op.batch_alter_table("entries") as table:
        table.drop_column("replica")

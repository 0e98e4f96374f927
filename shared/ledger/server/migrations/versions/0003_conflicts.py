"""Second ends of attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table ``conflicts``."""
    op.create_table(
        "conflicts",
        sa.Column("attempt_id", sa.String(64), primary_key=True),
        sa.Column("side", sa.String(8), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("received_at", sa.Float(53), nullable=False),
    )


def downgrade() -> None:
    """Drop the table ``conflicts``."""
    op.drop_table("conflicts")

"""What was pruned, and when: the summary says it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; no older ledger was ever pruned."""
    op.create_table(
        "prunings",
        sa.Column("pruned_at", sa.Float(53), primary_key=True),
        sa.Column("received_before", sa.Float(53), nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("cost_lambda", sa.Float(53), nullable=False),
        sa.Column("cost_usd", sa.Float(53), nullable=False),
    )

"""The layer whose output an attempt went on from."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; older rows started from the text."""
    op.add_column("entries", sa.Column("resumed_after", sa.BigInteger))

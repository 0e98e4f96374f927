"""Why a request went where it did, and under which promise."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; of older rows nothing of it is known."""
    op.add_column("entries", sa.Column("decision", sa.String(2000)))
    op.add_column("entries", sa.Column("certificate_id", sa.String(64)))
    op.add_column("entries", sa.Column("degraded", sa.Boolean))

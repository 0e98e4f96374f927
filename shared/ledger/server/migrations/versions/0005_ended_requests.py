"""Index of ended requests by their time."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index ``entries_final``."""
    op.create_index(
        "entries_final",
        "entries",
        ["started_at", "request_id", "policy", "tier", "reason", "state"],
        sqlite_where=sa.text("final = 1 AND side = 'caller'"),
        postgresql_where=sa.text("final AND side = 'caller'"),
    )


def downgrade() -> None:
    """Drop the index ``entries_final``."""
    op.drop_index("entries_final", "entries")

"""Labels of up to 256 characters."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widen the column ``label``."""
    with op.batch_alter_table("entries") as table:
        table.alter_column("label", type_=sa.String(256), existing_type=sa.String(64))


def downgrade() -> None:
    """Narrow the column ``label``."""
    with op.batch_alter_table("entries") as table:
        table.alter_column("label", type_=sa.String(64), existing_type=sa.String(256))

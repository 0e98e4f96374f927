"""The ledger's first schema: the entries, and a record of removed requests."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create both tables and the indexes."""
    op.create_table(
        "entries",
        sa.Column("attempt_id", sa.String(64), primary_key=True),
        sa.Column("side", sa.String(8), primary_key=True),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("ordinal", sa.BigInteger, nullable=False),
        sa.Column("tier", sa.String(8), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(16)),
        sa.Column("policy", sa.String(64)),
        sa.Column("difficulty", sa.String(16)),
        sa.Column("writer", sa.String(64), nullable=False),
        sa.Column("bundle_id", sa.String(64), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("delivery", sa.String(16)),
        sa.Column("error_code", sa.String(64)),
        sa.Column("text_hash", sa.String(64)),
        sa.Column("text_chars", sa.BigInteger),
        sa.Column("tokens", sa.BigInteger),
        sa.Column("label", sa.String(64)),
        sa.Column("confidence", sa.Float(53)),
        sa.Column("exit_layer", sa.BigInteger),
        sa.Column("resumed_after", sa.BigInteger),
        sa.Column("decision_ms", sa.Float(53)),
        sa.Column("queue_ms", sa.Float(53)),
        sa.Column("compute_ms", sa.Float(53)),
        sa.Column("tier_ms", sa.Float(53)),
        sa.Column("round_trip_ms", sa.Float(53)),
        sa.Column("network_ms", sa.Float(53)),
        sa.Column("sent_bytes", sa.BigInteger, nullable=False),
        sa.Column("received_bytes", sa.BigInteger, nullable=False),
        sa.Column("cost_lambda", sa.Float(53)),
        sa.Column("all_cloud_lambda", sa.Float(53)),
        sa.Column("cost_usd", sa.Float(53)),
        sa.Column("energy_mj", sa.Float(53)),
        sa.Column("price_book", sa.String(64)),
        sa.Column("final", sa.Boolean, nullable=False),
        sa.Column("decision", sa.String(2000)),
        sa.Column("certificate_id", sa.String(64)),
        sa.Column("degraded", sa.Boolean),
        sa.Column("received_at", sa.Float(53), nullable=False),
    )
    op.create_index("entries_request_id", "entries", ["request_id"])
    op.create_index("entries_received_at", "entries", ["received_at"])
    op.create_table(
        "prunings",
        sa.Column("pruned_at", sa.Float(53), primary_key=True),
        sa.Column("received_before", sa.Float(53), nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("entries", sa.BigInteger, nullable=False),
        sa.Column("cost_lambda", sa.Float(53), nullable=False),
        sa.Column("cost_usd", sa.Float(53), nullable=False),
    )

"""PostgreSQL: one partition of ``entries`` for each day."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_UPGRADE = r"""
CREATE FUNCTION entry_day(id text) RETURNS date LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE
        WHEN id ~ '^[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$'
            AND left(id, 12) COLLATE "C" >= '016f5e66e800'
            AND left(id, 12) COLLATE "C" < '03bb2cc3d800'
        THEN date '1970-01-01' + (('x' || left(id, 12))::bit(48)::bigint / 86400000)::integer
        ELSE date '1970-01-01'
    END
$$;
ALTER TABLE entries RENAME TO entries_undated;
ALTER TABLE entries_undated DROP CONSTRAINT entries_pkey;
ALTER INDEX entries_request_id RENAME TO entries_undated_request_id;
ALTER INDEX entries_received_at RENAME TO entries_undated_received_at;
ALTER INDEX entries_final RENAME TO entries_undated_final;
ALTER TABLE entries_undated ADD COLUMN day date NOT NULL DEFAULT '1970-01-01';
ALTER TABLE entries_undated ALTER COLUMN day DROP DEFAULT;
CREATE TABLE entries (LIKE entries_undated) PARTITION BY RANGE (day);
ALTER TABLE entries ADD PRIMARY KEY (attempt_id, side, day);
ALTER TABLE entries ADD CONSTRAINT entries_day CHECK (day = entry_day(attempt_id));
CREATE INDEX entries_request_id ON entries (request_id);
CREATE INDEX entries_received_at ON entries (received_at);
CREATE INDEX entries_final ON entries (started_at, request_id, policy, tier, reason, state)
    WHERE final AND side = 'caller';
CREATE TABLE entries_other PARTITION OF entries DEFAULT;
UPDATE entries_undated SET day = entry_day(attempt_id)
    WHERE entry_day(attempt_id) <> date '1970-01-01';
WITH dated AS (DELETE FROM entries_undated WHERE day <> date '1970-01-01' RETURNING *)
    INSERT INTO entries_other SELECT * FROM dated;
ALTER TABLE entries_undated ADD PRIMARY KEY (attempt_id, side, day);
ALTER TABLE entries_undated ADD CONSTRAINT entries_day CHECK (day = entry_day(attempt_id));
ALTER TABLE entries ATTACH PARTITION entries_undated FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
"""

_DOWNGRADE = """
ALTER TABLE entries RENAME TO entries_by_day;
ALTER INDEX entries_pkey RENAME TO entries_by_day_pkey;
ALTER INDEX entries_request_id RENAME TO entries_by_day_request_id;
ALTER INDEX entries_received_at RENAME TO entries_by_day_received_at;
ALTER INDEX entries_final RENAME TO entries_by_day_final;
CREATE TABLE entries (LIKE entries_by_day);
INSERT INTO entries SELECT * FROM entries_by_day;
DROP TABLE entries_by_day;
ALTER TABLE entries DROP COLUMN day;
ALTER TABLE entries ADD PRIMARY KEY (attempt_id, side);
CREATE INDEX entries_request_id ON entries (request_id);
CREATE INDEX entries_received_at ON entries (received_at);
CREATE INDEX entries_final ON entries (started_at, request_id, policy, tier, reason, state)
    WHERE final AND side = 'caller';
DROP FUNCTION entry_day(text);
"""


def upgrade() -> None:
    """Make the table the partition of undated entries, and move dated ones out of it.

    ``shared.ids.day_of`` is the same function as ``entry_day``. Rows with identifiers that have no
    time, such as all of earlier versions of the mobile, stay where they are.
    """
    _run(_UPGRADE)


def downgrade() -> None:
    """Copy all partitions into one table."""
    _run(_DOWNGRADE)


def _run(statements: str) -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        for statement in statements.strip().split(";\n"):
            connection.exec_driver_sql(statement)

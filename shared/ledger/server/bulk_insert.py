"""Inserts many entries with one statement, in the fastest way of each database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

import sqlalchemy as sa
from pydantic import TypeAdapter

from shared.domain import Side, State
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.tables import entries

KEY = ("attempt_id", "side")
ENTRY_COLUMNS = tuple(column.name for column in entries.c if column.name != "received_at")
"""Columns of ``entries`` that hold the fields of a `LedgerEntry`."""
entry_values: attrgetter[tuple[object, ...]] = attrgetter(*ENTRY_COLUMNS)
"""Return the values of an entry, in the order of `ENTRY_COLUMNS`."""
_LIST = TypeAdapter(list[LedgerEntry])
_COLUMNS = ", ".join([*ENTRY_COLUMNS, "received_at"])
_ON_CONFLICT = (
    "DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in [*ENTRY_COLUMNS, "received_at"])
    + f" WHERE entries.state = '{State.OPEN}' AND excluded.state <> '{State.OPEN}'"
)
_PLACEHOLDERS = ", ".join("?" * (len(ENTRY_COLUMNS) + 1))
_SQLITE = (
    f"INSERT INTO entries ({_COLUMNS}) VALUES ({_PLACEHOLDERS}) "
    f"ON CONFLICT (attempt_id, side) {_ON_CONFLICT}"
)
# One JSON parameter for all rows, parsed by PostgreSQL: binding each value takes ten times as long.
# The day is that of the attempt's identifier, so that each key has one partition.
_POSTGRESQL = (
    f"INSERT INTO entries ({_COLUMNS}, day) "
    f"SELECT {', '.join(ENTRY_COLUMNS)}, %s::float8, entry_day(attempt_id) "
    "FROM json_populate_recordset(NULL::entries, %s::json) "
    f"ON CONFLICT (attempt_id, side, day) {_ON_CONFLICT}"
)


def first_ends(delivered: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """Return one entry for each key: its first end, or its last entry if it has no end."""
    rows: dict[tuple[str, Side], LedgerEntry] = {}
    for entry in delivered:
        kept = rows.setdefault((entry.attempt_id, entry.side), entry)
        if not kept.is_terminal:
            rows[entry.attempt_id, entry.side] = entry
    return list(rows.values())


def insert_entries(
    connection: sa.Connection, rows: Sequence[LedgerEntry], received_at: float
) -> int:
    """Insert new rows and replace open ones by their ends; return the number of changed rows.

    The keys of ``rows`` must be distinct. ``received_at`` is in seconds since 1970.
    """
    # in the order of the key: two batches with the same rows must not deadlock
    rows = sorted(rows, key=attrgetter(*KEY))
    if connection.dialect.name == "sqlite":
        values = [(*entry_values(row), received_at) for row in rows]
        return connection.exec_driver_sql(_SQLITE, values).rowcount
    document = _LIST.dump_json(rows).decode()
    return connection.exec_driver_sql(_POSTGRESQL, (received_at, document)).rowcount

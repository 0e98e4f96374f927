"""Writes a delivery in one statement, as fast as each database can take it."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import sqlalchemy as sa
from pydantic import TypeAdapter

from shared.domain import State
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.tables import entries

KEY = ("attempt_id", "side")
_FIELDS = [column.name for column in entries.c if column.name != "received_at"]
_values = attrgetter(*_FIELDS)
_LIST = TypeAdapter(list[LedgerEntry])
_COLUMNS = ", ".join([*_FIELDS, "received_at"])
_FINAL = (
    "ON CONFLICT (attempt_id, side) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in [*_FIELDS, "received_at"])
    + f" WHERE entries.state = '{State.OPEN}' AND excluded.state <> '{State.OPEN}'"
)
_SQLITE = (
    f"INSERT INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * (len(_FIELDS) + 1))}) {_FINAL}"
)
# One parameter whatever the number of rows, and the parsing is PostgreSQL's: binding every value
# by itself takes ten times as long.
_POSTGRESQL = (
    f"INSERT INTO entries ({_COLUMNS}) SELECT {', '.join(_FIELDS)}, %s::float8 "
    f"FROM json_populate_recordset(NULL::entries, %s::json) {_FINAL}"
)


def write(connection: sa.Connection, rows: Sequence[LedgerEntry], received_at: float) -> int:
    """Insert rows, or end open ones; how many changed the ledger.

    The keys must be distinct. ``received_at``: seconds since 1970.
    """
    # always in the order of the key: two deliveries of the same rows must not wait for each other
    rows = sorted(rows, key=attrgetter(*KEY))
    if connection.dialect.name == "sqlite":
        values = [(*_values(row), received_at) for row in rows]
        return connection.exec_driver_sql(_SQLITE, values).rowcount
    document = _LIST.dump_json(rows).decode()
    return connection.exec_driver_sql(_POSTGRESQL, (received_at, document)).rowcount

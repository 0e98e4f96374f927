"""The ledger's list of ended requests."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from shared.domain import Side
from shared.ledger.entry import LedgerEntry
from shared.ledger.request_list import RequestFilter, RequestRecord
from shared.ledger.server.store import LedgerStore, entry_of
from shared.ledger.server.tables import entries


def list_requests(store: LedgerStore, requested: RequestFilter) -> list[RequestRecord]:
    """Return the requests that fit ``requested``, newest first.

    The index ``entries_final`` gives them in this order: a list reads only its part between
    ``until`` and ``since``, and stops at ``limit``.
    """
    by_request: dict[str, list[LedgerEntry]] = {}
    with store.connect() as connection:
        for name in connection.scalars(final_attempts(requested)):
            by_request[name] = []
        query = sa.select(entries).where(
            entries.c.side == Side.CALLER.value, entries.c.request_id.in_(by_request)
        )
        for row in connection.execute(query).mappings():
            by_request[row["request_id"]].append(entry_of(row))
    records = (RequestRecord.of(attempts) for attempts in by_request.values())
    return [record for record in records if record is not None]


def final_attempts(requested: RequestFilter) -> sa.Select[Any]:
    """Select the names of the requests whose final attempt fits ``requested``, newest first."""
    column = entries.c
    # written out, since SQLite compares the query with the index before it knows parameters
    caller = sa.literal(Side.CALLER.value, literal_execute=True)
    conditions = [column.final, column.side == caller]
    if requested.since is not None:
        conditions.append(column.started_at >= requested.since)
    if requested.until is not None:
        conditions.append(column.started_at < requested.until)
    for name in ("policy", "tier", "reason", "state"):
        value = getattr(requested, name)
        if value is not None:
            conditions.append(column[name] == str(value))
    return (
        sa.select(column.request_id)
        .where(*conditions)
        .order_by(column.started_at.desc(), column.request_id.desc())
        .limit(requested.limit)
    )

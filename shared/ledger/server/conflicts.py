"""Conflicts: deliveries that give an attempt another end than the one that is stored.

An attempt ends once for each side. The same entry may be delivered again and changes nothing. An
entry with another end is a mistake of its writer, such as one ``attempt_id`` for many attempts. The
first end stays; the others are kept in the table ``conflicts``, and `verify` reports them. An end
that a later process assumed for an attempt of a process that died is no conflict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

import sqlalchemy as sa

from shared.ledger.entry import PROCESS_DIED, LedgerEntry
from shared.ledger.server.bulk_insert import ENTRY_COLUMNS, entry_values
from shared.ledger.server.partitions import on_days_of
from shared.ledger.server.tables import conflicts, entries

_KEYS_AT_ONCE = 500
_INSERT = sa.text(
    "INSERT INTO conflicts (attempt_id, side, digest, entry, received_at) "
    "VALUES (:attempt_id, :side, :digest, :entry, :received_at) ON CONFLICT DO NOTHING"
)


def other_ends(connection: sa.Connection, delivered: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Return the delivered ends that differ from the stored end of the same attempt."""
    ends = iter([entry for entry in delivered if entry.is_end])
    found: list[LedgerEntry] = []
    while batch := list(islice(ends, _KEYS_AT_ONCE)):
        stored = dict(_stored(connection, {entry.attempt_id for entry in batch}))
        for entry in batch:
            values = stored.get((entry.attempt_id, entry.side.value))
            if values is not None and values != entry_values(entry):
                found.append(entry)
    return found


def record_conflicts(
    connection: sa.Connection, delivered: Sequence[LedgerEntry], received_at: float
) -> int:
    """Keep the delivered ends that differ from the stored ones; return their number."""
    found = other_ends(connection, delivered)
    rows = []
    for entry in found:
        document = entry.model_dump_json()
        rows.append(
            {
                "attempt_id": entry.attempt_id,
                "side": entry.side.value,
                "digest": hashlib.sha256(document.encode()).hexdigest(),
                "entry": document,
                "received_at": received_at,
            }
        )
    if rows:
        connection.execute(_INSERT, rows)
    return len(rows)


def count_conflicts(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    """Return the number of ends that are not stored because another end is."""
    query = sa.select(sa.func.count()).select_from(conflicts).where(condition)
    return connection.execute(query).scalar_one()


def _stored(
    connection: sa.Connection, attempt_ids: set[str]
) -> Iterator[tuple[tuple[str, str], tuple[object, ...]]]:
    query = sa.select(*(entries.c[name] for name in ENTRY_COLUMNS)).where(
        entries.c.attempt_id.in_(attempt_ids),
        on_days_of(connection, attempt_ids),
        entries.c.error_code.is_distinct_from(PROCESS_DIED),
    )
    for row in connection.execute(query):
        values = dict(zip(ENTRY_COLUMNS, row, strict=True))
        yield (values["attempt_id"], values["side"]), tuple(row)

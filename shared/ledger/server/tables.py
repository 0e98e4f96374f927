"""Tables of the ledger, for SQLite and PostgreSQL.

A new column of ``entries`` also needs a field in `shared.ledger.entry.LedgerEntry` and a migration.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from shared.field_types import MAX_LABEL_CHARS, MAX_NOTE_CHARS, MAX_WORD_CHARS

metadata = MetaData()

_WORD = String(MAX_WORD_CHARS)

entries = Table(
    "entries",
    metadata,
    Column("attempt_id", _WORD, primary_key=True),
    Column("side", String(8), primary_key=True),
    Column("request_id", _WORD, nullable=False),
    Column("ordinal", BigInteger, nullable=False),
    Column("tier", String(8), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(16)),
    Column("policy", _WORD),
    Column("difficulty", String(16)),
    Column("writer", _WORD, nullable=False),
    Column("bundle_id", _WORD, nullable=False),
    Column("started_at", Float(53), nullable=False),
    Column("delivery", String(16)),
    Column("error_code", _WORD),
    Column("text_hash", _WORD),
    Column("text_chars", BigInteger),
    Column("tokens", BigInteger),
    Column("label", String(MAX_LABEL_CHARS)),
    Column("confidence", Float(53)),
    Column("exit_layer", BigInteger),
    Column("resumed_after", BigInteger),
    Column("decision_ms", Float(53)),
    Column("queue_ms", Float(53)),
    Column("compute_ms", Float(53)),
    Column("tier_ms", Float(53)),
    Column("round_trip_ms", Float(53)),
    Column("network_ms", Float(53)),
    Column("sent_bytes", BigInteger, nullable=False),
    Column("received_bytes", BigInteger, nullable=False),
    Column("cost_lambda", Float(53)),
    Column("all_cloud_lambda", Float(53)),
    Column("cost_usd", Float(53)),
    Column("energy_mj", Float(53)),
    Column("price_book", _WORD),
    Column("final", Boolean, nullable=False),
    Column("decision", String(MAX_NOTE_CHARS)),
    Column("certificate_id", _WORD),
    Column("degraded", Boolean),
    Column("trace_id", String(32)),
    Column("span_id", String(16)),
    Column("replica", _WORD),
    Column("received_at", Float(53), nullable=False),
    Index("entries_request_id", "request_id"),
    Index("entries_received_at", "received_at"),
)
Index(
    "entries_final",
    *(
        entries.c[name]
        for name in ("started_at", "request_id", "policy", "tier", "reason", "state")
    ),
    sqlite_where=text("final = 1 AND side = 'caller'"),  # as SQLAlchemy writes it in a query
    postgresql_where=text("final AND side = 'caller'"),
)
"""One row for each ended request, with all that `request_list.final_attempts` compares."""

conflicts = Table(
    "conflicts",
    metadata,
    Column("attempt_id", _WORD, primary_key=True),
    Column("side", String(8), primary_key=True),
    Column("digest", _WORD, primary_key=True),
    Column("entry", Text, nullable=False),
    Column("received_at", Float(53), nullable=False),
)
"""Ends of attempts that have another end in ``entries``; ``entry`` is JSON, ``digest`` its hash."""

prunings = Table(
    "prunings",
    metadata,
    Column("pruned_at", Float(53), primary_key=True),
    Column("received_before", Float(53), nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("entries", BigInteger, nullable=False),
    Column("cost_lambda", Float(53), nullable=False),
    Column("cost_usd", Float(53), nullable=False),
)

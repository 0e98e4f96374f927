"""Entries that each replica of a tier has not delivered, for `verify`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from shared.domain import Side, State
from shared.ledger.reports import ReplicaGap
from shared.ledger.server.tables import entries

MAX_REPLICAS = 100
_is_tier = entries.c.side == Side.TIER.value
_is_open = _is_tier & (entries.c.state == State.OPEN.value)


def missing_by_replica(
    connection: sa.Connection,
    pairs: sa.FromClause,
    caller: sa.FromClause,
    without_tier: sa.ColumnElement[bool],
    among: sa.ColumnElement[bool],
) -> list[ReplicaGap]:
    """Return the replicas of which entries or ends are missing, at most `MAX_REPLICAS`.

    ``without_tier`` is the condition on the rows of ``caller`` in ``pairs`` whose tier has recorded
    nothing, although the caller got its response. ``among`` selects the ``entries`` to look at.
    """
    missing = _counts(
        connection,
        sa.select(caller.c.tier, caller.c.replica, sa.func.count())
        .select_from(pairs)
        .where(without_tier)
        .group_by(caller.c.tier, caller.c.replica),
    )
    opened = _counts(
        connection,
        sa.select(entries.c.tier, entries.c.replica, sa.func.count())
        .where(_is_open & among)
        .group_by(entries.c.tier, entries.c.replica),
    )
    gaps = []
    replicas = sorted({*missing, *opened}, key=lambda key: (key[0], key[1] or ""))
    for tier, replica in replicas[:MAX_REPLICAS]:
        of_replica = _is_tier & (entries.c.tier == tier) & (entries.c.replica == replica)
        latest = sa.select(sa.func.max(entries.c.received_at)).where(of_replica)
        gaps.append(
            ReplicaGap(
                tier=tier,
                replica=replica,
                missing=missing.get((tier, replica), 0),
                open=opened.get((tier, replica), 0),
                received_at=None if replica is None else connection.execute(latest).scalar(),
            )
        )
    return gaps


def _counts(connection: sa.Connection, query: sa.Select[Any]) -> dict[tuple[str, str | None], int]:
    return {(row[0], row[1]): int(row[2]) for row in connection.execute(query)}

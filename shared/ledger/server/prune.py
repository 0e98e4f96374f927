"""Retention: remove old requests, each as a whole, except open, unpaired and twice ended ones."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

from shared.domain import Delivery, Side, State
from shared.ledger.reports import Pruned
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.tables import conflicts, entries, prunings

REQUESTS_PER_TRANSACTION = 2_000
"""Requests examined in one transaction; a delivery waits for at most one transaction."""

_partner = entries.alias("partner")
_unpaired = _partner.c.attempt_id.is_(None)
_may_be_unpaired = (entries.c.side == Side.CALLER.value) & entries.c.delivery.is_distinct_from(
    Delivery.ARRIVED.value
)
# still open, its partner is missing or belongs to another request, or it ended twice
_unfinished = sa.or_(
    entries.c.state == State.OPEN.value,
    sa.case((_unpaired, ~_may_be_unpaired), else_=_partner.c.request_id != entries.c.request_id),
    entries.c.attempt_id.in_(sa.select(conflicts.c.attempt_id)),
)


def prune(store: LedgerStore, older_than_s: float, dry_run: bool = False) -> Pruned:
    """Remove the requests whose last entry arrived more than ``older_than_s`` seconds ago.

    Age is measured by the ledger's clock. Requests with an attempt that is open, unpaired or has
    two ends are kept and counted. If the process is killed meanwhile, every request is either
    complete or removed, and the removed ones are recorded. With ``dry_run`` nothing is changed.
    """
    now = time.time()
    before = now - older_than_s
    result = Pruned(received_before=before)
    after = ""
    while True:
        with store.connect(writing=True) as connection:
            page = connection.execute(_page(after)).all()
            if not page:
                return result
            after = page[-1].request_id
            old = [row for row in page if row.received_at < before]
            removable = [row for row in old if not row.unfinished]
            page_result = Pruned(
                received_before=before,
                requests=len(removable),
                entries=sum(row.entries for row in removable),
                kept=len(old) - len(removable),
                cost_lambda=sum(row.cost_lambda for row in removable),
                cost_usd=sum(row.cost_usd for row in removable),
            )
            result += page_result
            if removable and not dry_run:
                names = [row.request_id for row in removable]
                connection.execute(entries.delete().where(entries.c.request_id.in_(names)))
                _record_pruning(connection, now, result)


def total_pruned(connection: sa.Connection) -> Pruned | None:
    """Return the sum of all removals; None if nothing has been removed."""
    total = prunings.c
    row = connection.execute(
        sa.select(
            sa.func.max(total.received_before),
            *(sa.func.sum(total[name]) for name in _SUMS),
        )
    ).one()
    if row[0] is None:
        return None
    sums = dict(zip(_SUMS, row[1:], strict=True))
    return Pruned(received_before=row[0], **sums)


_SUMS = ("requests", "entries", "cost_lambda", "cost_usd")


def _record_pruning(connection: sa.Connection, now: float, result: Pruned) -> None:
    facts = {name: getattr(result, name) for name in ("received_before", *_SUMS)}
    changed = connection.execute(
        prunings.update().where(prunings.c.pruned_at == now).values(**facts)
    )
    if not changed.rowcount:
        connection.execute(prunings.insert().values(pruned_at=now, **facts))


def _page(after: str) -> sa.Select[Any]:
    """Select the next requests by identifier, each with its age, size, cost and open rows."""
    names = (
        sa.select(entries.c.request_id)
        .where(entries.c.request_id > after)
        .group_by(entries.c.request_id)
        .order_by(entries.c.request_id)
        .limit(REQUESTS_PER_TRANSACTION)
        .subquery()
    )
    pairs = entries.outerjoin(
        _partner,
        (_partner.c.attempt_id == entries.c.attempt_id) & (_partner.c.side != entries.c.side),
    )
    return (
        sa.select(
            entries.c.request_id,
            sa.func.max(entries.c.received_at).label("received_at"),
            sa.func.count().label("entries"),
            sa.func.sum(sa.case((_unfinished, 1), else_=0)).label("unfinished"),
            sa.func.coalesce(sa.func.sum(entries.c.cost_lambda), 0.0).label("cost_lambda"),
            sa.func.coalesce(sa.func.sum(entries.c.cost_usd), 0.0).label("cost_usd"),
        )
        .select_from(pairs)
        .where(entries.c.request_id.in_(sa.select(names.c.request_id)))
        .group_by(entries.c.request_id)
        .order_by(entries.c.request_id)
    )

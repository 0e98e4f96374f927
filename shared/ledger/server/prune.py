"""Retention: forgets old requests, each as a whole, and keeps what is not settled."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa

from shared.domain import Delivery, Side, State
from shared.ledger.reports import Pruned
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.tables import entries, prunings

AT_ONCE = 2_000
"""Requests forgotten in one transaction: a delivery waits for no more than these."""

_partner = entries.alias("partner")
_alone = _partner.c.attempt_id.is_(None)
_may_be_alone = (entries.c.side == Side.CALLER.value) & entries.c.delivery.is_distinct_from(
    Delivery.ARRIVED.value
)
# still open, or half of a pair whose other half is missing or stands in another request
_unsettled = (entries.c.state == State.OPEN.value) | sa.case(
    (_alone, ~_may_be_alone), else_=_partner.c.request_id != entries.c.request_id
)


def prune(store: LedgerStore, older_than_s: float, dry_run: bool = False) -> Pruned:
    """Forget the requests whose last entry came in more than ``older_than_s`` seconds ago.

    By the ledger's own clock. A request with an open attempt, or with half of a pair, is kept and
    counted. Killed half-way it leaves whole requests only, and what it did is on record.
    """
    now = time.time()
    before = now - older_than_s
    done = Pruned(received_before=before)
    after = ""
    while True:
        with store.connect(writing=True) as connection:
            page = connection.execute(_page(after)).all()
            if not page:
                return done
            after = page[-1].request_id
            old = [row for row in page if row.received_at < before]
            gone = [row for row in old if not row.unsettled]
            part = Pruned(
                received_before=before,
                requests=len(gone),
                entries=sum(row.entries for row in gone),
                kept=len(old) - len(gone),
                cost_lambda=sum(row.cost_lambda for row in gone),
                cost_usd=sum(row.cost_usd for row in gone),
            )
            done = done.plus(part)
            if gone and not dry_run:
                names = [row.request_id for row in gone]
                connection.execute(entries.delete().where(entries.c.request_id.in_(names)))
                _book(connection, now, done)


def pruned(connection: sa.Connection) -> Pruned | None:
    """All that was ever pruned; None: nothing."""
    total = prunings.c
    row = connection.execute(
        sa.select(
            sa.func.max(total.received_before),
            *(sa.func.sum(total[name]) for name in _BOOKED),
        )
    ).one()
    if row[0] is None:
        return None
    sums = dict(zip(_BOOKED, row[1:], strict=True))
    return Pruned(received_before=row[0], **sums)


_BOOKED = ("requests", "entries", "cost_lambda", "cost_usd")


def _book(connection: sa.Connection, now: float, done: Pruned) -> None:
    facts = {name: getattr(done, name) for name in ("received_before", *_BOOKED)}
    changed = connection.execute(
        prunings.update().where(prunings.c.pruned_at == now).values(**facts)
    )
    if not changed.rowcount:
        connection.execute(prunings.insert().values(pruned_at=now, **facts))


def _page(after: str) -> sa.Select[Any]:
    """The next requests in the order of their names, each with what decides over it."""
    names = (
        sa.select(entries.c.request_id)
        .where(entries.c.request_id > after)
        .group_by(entries.c.request_id)
        .order_by(entries.c.request_id)
        .limit(AT_ONCE)
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
            sa.func.sum(sa.case((_unsettled, 1), else_=0)).label("unsettled"),
            sa.func.coalesce(sa.func.sum(entries.c.cost_lambda), 0.0).label("cost_lambda"),
            sa.func.coalesce(sa.func.sum(entries.c.cost_usd), 0.0).label("cost_usd"),
        )
        .select_from(pairs)
        .where(entries.c.request_id.in_(sa.select(names.c.request_id)))
        .group_by(entries.c.request_id)
        .order_by(entries.c.request_id)
    )

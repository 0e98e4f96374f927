"""Retention: remove old requests, each as a whole, except open, unpaired and twice ended ones.

In PostgreSQL, a day of which every request is to be removed is dropped with its partition, which
takes the same time for any number of entries. The others are deleted by request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from shared.domain import Delivery, Side, State
from shared.errors import LedgerUnavailable
from shared.ids import first_id
from shared.ledger.reports import Pruned
from shared.ledger.server.partitions import (
    days_besides,
    existing_days,
    is_lock_timeout,
    is_of_day,
    lock_partitions,
    on_days,
    partition_of,
)
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.tables import conflicts, entries, prunings

log = logging.getLogger(__name__)

REQUESTS_PER_TRANSACTION = 2_000
"""Requests examined in one transaction; a delivery waits for at most one transaction."""

_TOO_YOUNG = Pruned(received_before=0.0)
_partner = entries.alias("partner")
_is_partner = (_partner.c.attempt_id == entries.c.attempt_id) & (_partner.c.side != entries.c.side)
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
    days: list[date] | None = None
    if store.dialect == "postgresql":
        result, done = _prune_days(store, now, result, dry_run)
        with store.connect() as connection:
            days = days_besides(connection, done)
    after = ""
    while True:
        with store.connect(writing=True) as connection:
            names = connection.scalars(_names(after, days)).all()
            if not names:
                return result
            after = names[-1]
            page = connection.execute(_page(names)).all()
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


def _prune_days(
    store: LedgerStore, now: float, result: Pruned, dry_run: bool
) -> tuple[Pruned, set[date]]:
    """Drop the partitions of days that can be removed as a whole.

    Returns the sum, and the days that need no other look: dropped, too young, or in use.
    """
    done: set[date] = set()
    with store.connect() as connection:
        days = existing_days(connection)
    for day in days:
        try:
            with store.connect(writing=True) as connection:
                removed = _removed_day(connection, day, result.received_before)
                if removed is None:
                    continue
                total = result
                if removed is not _TOO_YOUNG:
                    total += removed
                    if not dry_run:
                        connection.exec_driver_sql(f"DROP TABLE {partition_of(day)}")
                        store.partitions.forget()
                        if removed.requests:
                            _record_pruning(connection, now, total)
        except LedgerUnavailable as error:
            if not is_lock_timeout(error):
                raise
            total = result
            log.warning("retention: the entries of %s are in use; they are removed later", day)
        result = total
        done.add(day)
    return result, done


def _removed_day(connection: sa.Connection, day: date, before: float) -> Pruned | None:
    """Return the sum of a day that can be removed as a whole, whose table is then locked.

    Returns `_TOO_YOUNG` if every entry is, or may be: a day that has none yet. Returns None if only
    some requests are removed.
    """
    arrived = (sa.func.min(entries.c.received_at), sa.func.max(entries.c.received_at))
    oldest, newest = connection.execute(
        sa.select(*arrived).where(is_of_day(connection, entries, day))
    ).one()
    over = day < datetime.fromtimestamp(before, UTC).date()
    if not over if oldest is None else oldest >= before:
        return _TOO_YOUNG
    if newest is not None and newest >= before:
        return None
    lock_partitions(connection)
    connection.exec_driver_sql(f"LOCK TABLE {partition_of(day)} IN SHARE ROW EXCLUSIVE MODE")
    of_day = is_of_day(connection, entries, day)
    # a client with identifiers of its own may have attempts of a request on several days
    other_day = sa.func.entry_day(entries.c.request_id) != day
    elsewhere = sa.select(entries.c.attempt_id).where(
        ~of_day,
        entries.c.request_id >= first_id(day),
        entries.c.request_id < first_id(day + timedelta(1)),
    )
    pairs = entries.outerjoin(_partner, _is_partner & is_of_day(connection, _partner, day))
    row = connection.execute(
        sa.select(
            sa.func.max(entries.c.received_at).label("received_at"),
            sa.func.count(entries.c.request_id.distinct()).label("requests"),
            sa.func.count().label("entries"),
            sa.func.sum(sa.case((_unfinished | other_day, 1), else_=0)).label("kept"),
            sa.func.coalesce(sa.func.sum(entries.c.cost_lambda), 0.0).label("cost_lambda"),
            sa.func.coalesce(sa.func.sum(entries.c.cost_usd), 0.0).label("cost_usd"),
        )
        .select_from(pairs)
        .where(of_day)
    ).one()
    if row.kept or (row.received_at is not None and row.received_at >= before):
        return None
    if connection.execute(elsewhere.limit(1)).first() is not None:
        return None
    return Pruned(received_before=before, **{name: getattr(row, name) for name in _SUMS})


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


def _names(after: str, days: Sequence[date] | None) -> sa.Select[Any]:
    """Select the next requests by identifier that have entries on these days; None for all days."""
    query = sa.select(entries.c.request_id).where(entries.c.request_id > after)
    if days is not None:
        query = query.where(on_days(days))
    query = query.group_by(entries.c.request_id).order_by(entries.c.request_id)
    return query.limit(REQUESTS_PER_TRANSACTION)


def _page(names: Sequence[str]) -> sa.Select[Any]:
    """Select these requests, each with its age, size, cost and open rows."""
    pairs = entries.outerjoin(_partner, _is_partner)
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
        .where(entries.c.request_id.in_(names))
        .group_by(entries.c.request_id)
        .order_by(entries.c.request_id)
    )

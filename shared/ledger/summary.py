"""Shares, percentiles, bytes and costs over the whole ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa

from shared.ledger.entry import Reason, Side, State
from shared.ledger.reports import Audits, Percentiles, Summary
from shared.ledger.store import LedgerStore
from shared.ledger.tables import entries

_DURATIONS = ("decision_ms", "queue_ms", "compute_ms", "network_ms", "round_trip_ms")
_by_callers = entries.c.side == Side.CALLER.value
_audit = _by_callers & (entries.c.reason == Reason.AUDIT.value)
# an audit answers nobody: it is in no share, no duration and no cost of an answer
_callers = _by_callers & entries.c.reason.is_distinct_from(Reason.AUDIT.value)
_final = _callers & entries.c.final
_answered = _final & (entries.c.state == State.ANSWERED.value)


def summarise(store: LedgerStore) -> Summary:
    """Summarise the callers' side: every attempt once, audits apart."""
    with store.connect() as connection:

        def counts(column: Any, condition: sa.ColumnElement[bool]) -> dict[str, int]:
            query = sa.select(column, sa.func.count()).where(condition).group_by(column)
            rows = connection.execute(query.order_by(column))
            return {str(row[0]): int(row[1]) for row in rows if row[0] is not None}

        def total(column: Any, condition: sa.ColumnElement[bool] = _callers) -> float:
            query = sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(condition)
            return float(connection.execute(query).scalar_one())

        exits: dict[str, dict[str, int]] = {}
        by_exit = sa.select(entries.c.tier, entries.c.exit_layer, sa.func.count())
        by_exit = by_exit.where(_answered).group_by(entries.c.tier, entries.c.exit_layer)
        for tier, layer, count in connection.execute(
            by_exit.order_by(entries.c.tier, entries.c.exit_layer)
        ):
            exits.setdefault(tier, {})[str(layer)] = count

        answered = counts(entries.c.tier, _answered)
        ended = sum(counts(entries.c.state, _final).values())
        over = _answered & (entries.c.reason == Reason.FAIL_OVER.value)
        reasons = counts(entries.c.reason, _callers)
        distinct = sa.select(sa.func.count(sa.distinct(entries.c.request_id)))
        requests = connection.execute(distinct).scalar_one()
        # requests, not attempts: one may go on twice, and end at a tier that it failed over to
        went_on = _callers & (entries.c.reason == Reason.ESCALATE.value)
        escalated = connection.execute(distinct.where(went_on)).scalar_one()
        return Summary(
            requests=requests,
            answered=sum(answered.values()),
            failed=ended - sum(answered.values()),
            failed_over=sum(counts(entries.c.tier, over).values()),
            escalated=escalated,
            degraded=sum(counts(entries.c.tier, _final & entries.c.degraded).values()),
            audits=_audits(connection),
            answered_by_tier=answered,
            exits_by_tier=exits,
            attempts_by_state=counts(entries.c.state, _callers),
            attempts_by_reason=reasons,
            requests_by_policy=counts(entries.c.policy, _final),
            durations=_durations(connection),
            sent_bytes=int(total(entries.c.sent_bytes)),
            received_bytes=int(total(entries.c.received_bytes)),
            cost_lambda=total(entries.c.cost_lambda),
            all_cloud_lambda=total(entries.c.all_cloud_lambda, _final),
            cost_usd=total(entries.c.cost_usd),
            energy_mj=total(entries.c.energy_mj),
            price_books=list(counts(entries.c.price_book, _callers)),
        )


def _audits(connection: sa.Connection) -> Audits:
    final = entries.alias("final")
    compared = sa.case((entries.c.state == State.ANSWERED.value, 1), else_=0)
    differ = sa.case((entries.c.label != final.c.label, 1), else_=0)
    sums = [
        compared,
        compared * differ,
        *(
            entries.c[name]
            for name in ("sent_bytes", "received_bytes", "cost_lambda", "cost_usd", "energy_mj")
        ),
    ]
    given = (
        (final.c.request_id == entries.c.request_id)
        & (final.c.side == Side.CALLER.value)
        & final.c.final
    )
    row = connection.execute(
        sa.select(sa.func.count(), *(sa.func.coalesce(sa.func.sum(one), 0) for one in sums))
        .select_from(entries.outerjoin(final, given))
        .where(_audit)
    ).one()
    attempts, n, differing, sent, received = (int(value) for value in row[:5])
    cost_lambda, cost_usd, energy_mj = (float(value) for value in row[5:])
    return Audits(
        attempts=attempts,
        compared=n,
        differ=differing,
        sent_bytes=sent,
        received_bytes=received,
        cost_lambda=cost_lambda,
        cost_usd=cost_usd,
        energy_mj=energy_mj,
    )


def _durations(connection: sa.Connection) -> list[Percentiles]:
    columns = [entries.c[name] for name in _DURATIONS]
    rows: Sequence[Any] = connection.execute(
        sa.select(entries.c.tier, *columns)
        .where(_callers & (entries.c.state == State.ANSWERED.value))
        .order_by(entries.c.tier)
    ).all()
    result = []
    for tier in sorted({row[0] for row in rows}):
        for number, what in enumerate(_DURATIONS, start=1):
            values = [row[number] for row in rows if row[0] == tier and row[number] is not None]
            if values:
                p50, p95, p99 = (float(p) for p in np.percentile(values, (50, 95, 99)))
                result.append(
                    Percentiles(tier=tier, what=what, count=len(values), p50=p50, p95=p95, p99=p99)
                )
    return result

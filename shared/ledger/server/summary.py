"""Summary of the whole ledger: shares, percentiles, bytes and costs."""

from __future__ import annotations

import math
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import sqlalchemy as sa

from shared.domain import Reason, Side, State
from shared.ledger.reports import Audits, Percentiles, ReplicaCount, Summary
from shared.ledger.server.prune import total_pruned
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.tables import entries

_DURATIONS = ("decision_ms", "queue_ms", "compute_ms", "network_ms", "round_trip_ms")
_ROWS_AT_ONCE = 5_000
_MAX_REPLICAS = 100
_by_callers = entries.c.side == Side.CALLER.value
_audit = _by_callers & (entries.c.reason == Reason.AUDIT.value)
# audits give no answers, so they are left out of shares, durations and costs
_callers = _by_callers & entries.c.reason.is_distinct_from(Reason.AUDIT.value)
_GROUP_COLUMNS = (
    "tier",
    "replica",
    "state",
    "reason",
    "policy",
    "exit_layer",
    "final",
    "degraded",
    "price_book",
)
_SUMS = (
    "sent_bytes",
    "received_bytes",
    "cost_lambda",
    "all_cloud_lambda",
    "cost_usd",
    "energy_mj",
)


def summarise(store: LedgerStore) -> Summary:
    """Summarise the callers' entries: every attempt once, audits separately."""
    with store.connect() as connection:
        groups = _groups(connection)
        final = [group for group in groups if group.final]
        answered = [group for group in final if group.state == State.ANSWERED.value]
        exits: dict[str, dict[str, int]] = {}
        for group in sorted(answered, key=lambda group: (group.tier, group.exit_layer)):
            layers = exits.setdefault(group.tier, {})
            layers[str(group.exit_layer)] = layers.get(str(group.exit_layer), 0) + group.attempts
        # counted by request: one request may escalate twice, or fail over afterwards
        escalated = _callers & (entries.c.reason == Reason.ESCALATE.value)
        return Summary(
            not_from_chosen_tier=_not_from_chosen_tier(connection),
            requests=_count_requests(connection, sa.true()),
            answered=_count_attempts(answered),
            failed=_count_attempts(final) - _count_attempts(answered),
            failed_over=_count_attempts(
                group for group in answered if group.reason == Reason.FAIL_OVER.value
            ),
            escalated=_count_requests(connection, escalated),
            degraded=_count_attempts(group for group in final if group.degraded),
            audits=_audits(connection),
            pruned=total_pruned(connection),
            answered_by_tier=_count_by(answered, lambda group: group.tier),
            exits_by_tier=exits,
            attempts_by_state=_count_by(groups, lambda group: group.state),
            attempts_by_reason=_count_by(groups, lambda group: group.reason),
            requests_by_policy=_count_by(final, lambda group: group.policy),
            durations=_durations(connection),
            sent_bytes=int(_total(group.sent_bytes for group in groups)),
            received_bytes=int(_total(group.received_bytes for group in groups)),
            cost_lambda=_total(group.cost_lambda for group in groups),
            all_cloud_lambda=_total(group.all_cloud_lambda for group in final),
            cost_usd=_total(group.cost_usd for group in groups),
            energy_mj=_total(group.energy_mj for group in groups),
            price_books=list(_count_by(groups, lambda group: group.price_book)),
            replicas=_replicas(groups),
        )


def _groups(connection: sa.Connection) -> list[Any]:
    """Group the attempts in one pass; the result has a few dozen rows for each replica."""
    columns = [entries.c[name] for name in _GROUP_COLUMNS]
    sums = [
        sa.func.coalesce(sa.func.sum(entries.c[name].cast(sa.Float(53))), 0).label(name)
        for name in _SUMS
    ]
    query = sa.select(*columns, sa.func.count().label("attempts"), *sums)
    return list(connection.execute(query.where(_callers).group_by(*columns)))


def _replicas(groups: Iterable[Any]) -> list[ReplicaCount]:
    """Return the replicas with most attempts, in the order of their names."""
    attempts: Counter[tuple[str, str]] = Counter()
    answered: Counter[tuple[str, str]] = Counter()
    for group in groups:
        if group.replica is not None:
            key = (group.tier, group.replica)
            attempts[key] += group.attempts
            answered[key] += group.attempts if group.state == State.ANSWERED.value else 0
    return [
        ReplicaCount(tier=key[0], replica=key[1], attempts=attempts[key], answered=answered[key])
        for key in sorted(key for key, _ in attempts.most_common(_MAX_REPLICAS))
    ]


def _count_attempts(groups: Iterable[Any]) -> int:
    return sum(group.attempts for group in groups)


def _total(values: Iterable[float]) -> float:
    """Return the sum, at most the largest float: entries of an older ledger have no bounds."""
    return min(sum(values), sys.float_info.max)


def _count_by(groups: list[Any], name: Callable[[Any], str | None]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for group in groups:
        key = name(group)
        if key is not None:
            counts[key] += group.attempts
    return dict(sorted(counts.items()))


def _count_requests(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
    distinct = sa.select(entries.c.request_id).where(condition).distinct().subquery()
    return connection.execute(sa.select(sa.func.count()).select_from(distinct)).scalar_one()


def _not_from_chosen_tier(connection: sa.Connection) -> int:
    """Count as `shared.wire.Classification.from_chosen_tier` does.

    An answered request has an ``error_code`` if the mobile kept an answer that the policy would
    have sent on.
    """
    earlier = entries.alias("earlier")

    tier_was_chosen = (
        sa.select(earlier.c.request_id)
        .where(
            (earlier.c.request_id == entries.c.request_id)
            & (earlier.c.side == Side.CALLER.value)
            & (earlier.c.tier == entries.c.tier)
            & earlier.c.reason.in_((Reason.ROUTE, Reason.ESCALATE))
        )
        .exists()
    )
    # a hedge and a retry may go to another replica of the same tier, or to another tier
    elsewhere = entries.c.reason.in_((Reason.HEDGE, Reason.RETRY)) & ~tier_was_chosen
    replaced = (entries.c.reason == Reason.FAIL_OVER.value) | elsewhere
    answered = _callers & entries.c.final & (entries.c.state == State.ANSWERED.value)
    query = sa.select(sa.func.count()).where(
        answered & (replaced | entries.c.error_code.is_not(None))
    )
    return connection.execute(query).scalar_one()


def _audits(connection: sa.Connection) -> Audits:
    final = entries.alias("final")
    compared = sa.case((entries.c.state == State.ANSWERED.value, 1), else_=0)
    differ = sa.case((entries.c.label != final.c.label, 1), else_=0)
    sums = [
        compared,
        compared * differ,
        *(
            entries.c[name].cast(sa.Float(53))
            for name in ("sent_bytes", "received_bytes", "cost_lambda", "cost_usd", "energy_mj")
        ),
    ]
    same_request = (
        (final.c.request_id == entries.c.request_id)
        & (final.c.side == Side.CALLER.value)
        & final.c.final
    )
    row = connection.execute(
        sa.select(sa.func.count(), *(sa.func.coalesce(sa.func.sum(column), 0) for column in sums))
        .select_from(entries.outerjoin(final, same_request))
        .where(_audit)
    ).one()
    attempts, n, differing, sent, received = (int(_total([value])) for value in row[:5])
    cost_lambda, cost_usd, energy_mj = (_total([float(value)]) for value in row[5:])
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
    """Compute exact percentiles; 8 bytes a value, thus 20 MB for a million entries."""
    columns = [entries.c[name] for name in _DURATIONS]
    query = sa.select(entries.c.tier, *columns).where(
        _callers & (entries.c.state == State.ANSWERED.value)
    )
    values_ms: dict[tuple[str, int], array[float]] = defaultdict(lambda: array("d"))
    streamed = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query)
    for tier, *values in streamed:
        for number, value in enumerate(values):
            if value is not None and math.isfinite(value):
                values_ms[tier, number].append(value)
    result = []
    for (tier, number), ms in sorted(values_ms.items()):
        p50, p95, p99 = (float(p) for p in np.percentile(np.frombuffer(ms), (50, 95, 99)))
        what = _DURATIONS[number]
        result.append(Percentiles(tier=tier, what=what, count=len(ms), p50=p50, p95=p95, p99=p99))
    return result

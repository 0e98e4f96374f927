"""Matches the two sides of every attempt, in SQL, and names every row without a partner."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from shared.ledger.entry import Delivery, Side, State
from shared.ledger.reports import Finding, Verification
from shared.ledger.store import LedgerStore
from shared.ledger.tables import entries

SHOWN = 100
ROUNDING_MS = 0.01

_caller = entries.alias("caller")
_tier = entries.alias("tier_side")
_both = _caller.join(
    _tier, (_caller.c.attempt_id == _tier.c.attempt_id) & (_tier.c.side == Side.TIER.value)
)
_AGREE = ("request_id", "tier", "ordinal")
_AGREE_ANSWERED = ("label", "exit_layer", "resumed_after", "bundle_id")


def _differs(column: str) -> sa.ColumnElement[bool]:
    return _caller.c[column].is_distinct_from(_tier.c[column])


def _differs_ms(column: str) -> sa.ColumnElement[bool]:
    difference = sa.func.abs(_caller.c[column] - _tier.c[column])
    return sa.func.coalesce(difference, ROUNDING_MS * 2) > ROUNDING_MS


def _pairs(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return (
        sa.select(_caller.c.attempt_id, _caller.c.side)
        .select_from(_both)
        .where((_caller.c.side == Side.CALLER.value) & condition)
    )


def _partner_of(row: sa.FromClause, side: Side) -> sa.Exists:
    partner = entries.alias("partner")
    return sa.exists().where(
        (partner.c.attempt_id == row.c.attempt_id) & (partner.c.side == side.value)
    )


def _checks() -> list[tuple[str, str, sa.Select[Any]]]:
    one = entries.alias("one")
    keys = sa.select(one.c.attempt_id, one.c.side)
    is_caller, is_tier = one.c.side == Side.CALLER.value, one.c.side == Side.TIER.value
    caller_answered = _caller.c.state == State.ANSWERED.value
    tier_answered = _tier.c.state == State.ANSWERED.value
    ended_well = (State.REFUSED.value, State.FAILED.value, State.TIMED_OUT.value)
    ordinals = (
        sa.select(sa.func.min(one.c.attempt_id), sa.literal(Side.CALLER.value))
        .where(is_caller)
        .group_by(one.c.request_id)
    )
    finals = sa.func.sum(sa.case((one.c.final, 1), else_=0))
    opens = sa.func.sum(sa.case((one.c.state == State.OPEN.value, 1), else_=0))
    return [
        ("open", "the attempt has no end yet", keys.where(one.c.state == State.OPEN.value)),
        (
            "no_caller",
            "a tier answered an attempt that no caller booked",
            keys.where(is_tier & ~_partner_of(one, Side.CALLER)),
        ),
        (
            "no_tier",
            "an answer came back that no tier booked",
            keys.where(
                is_caller
                & (one.c.delivery == Delivery.ARRIVED.value)
                & ~_partner_of(one, Side.TIER)
            ),
        ),
        (
            "not_sent",
            "the caller sent nothing, yet the tier booked it",
            keys.where(
                is_caller
                & (one.c.delivery == Delivery.NOT_SENT.value)
                & _partner_of(one, Side.TIER)
            ),
        ),
        (
            "mismatch",
            "the sides disagree on request, tier or ordinal",
            _pairs(sa.or_(*map(_differs, _AGREE))),
        ),
        (
            "answer_mismatch",
            "the sides disagree on label, exit, resumed layer, bundle or milliseconds",
            _pairs(
                caller_answered
                & tier_answered
                & sa.or_(
                    *map(_differs, _AGREE_ANSWERED),
                    *map(_differs_ms, ("queue_ms", "compute_ms")),
                )
            ),
        ),
        (
            "answer_without_work",
            "the caller has an answer that the tier did not give",
            _pairs(caller_answered & ~tier_answered),
        ),
        (
            "refusal_mismatch",
            "the caller was refused, and the tier booked no refusal",
            _pairs((_caller.c.state == State.REFUSED.value) & ~_tier.c.state.in_(ended_well)),
        ),
        (
            "ordinals",
            "a request's attempts are not numbered 1, 2, 3 …",
            ordinals.having(
                (sa.func.min(one.c.ordinal) != 1)
                | (sa.func.max(one.c.ordinal) != sa.func.count())
                | (sa.func.count(sa.distinct(one.c.ordinal)) != sa.func.count())
            ),
        ),
        (
            "final",
            "a request that has ended needs exactly one final attempt",
            ordinals.having((finals != 1) & (opens == 0)),
        ),
    ]


def verify(store: LedgerStore) -> Verification:
    """Match both sides of every attempt in one snapshot."""
    findings: list[Finding] = []
    total = 0
    with store.connect() as connection:
        if store.dialect == "postgresql":
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        for kind, detail, query in _checks():
            found = connection.execute(sa.select(sa.func.count()).select_from(query.subquery()))
            count = found.scalar_one()
            total += count
            if count and len(findings) < SHOWN:
                rows = connection.execute(query.limit(SHOWN - len(findings)))
                findings += [
                    Finding(kind=kind, attempt_id=attempt_id, side=side, detail=detail)
                    for attempt_id, side in rows
                ]
        by_side = sa.select(entries.c.side, sa.func.count()).group_by(entries.c.side)
        sides = {str(row[0]): int(row[1]) for row in connection.execute(by_side)}
        requests = connection.execute(
            sa.select(sa.func.count(sa.distinct(entries.c.request_id)))
        ).scalar_one()
    return Verification(
        requests=requests,
        caller_rows=sides.get(Side.CALLER.value, 0),
        tier_rows=sides.get(Side.TIER.value, 0),
        total_findings=total,
        findings=findings,
    )

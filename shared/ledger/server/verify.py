"""Matches the two sides of every attempt in SQL, and finds every row without a partner.

Three queries count the inconsistencies by side, by pair and by request. Rows are read only where a
count is not zero, so that a consistent ledger of any size needs three queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from shared.domain import Delivery, Side, State
from shared.errors import InvalidInput
from shared.ids import AFTER_LAST_DAY, FIRST_DAY
from shared.ledger.reports import Finding, Verification
from shared.ledger.server.conflicts import count_conflicts
from shared.ledger.server.missing import missing_by_replica
from shared.ledger.server.partitions import is_of_day
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.tables import conflicts, entries

MAX_FINDINGS = 100
ROUNDING_MS = 0.01
_WORK_MEM = "128MB"  # to join and group a million entries; PostgreSQL's default is 4 MB

_caller = entries.alias("caller")
_tier = entries.alias("tier_side")
_AGREE = ("request_id", "tier", "ordinal")
_AGREE_ANSWERED = ("label", "exit_layer", "resumed_after", "bundle_id")
_same_attempt = _caller.c.attempt_id == _tier.c.attempt_id
_is_caller = _caller.c.side == Side.CALLER.value
_is_tier = _tier.c.side == Side.TIER.value
_paired = _tier.c.attempt_id.is_not(None)


def _count_if(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)


@dataclass(frozen=True)
class _Rule:
    """A kind of inconsistency and the condition on its rows."""

    kind: str
    detail: str
    broken: sa.ColumnElement[bool]


def _differs(column: str) -> sa.ColumnElement[bool]:
    return _caller.c[column].is_distinct_from(_tier.c[column])


def _differs_ms(column: str) -> sa.ColumnElement[bool]:
    difference = sa.func.abs(_caller.c[column] - _tier.c[column])
    return sa.func.coalesce(difference, ROUNDING_MS * 2) > ROUNDING_MS


# a caller, or a tier of an earlier version, may not know it
_other_replica = sa.func.coalesce(_caller.c.replica != _tier.c.replica, sa.false())
_caller_answered = _caller.c.state == State.ANSWERED.value
_tier_answered = _tier.c.state == State.ANSWERED.value
_REFUSALS = (State.REFUSED.value, State.FAILED.value, State.TIMED_OUT.value)
_arrived = _caller.c.delivery == Delivery.ARRIVED.value
_without_tier = ~_paired & _arrived
_OF_PAIRS = (
    _Rule("no_tier", "the caller got a response, but the tier recorded nothing", _without_tier),
    _Rule(
        "not_sent",
        "the caller sent nothing, but the tier recorded the attempt",
        _paired & (_caller.c.delivery == Delivery.NOT_SENT.value),
    ),
    _Rule(
        "mismatch",
        "the sides disagree on request, tier, ordinal or replica",
        _paired & sa.or_(*map(_differs, _AGREE), _arrived & _other_replica),
    ),
    _Rule(
        "answer_mismatch",
        "the sides disagree on label, exit, resumed layer, bundle or milliseconds",
        _paired
        & _caller_answered
        & _tier_answered
        & sa.or_(
            *map(_differs, _AGREE_ANSWERED),
            *map(_differs_ms, ("queue_ms", "compute_ms")),
        ),
    ),
    _Rule(
        "answer_without_work",
        "the caller has an answer that the tier did not give",
        _paired & _caller_answered & ~_tier_answered,
    ),
    _Rule(
        "no_cost",
        "the caller has an answer without a cost in λ, in money or in energy",
        _caller_answered
        & sa.or_(*(_caller.c[name].is_(None) for name in ("cost_lambda", "cost_usd", "energy_mj"))),
    ),
    _Rule(
        "refusal_mismatch",
        "the caller was refused, but the tier recorded no refusal",
        _paired & (_caller.c.state == State.REFUSED.value) & ~_tier.c.state.in_(_REFUSALS),
    ),
)


def _numbered(condition: sa.ColumnElement[bool]) -> sa.Subquery:
    """Select the numbering of each request over the attempts that meet the condition."""
    return (
        sa.select(
            _caller.c.request_id,
            sa.func.min(_caller.c.attempt_id).label("attempt_id"),
            sa.func.count().label("attempts"),
            sa.func.min(_caller.c.ordinal).label("first"),
            sa.func.max(_caller.c.ordinal).label("last"),
            sa.func.count(sa.distinct(_caller.c.ordinal)).label("ordinals"),
            _count_if(_caller.c.final).label("finals"),
            _count_if(_caller.c.state == State.OPEN.value).label("opens"),
        )
        .where(_is_caller & condition)
        .group_by(_caller.c.request_id)
        .subquery("numbered")
    )


def _of_requests(numbered: sa.Subquery) -> tuple[_Rule, ...]:
    return (
        _Rule(
            "ordinals",
            "a request's attempts are not numbered 1, 2, 3 …",
            (numbered.c.first != 1)
            | (numbered.c.last != numbered.c.attempts)
            | (numbered.c.ordinals != numbered.c.attempts),
        ),
        _Rule(
            "final",
            "a request that has ended needs exactly one final attempt",
            (numbered.c.finals != 1) & (numbered.c.opens == 0),
        ),
    )


class _Findings:
    """Count of all findings, and the first `MAX_FINDINGS` of them."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self.total = 0
        self.first: list[Finding] = []

    def add(self, kind: str, detail: str, count: int, rows: sa.Select[Any]) -> None:
        self.total += count
        if count and len(self.first) < MAX_FINDINGS:
            result = self._connection.execute(rows.limit(MAX_FINDINGS - len(self.first)))
            self.first += [
                Finding(kind=kind, attempt_id=attempt_id, side=side, detail=detail, replica=replica)
                for attempt_id, side, replica in result
            ]


def _count_broken(connection: sa.Connection, numbered: sa.Subquery) -> tuple[int, ...]:
    """Return the number of requests, and of those that break each rule."""
    rules = _of_requests(numbered)
    query = sa.select(sa.func.count(), *(_count_if(rule.broken) for rule in rules))
    return tuple(connection.execute(query.select_from(numbered)).one())


def verify(store: LedgerStore, day: date | None = None) -> Verification:
    """Match the two sides of every attempt, in one snapshot of the database.

    With ``day``, only the attempts that `shared.ids.day_of` dates on it, and all attempts of their
    requests. Raises `InvalidInput` for a day on which it dates none.
    """
    if day is not None and not FIRST_DAY <= day < AFTER_LAST_DAY:
        raise InvalidInput(
            f"day: {day} is a day of no identifier; give one from {FIRST_DAY} to "
            f"{AFTER_LAST_DAY - timedelta(1)}, or none to verify everything",
            field="day",
        )
    with store.connect() as connection:
        every = sa.true()
        of_day = {
            table: every if day is None else is_of_day(connection, table, day)
            for table in (entries, conflicts, _caller, _tier)
        }
        if store.dialect == "postgresql":
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            connection.execute(sa.text(f"SET LOCAL work_mem = '{_WORK_MEM}'"))
        # the sides of an attempt have one identifier, so they are of the same day
        pairing = _caller.outerjoin(_tier, _same_attempt & _is_tier & of_day[_tier])
        without_caller = _tier.outerjoin(_caller, _same_attempt & _is_caller & of_day[_caller])
        findings = _Findings(connection)
        by_side = sa.select(
            entries.c.side, sa.func.count(), _count_if(entries.c.state == State.OPEN.value)
        )
        by_side = by_side.where(of_day[entries]).group_by(entries.c.side)
        sides = {str(row[0]): (int(row[1]), int(row[2])) for row in connection.execute(by_side)}
        caller_rows, caller_open = sides.get(Side.CALLER.value, (0, 0))
        tier_rows, tier_open = sides.get(Side.TIER.value, (0, 0))
        by_pair = connection.execute(
            sa.select(_count_if(_paired), *(_count_if(rule.broken) for rule in _OF_PAIRS))
            .select_from(pairing)
            .where(_is_caller & of_day[_caller])
        ).one()
        numbered = _numbered(of_day[_caller])
        by_request = _count_broken(connection, numbered)
        if day is not None and any(by_request[1:]):
            # a client with identifiers of its own may have attempts of a request on several days
            named = sa.select(entries.c.request_id).where(of_day[entries])
            numbered = _numbered(_caller.c.request_id.in_(named))
            by_request = _count_broken(connection, numbered)
        findings.add(
            "open",
            "the attempt has no end yet",
            caller_open + tier_open,
            sa.select(entries.c.attempt_id, entries.c.side, entries.c.replica).where(
                entries.c.state == State.OPEN.value, of_day[entries]
            ),
        )
        findings.add(
            "conflict",
            "another end of the attempt arrived later and is not counted; each attempt needs its "
            "own attempt_id",
            count_conflicts(connection, of_day[conflicts]),
            sa.select(conflicts.c.attempt_id, conflicts.c.side, sa.null()).where(of_day[conflicts]),
        )
        # the query of pairs starts from callers' rows, so tiers' rows that it lacks have no caller
        findings.add(
            "no_caller",
            "a tier answered an attempt that no caller recorded",
            tier_rows - by_pair[0],
            sa.select(_tier.c.attempt_id, _tier.c.side, _tier.c.replica)
            .select_from(without_caller)
            .where(_is_tier & of_day[_tier] & _caller.c.attempt_id.is_(None)),
        )
        row = (_caller.c.attempt_id, _caller.c.side, _caller.c.replica)
        pairs = sa.select(*row).select_from(pairing).where(of_day[_caller])
        for rule, count in zip(_OF_PAIRS, by_pair[1:], strict=True):
            findings.add(rule.kind, rule.detail, count, pairs.where(_is_caller & rule.broken))
        first = sa.select(numbered.c.attempt_id, sa.literal(Side.CALLER.value), sa.null())
        for rule, count in zip(_of_requests(numbered), by_request[1:], strict=True):
            findings.add(rule.kind, rule.detail, count, first.where(rule.broken))
        gaps = []
        if tier_open or by_pair[1]:  # the first rule's count
            without_tier = _is_caller & _without_tier & of_day[_caller]
            gaps = missing_by_replica(connection, pairing, _caller, without_tier, of_day[entries])
        requests = by_request[0]
        if findings.total:  # tiers' rows may contain requests that no caller recorded
            names = sa.select(entries.c.request_id).where(of_day[entries]).distinct().subquery()
            requests = connection.execute(
                sa.select(sa.func.count()).select_from(names)
            ).scalar_one()
    return Verification(
        requests=requests,
        caller_rows=caller_rows,
        tier_rows=tier_rows,
        total_findings=findings.total,
        findings=findings.first,
        gaps=gaps,
    )

"""Invariants after a fault, of the requests and of the ledger."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from shared.domain import Side
from shared.errors import DimeeError
from shared.ledger.client import LedgerClient
from testbed.chaos.traffic import Intervals, Outcome, violation

MAX_SHOWN = 10
POLL_S = 0.5


def violations(
    outcomes: Iterable[Outcome],
    ledger_url: str,
    deadline_s: float,
    mobile_down: Intervals = (),
    wait_s: float = 45.0,
) -> list[str]:
    """Return a sentence for each violation, at most `MAX_SHOWN` of each kind of the ledger's.

    Waits up to ``wait_s`` for the outboxes to deliver their entries.
    """
    outcomes = list(outcomes)
    problems = []
    for outcome in outcomes:
        problem = violation(outcome, deadline_s, mobile_down)
        if problem is not None:
            policy = outcome.planned.policy or "the default policy"
            problems.append(f"request at {outcome.planned.at_s:.2f} s by {policy}: {problem}")
    answered = [outcome for outcome in outcomes if outcome.request_id is not None]
    ledger = LedgerClient(ledger_url)
    try:
        return problems + _ledger_violations(answered, ledger, wait_s)
    finally:
        ledger.close()


def _ledger_violations(answered: list[Outcome], ledger: LedgerClient, wait_s: float) -> list[str]:
    until = time.monotonic() + wait_s
    while True:
        report = ledger.verify()
        missing = _missing_attempts(answered, ledger) if report.consistent else []
        if (report.consistent and not missing) or time.monotonic() > until:
            break
        time.sleep(POLL_S)
    if report.consistent:
        return missing
    shown = report.findings[:MAX_SHOWN]
    return [
        *(
            f"verify: {finding.kind} {finding.attempt_id} {finding.side}: {finding.detail}"
            for finding in shown
        ),
        f"verify: {report.total_findings} findings after {wait_s:.0f} s",
    ]


def _missing_attempts(answered: list[Outcome], ledger: LedgerClient) -> list[str]:
    """Return a sentence for each answered attempt that is not in the ledger exactly once."""
    problems = []
    for outcome in answered:
        assert outcome.request_id is not None
        try:
            rows = ledger.request_entries(outcome.request_id)
        except DimeeError as error:
            problems.append(f"request {outcome.request_id} was answered: {error.message}")
            continue
        counts = Counter(row.attempt_id for row in rows if row.side is Side.CALLER)
        for attempt_id in outcome.attempt_ids:
            if counts[attempt_id] != 1:
                problems.append(f"attempt {attempt_id} is {counts[attempt_id]} times in the ledger")
    return problems[:MAX_SHOWN]

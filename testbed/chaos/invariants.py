"""Invariants after a fault: every request ended properly, and the ledger has each attempt once."""

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
    mobile_away: Intervals = (),
    wait_s: float = 45.0,
) -> list[str]:
    """Return a sentence for each violation, at most `MAX_SHOWN` of each kind of the ledger's.

    Waits up to ``wait_s`` for the outboxes to deliver their entries.
    """
    outcomes = list(outcomes)
    found = []
    for one in outcomes:
        why = violation(one, deadline_s, mobile_away)
        if why is not None:
            policy = one.planned.policy or "the default policy"
            found.append(f"request at {one.planned.at_s:.2f} s by {policy}: {why}")
    answered = [one for one in outcomes if one.request_id is not None]
    ledger = LedgerClient(ledger_url)
    try:
        return found + _ledger_violations(answered, ledger, wait_s)
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
        *(f"verify: {one.kind} {one.attempt_id} {one.side}: {one.detail}" for one in shown),
        f"verify: {report.total_findings} findings after {wait_s:.0f} s",
    ]


def _missing_attempts(answered: list[Outcome], ledger: LedgerClient) -> list[str]:
    """Return a sentence for each answered attempt that is not in the ledger exactly once."""
    found = []
    for one in answered:
        assert one.request_id is not None
        try:
            rows = ledger.request_entries(one.request_id)
        except DimeeError as error:
            found.append(f"request {one.request_id} was answered: {error.message}")
            continue
        counts = Counter(row.attempt_id for row in rows if row.side is Side.CALLER)
        for attempt_id in one.attempt_ids:
            if counts[attempt_id] != 1:
                found.append(f"attempt {attempt_id} is {counts[attempt_id]} times in the ledger")
    return found[:MAX_SHOWN]

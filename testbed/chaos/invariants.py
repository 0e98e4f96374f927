"""What must hold after every fault, when all is well again: the ledger has it all, and once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from shared.domain import Side
from shared.errors import DimeeError
from shared.ledger.client import LedgerClient
from testbed.chaos.traffic import Gone, Outcome, complaint

SHOWN = 10
POLL_S = 0.5


def broken(
    outcomes: Iterable[Outcome],
    ledger: LedgerClient,
    deadline_s: float,
    gone: Gone = (),
    wait_s: float = 45.0,
) -> list[str]:
    """Every invariant that does not hold, in a sentence each (`SHOWN` of a kind)."""
    outcomes = list(outcomes)
    said = []
    for one in outcomes:
        why = complaint(one, deadline_s, gone)
        if why is not None:
            policy = one.planned.policy or "the default policy"
            said.append(f"request at {one.planned.at_s:.2f} s by {policy}: {why}")
    acknowledged = [one for one in outcomes if one.request_id is not None]
    until = time.monotonic() + wait_s
    while True:  # outboxes deliver in their own time
        report = ledger.verify()
        missing = _not_booked(acknowledged, ledger) if report.consistent else ["unknown yet"]
        if not missing or time.monotonic() > until:
            break
        time.sleep(POLL_S)
    if report.consistent:
        return said + missing
    findings = report.findings[:SHOWN]
    said += [f"verify: {one.kind} {one.attempt_id} {one.side}: {one.detail}" for one in findings]
    return [*said, f"verify: {report.total_findings} findings after {wait_s:.0f} s"]


def _not_booked(acknowledged: list[Outcome], ledger: LedgerClient) -> list[str]:
    said = []
    for one in acknowledged:
        assert one.request_id is not None
        try:
            rows = ledger.request_entries(one.request_id)
        except DimeeError as error:
            said.append(f"request {one.request_id} was answered: {error.message}")
            continue
        booked = Counter(row.attempt_id for row in rows if row.side is Side.CALLER)
        for attempt_id in one.attempt_ids:
            if booked[attempt_id] != 1:
                said.append(f"attempt {attempt_id} is booked {booked[attempt_id]} times")
    return said[:SHOWN]

"""One text after the other through the mobile's SDK, each part timed. Prints JSON, a row a text.

Runs in a process of its own, as an application with the SDK would.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from mobile_client import MobileClient
from shared.ledger.outbox import Outbox

asked = json.loads(sys.stdin.read())
spent_us = 0.0
record = Outbox.record


def timed(outbox: Outbox, *entries: Any) -> None:
    """`Outbox.record`, with its microseconds added up."""
    global spent_us
    started = time.perf_counter()
    record(outbox, *entries)
    spent_us += (time.perf_counter() - started) * 1e6


Outbox.record = timed  # type: ignore[method-assign]
rows = []
with MobileClient(
    bundle=Path(asked["bundle"]),
    state_dir=Path(asked["state_dir"]),
    ledger_url="http://127.0.0.1:9",
    policy=asked["tier"],
    edge_url=asked["url"],
    cloud_url=asked["url"],
) as mobile:
    for text in asked["texts"]:
        before = spent_us
        answer = mobile.classify(text)
        ledger_us = spent_us - before
        attempt = answer.attempts[-1]
        round_trip, network = attempt.round_trip_ms or 0.0, attempt.network_ms or 0.0
        queue, compute = attempt.queue_ms or 0.0, attempt.compute_ms or 0.0
        rest_ms = answer.total_ms - answer.decision_ms - round_trip
        rows.append(
            (
                answer.decision_ms * 1e3,
                ledger_us,
                max(0.0, rest_ms * 1e3 - ledger_us),
                network * 1e3,
                max(0.0, round_trip - network - queue - compute) * 1e3,
                queue * 1e3,
                compute * 1e3,
            )
        )
print(json.dumps(rows))

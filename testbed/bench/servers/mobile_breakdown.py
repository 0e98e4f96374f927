"""Classify texts with the mobile's SDK, one at a time, and print the time of each part as JSON.

It runs in a process of its own, as an application with the SDK does. Reads a job from stdin.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from mobile_client import MobileClient
from shared.ledger.outbox import Outbox

job = json.loads(sys.stdin.read())
ledger_total_us = 0.0
record = Outbox.record


def timed_record(outbox: Outbox, *entries: Any) -> None:
    """Record entries and add up the microseconds that this takes."""
    global ledger_total_us
    started = time.perf_counter()
    record(outbox, *entries)
    ledger_total_us += (time.perf_counter() - started) * 1e6


Outbox.record = timed_record  # type: ignore[method-assign]
rows = []
with MobileClient(
    bundle=Path(job["bundle"]),
    state_dir=Path(job["state_dir"]),
    ledger_url="http://127.0.0.1:9",
    policy=job["tier"],
    edge_url=job["url"],
    cloud_url=job["url"],
) as mobile:
    for text, pair in job["texts"]:
        before = ledger_total_us
        answer = mobile.classify(text, pair)
        ledger_us = ledger_total_us - before
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

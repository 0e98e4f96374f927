"""Waiting until the ledger has the entries of requests."""

from __future__ import annotations

import time
from collections.abc import Iterable

import httpx

from testbed.load.ledger_check import verify_ledger

WAIT_S = 60.0


def check_recorded(ledger_url: str, request_ids: Iterable[str]) -> None:
    """Wait until the ledger has entries of both sides of each request; check that it is consistent.

    Entries are delivered in the background.
    """
    until = time.monotonic() + WAIT_S
    for request_id in request_ids:
        while True:
            answer = httpx.get(f"{ledger_url}/v1/requests/{request_id}", trust_env=False)
            if answer.status_code == 200:
                break
            assert answer.status_code == 404
            assert time.monotonic() < until, f"the ledger has no entry of {request_id}"
            time.sleep(0.05)
    report = verify_ledger(ledger_url, 1)
    assert report["consistent"], report

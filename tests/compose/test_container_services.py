"""Running containers answer through the published port, and the ledger is consistent."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.support.containers import DELIVERY_S, classify, recorded_requests, verify_ledger

pytestmark = pytest.mark.compose


def test_gateway_answers_through_the_published_port(
    gateway: httpx.Client, ledger: httpx.Client
) -> None:
    before = recorded_requests(ledger)
    good, bad = classify(gateway, ["a gripping, funny film", "a dull and lifeless mess"])
    assert (good["label"], bad["label"]) == ("positive", "negative")
    report = verify_ledger(ledger, before + 2)
    assert report["total_findings"] == 0, report
    assert report["requests"] == before + 2


@pytest.mark.parametrize("policy", ["mobile", "edge", "cloud"])
def test_each_tier_answers(gateway: httpx.Client, ledger: httpx.Client, policy: str) -> None:
    before = recorded_requests(ledger)
    (result,) = classify(gateway, ["it never finds its own voice"], policy)
    assert result["tier"] == policy
    report = verify_ledger(ledger, before + 1)
    assert report["total_findings"] == 0, report
    assert report["requests"] == before + 1


def test_ledger_survives_a_killed_container(
    containers: dict[str, Any], gateway: httpx.Client, ledger: httpx.Client
) -> None:
    before = recorded_requests(ledger)
    containers["ledger"].kill()
    containers["ledger"].start()
    classify(gateway, ["an honest, moving portrait"])
    until = time.monotonic() + DELIVERY_S
    while time.monotonic() < until:
        try:
            if ledger.get("/readyz").status_code == 200:
                break
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    report = verify_ledger(ledger, before + 1)
    assert report["total_findings"] == 0, report
    assert report["requests"] == before + 1

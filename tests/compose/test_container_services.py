"""The containers at work: an answer through the published port, and a ledger that agrees."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.support.containers import DELIVERY_S, booked, classify, verified

pytestmark = pytest.mark.compose


def test_sentences_are_answered_through_the_published_port(
    gateway: httpx.Client, ledger: httpx.Client
) -> None:
    before = booked(ledger)
    good, bad = classify(gateway, ["a gripping, funny film", "a dull and lifeless mess"])
    assert (good["label"], bad["label"]) == ("positive", "negative")
    verdict = verified(ledger, before + 2)
    assert verdict["total_findings"] == 0, verdict
    assert verdict["requests"] == before + 2


@pytest.mark.parametrize("policy", ["mobile", "edge", "cloud"])
def test_each_tier_answers(gateway: httpx.Client, ledger: httpx.Client, policy: str) -> None:
    before = booked(ledger)
    (result,) = classify(gateway, ["it never finds its own voice"], policy)
    assert result["tier"] == policy
    verdict = verified(ledger, before + 1)
    assert verdict["total_findings"] == 0, verdict
    assert verdict["requests"] == before + 1


def test_the_ledger_outlives_its_container(
    containers: dict[str, Any], gateway: httpx.Client, ledger: httpx.Client
) -> None:
    before = booked(ledger)
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
    verdict = verified(ledger, before + 1)
    assert verdict["total_findings"] == 0, verdict
    assert verdict["requests"] == before + 1

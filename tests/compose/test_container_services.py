"""The containers at work: an answer through the published port, and a ledger that agrees."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.compose

DELIVERY_S = 30.0


def classify(gateway: httpx.Client, texts: list[str], policy: str | None = None) -> list[Any]:
    body: dict[str, Any] = {"texts": texts}
    if policy is not None:
        body["policy"] = policy
    response = gateway.post("/v1/classify", json=body)
    assert response.status_code == 200, response.text
    items = response.json()["items"]
    assert [item["error"] for item in items] == [None] * len(texts)
    return [item["result"] for item in items]


def verified(ledger: httpx.Client, requests: int) -> dict[str, Any]:
    """The ledger's verdict on so many requests, once it is clean or all had time to arrive."""
    until = time.monotonic() + DELIVERY_S
    while True:
        response = ledger.get("/v1/verify")
        assert response.status_code == 200, response.text
        verdict: dict[str, Any] = response.json()
        settled = verdict["total_findings"] == 0 and verdict["requests"] >= requests
        if settled or time.monotonic() > until:
            return verdict
        time.sleep(0.5)


def booked(ledger: httpx.Client) -> int:
    requests: int = ledger.get("/v1/verify").json()["requests"]
    return requests


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

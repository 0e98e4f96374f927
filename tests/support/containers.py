"""Shared by tests: DELIVERY_S, booked, classify, verified."""

from __future__ import annotations

import time
from typing import Any

import httpx

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

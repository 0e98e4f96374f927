"""Use the services of running containers: classify texts, verify the ledger."""

from __future__ import annotations

import time
from typing import Any

import httpx

DELIVERY_S = 30.0
"""Longest time until all entries of a request have been delivered, in seconds."""


def classify(gateway: httpx.Client, texts: list[str], policy: str | None = None) -> list[Any]:
    """Return the result of each text; fail if one has an error."""
    body: dict[str, Any] = {"texts": texts}
    if policy is not None:
        body["policy"] = policy
    response = gateway.post("/v1/classify", json=body)
    assert response.status_code == 200, response.text
    items = response.json()["items"]
    assert [item["error"] for item in items] == [None] * len(texts)
    return [item["result"] for item in items]


def verify_ledger(ledger: httpx.Client, requests: int) -> dict[str, Any]:
    """Return the ledger's report once it is consistent with ``requests``, or after `DELIVERY_S`."""
    until = time.monotonic() + DELIVERY_S
    while True:
        response = ledger.get("/v1/verify")
        assert response.status_code == 200, response.text
        report: dict[str, Any] = response.json()
        complete = report["total_findings"] == 0 and report["requests"] >= requests
        if complete or time.monotonic() > until:
            return report
        time.sleep(0.5)


def recorded_requests(ledger: httpx.Client) -> int:
    """Return the number of requests in the ledger."""
    requests: int = ledger.get("/v1/verify").json()["requests"]
    return requests

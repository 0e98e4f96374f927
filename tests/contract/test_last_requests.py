"""The last answered requests, read from both stores and over HTTP."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from shared.domain import Delivery, Reason, State, Tier
from shared.errors import InvalidInput
from shared.ledger.client import LedgerClient
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.app import MAX_LAST, create_app
from shared.ledger.server.settings import LedgerSettings
from shared.ledger.server.store import LedgerStore
from tests.support.entries import caller, tier


def answered(number: int, policy: str = "cascade-routing") -> list[LedgerEntry]:
    """Return both sides of request ``r<number>``, which started in second ``number``."""
    facts = {"request_id": f"r{number}", "policy": policy, "started_at": float(number)}
    first = {**facts, "final": False, "ordinal": 1}
    last = {**facts, "ordinal": 2, "tier": Tier.CLOUD, "reason": Reason.ESCALATE}
    return [
        caller(f"a{number}", **first),
        tier(f"a{number}", **{**first, "policy": None}),
        caller(f"b{number}", **last),
        tier(f"b{number}", **{**last, "policy": None, "reason": None, "final": False}),
    ]


def names(requests: list[list[LedgerEntry]]) -> list[str]:
    assert all(len({entry.request_id for entry in entries}) == 1 for entries in requests)
    return [entries[0].request_id for entries in requests]


def test_last_requests_are_newest_first_with_ordered_caller_entries(store: LedgerStore) -> None:
    store.upsert([entry for number in (2, 4, 1, 3) for entry in answered(number)])
    requests = store.last_requests(3)
    assert names(requests) == ["r4", "r3", "r2"]
    assert requests[0] == [answered(4)[0], answered(4)[2]]
    assert names(store.last_requests(100)) == ["r4", "r3", "r2", "r1"]
    assert store.last_requests(100, "random") == []


def test_last_requests_are_ordered_by_the_ledgers_clock(store: LedgerStore) -> None:
    store.upsert(answered(9))
    store.upsert(answered(5))
    assert names(store.last_requests(2)) == ["r5", "r9"]


def test_last_requests_include_only_answered_ones_of_the_policy(store: LedgerStore) -> None:
    failed = {"state": State.FAILED, "delivery": Delivery.NOT_SENT, "exit_layer": None}
    store.upsert(
        [
            *answered(1),
            *answered(2, policy="dimee-fixed"),
            caller("f", request_id="failed", policy="cascade-routing", label=None, **failed),
            caller("o", request_id="open", policy="cascade-routing", state=State.OPEN, final=False),
            tier("t", request_id="no-caller"),
        ]
    )
    assert names(store.last_requests(10, "cascade-routing")) == ["r1"]
    assert names(store.last_requests(10, "dimee-fixed")) == ["r2"]
    assert names(store.last_requests(10)) == ["r2", "r1"]
    assert store.last_requests(10, "a\0b") == []


def test_last_requests_of_an_empty_ledger_are_empty(store: LedgerStore) -> None:
    assert store.last_requests(1) == []


def test_up_to_the_maximum_of_last_requests_is_returned(store: LedgerStore) -> None:
    rows = [caller(f"a{i}", request_id=f"r{i:04}", started_at=i) for i in range(MAX_LAST)]
    store.upsert(rows[:500])
    store.upsert(rows[500:])
    assert names(store.last_requests(MAX_LAST)) == [f"r{i:04}" for i in reversed(range(MAX_LAST))]


def test_last_requests_are_served_over_http(url: str, tmp_path: Path) -> None:
    app = create_app(LedgerSettings(database_url=url, state_dir=tmp_path))
    with TestClient(app, base_url="http://ledger") as http:
        delivery = {
            "entries": [entry.model_dump(mode="json") for n in (1, 2) for entry in answered(n)]
        }
        http.post("/v1/entries", json=delivery).raise_for_status()

        def forward(request: httpx.Request) -> httpx.Response:
            response = http.get(str(request.url))
            return httpx.Response(response.status_code, content=response.content)

        client = LedgerClient("http://ledger", httpx.MockTransport(forward))
        assert names(client.last_requests(10, "cascade-routing")) == ["r2", "r1"]
        assert client.last_requests(10, "cascade-routing")[0] == [answered(2)[0], answered(2)[2]]
        assert client.last_requests(10, "ümlaut & co") == []
        assert len(http.get("/v1/last-requests").json()["requests"]) == 2
        for wrong in (0, MAX_LAST + 1):
            with pytest.raises(InvalidInput, match="last"):
                client.last_requests(wrong)
        assert http.get("/v1/last-requests", params={"policy": "x" * 65}).status_code == 422
        client.close()

"""The list of ended requests, read from both stores and over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from shared.domain import Delivery, Reason, State, Tier
from shared.errors import InvalidInput
from shared.ledger.client import LedgerClient
from shared.ledger.entry import LedgerEntry
from shared.ledger.request_list import MAX_REQUESTS, RequestFilter, RequestRecord
from shared.ledger.server.app import create_app
from shared.ledger.server.request_list import final_attempts, list_requests
from shared.ledger.server.settings import LedgerSettings
from shared.ledger.server.store import LedgerStore
from tests.support.entries import caller, tier

UNANSWERED = {"label": None, "confidence": None, "exit_layer": None}


def escalated(number: int, **facts: Any) -> list[LedgerEntry]:
    """Return a request that started on the mobile and ended in the cloud in second ``number``."""
    shared = {"request_id": f"r{number}", **facts}
    first = {
        **shared, "tier": Tier.MOBILE, "final": False, "started_at": number - 0.5,
        "round_trip_ms": 2.0, "cost_lambda": 1.5, "all_cloud_lambda": None,
    }  # fmt: skip
    last = {
        **shared, "ordinal": 2, "tier": Tier.CLOUD, "reason": Reason.ESCALATE, "exit_layer": 6,
        "started_at": float(number), "round_trip_ms": 30.0, "decision_ms": None, "cost_lambda": 4.0,
    }  # fmt: skip
    audit = {**last, "ordinal": 3, "reason": Reason.AUDIT, "final": False, "cost_lambda": 90.0}
    return [
        caller(f"a{number}", **first),
        caller(f"b{number}", **{"all_cloud_lambda": 12.0, **last}),
        caller(f"c{number}", **audit),
        tier(f"b{number}", request_id=f"r{number}", tier=Tier.CLOUD),
    ]


def names(records: list[RequestRecord]) -> list[str]:
    return [record.request_id for record in records]


def test_a_record_holds_the_final_attempt_and_the_sums_of_all(store: LedgerStore) -> None:
    store.upsert(escalated(5))
    (record,) = list_requests(store, RequestFilter())
    assert record == RequestRecord(
        request_id="r5", at=5.0, policy="dimee-fixed", tier=Tier.CLOUD, exit_layer=6,
        reason=Reason.ESCALATE, state=State.ANSWERED, label="positive", confidence=0.75,
        total_ms=0.25 + 500.0 + 30.0, cost_lambda=5.5, all_cloud_lambda=12.0, attempts=2,
        error=None, trace_id=caller().trace_id,
    )  # fmt: skip


@pytest.fixture
def filled(store: LedgerStore) -> LedgerStore:
    failed = {"state": State.FAILED, "delivery": Delivery.NOT_SENT, "error_code": "tier_down"}
    store.upsert(
        [
            *escalated(10),
            *escalated(20, policy="random"),
            caller("d", request_id="r30", started_at=30.0),
            caller("e", request_id="r40", started_at=40.0, **failed, **UNANSWERED),
            caller("f", request_id="open", started_at=50.0, state=State.OPEN, final=False),
            tier("g", request_id="no-caller", started_at=60.0),
        ]
    )
    return store


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, ["r40", "r30", "r20", "r10"]),
        ({"limit": 2}, ["r40", "r30"]),
        ({"since": 20.0}, ["r40", "r30", "r20"]),
        ({"until": 20.0}, ["r10"]),
        ({"since": 15.0, "until": 35.0}, ["r30", "r20"]),
        ({"policy": "random"}, ["r20"]),
        ({"policy": "unknown"}, []),
        ({"tier": Tier.EDGE}, ["r40", "r30"]),
        ({"tier": Tier.MOBILE}, []),
        ({"reason": Reason.ESCALATE, "policy": "dimee-fixed"}, ["r10"]),
        ({"reason": Reason.AUDIT}, []),
        ({"state": State.FAILED}, ["r40"]),
    ],
)
def test_requests_are_filtered_and_newest_first(
    filled: LedgerStore, conditions: dict[str, Any], expected: list[str]
) -> None:
    assert names(list_requests(filled, RequestFilter(**conditions))) == expected


def test_the_last_time_of_a_list_begins_the_next_one(filled: LedgerStore) -> None:
    found: list[str] = []
    until = None
    while page := list_requests(filled, RequestFilter(until=until, limit=1)):
        found += names(page)
        until = page[-1].at
    assert found == ["r40", "r30", "r20", "r10"]


def test_an_unanswered_request_has_its_error(filled: LedgerStore) -> None:
    (record,) = list_requests(filled, RequestFilter(state=State.FAILED))
    assert (record.error, record.label, record.exit_layer) == ("tier_down", None, None)


@pytest.fixture
def client(url: str, tmp_path: Path) -> Iterator[LedgerClient]:
    """A client of a ledger's application that holds requests r1 and r2."""
    app = create_app(LedgerSettings(database_url=url, state_dir=tmp_path))
    with TestClient(app, base_url="http://ledger") as http:
        delivered = [entry.model_dump(mode="json") for n in (1, 2) for entry in escalated(n)]
        http.post("/v1/entries", json={"entries": delivered}).raise_for_status()

        def forward(request: httpx.Request) -> httpx.Response:
            response = http.get(str(request.url))
            return httpx.Response(response.status_code, content=response.content)

        opened = LedgerClient("http://ledger", httpx.MockTransport(forward))
        yield opened
        opened.close()


def test_requests_are_listed_over_http(client: LedgerClient) -> None:
    assert names(client.list_requests()) == ["r2", "r1"]
    assert names(client.list_requests(until=2.0, tier="cloud", reason=Reason.ESCALATE)) == ["r1"]
    assert client.list_requests(policy="ümlaut & co") == []
    assert client.list_requests(since=1.5)[0].cost_lambda == 5.5


@pytest.mark.parametrize(
    ("conditions", "sentence"),
    [
        ({"limit": 0}, "limit: input should be greater than or equal to 1"),
        ({"limit": MAX_REQUESTS + 1}, "limit: input should be less than or equal to 1000"),
        ({"since": -1.0}, "since: input should be greater than or equal to 0"),
        ({"until": float("nan")}, "until: input should be a finite number"),
        ({"since": 2.0, "until": 1.0}, "query: since must be before until"),
        ({"state": "open"}, "query: state must not be open: the list holds requests that have"),
        ({"tier": "moon"}, "tier: input should be 'mobile', 'edge' or 'cloud'"),
        ({"reason": "x"}, "reason: input should be 'route', 'escalate'"),
        ({"policy": "x" * 65}, "policy: string should have at most 64 characters"),
        ({"policy": "a\0b"}, "policy: must not hold the character U+0000"),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(
    client: LedgerClient, conditions: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        client.list_requests(**conditions)
    assert refused.value.message.startswith(sentence)


def test_an_unknown_parameter_is_refused(client: LedgerClient) -> None:
    with pytest.raises(InvalidInput, match="last: is not a known field"):
        client._get("/v1/requests", {"last": "10"})


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"since": 10.0},
        {"since": 10.0, "until": 20.0, "policy": "dimee-fixed"},
        {"tier": Tier.EDGE},
        {"reason": Reason.FAIL_OVER, "state": State.ANSWERED, "limit": MAX_REQUESTS},
    ],
)
def test_the_index_of_ended_requests_is_read_in_order(
    store: LedgerStore, conditions: dict[str, Any]
) -> None:
    query = final_attempts(RequestFilter(**conditions))
    with store.connect() as connection:
        text = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        if store.dialect == "sqlite":
            plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
        else:
            # an empty table costs the same by any plan
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
            plan = [json.dumps(row[0]) for row in connection.execute(sa.text(f"EXPLAIN {text}"))]
    # PostgreSQL names the index of each partition after its columns
    names = ("entries_final", "started_at_request_id_policy_tier")
    assert any(name in step for step in plan for name in names), plan
    assert not any("B-TREE" in step or "Sort  (" in step for step in plan), plan

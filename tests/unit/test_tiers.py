"""Edge and cloud over HTTP in the test's process: answers, refusals and ledger entries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from fastapi import FastAPI

from cloud_server.app import create_app as create_cloud
from cloud_server.settings import CloudSettings
from edge_server.app import create_app as create_edge
from edge_server.settings import EdgeSettings
from shared.bundle.loading import Bundle
from shared.domain import Delivery, LayerRange, Tier
from shared.errors import DeadlineExceeded, Overloaded
from shared.inference.classifier import Classifier
from shared.tier_client import Exchange, TierClient
from shared.wire import InferRequest
from tests.support.answers import EDGE_RULES
from tests.support.engine import engine_of
from tests.support.outboxes import recorded_states
from tests.support.paths import BUNDLE, free_ports

T = TypeVar("T")


@pytest.fixture
def edge(tmp_path: Path) -> FastAPI:
    settings = EdgeSettings(
        bundle=BUNDLE,
        state_dir=tmp_path,
        workers=1,
        ledger_url=f"http://127.0.0.1:{free_ports(1)[0]}",
    )
    return create_edge(settings)


@pytest.fixture
def cloud(tmp_path: Path) -> FastAPI:
    settings = CloudSettings(
        bundle=BUNDLE,
        state_dir=tmp_path,
        workers=1,
        ledger_url=f"http://127.0.0.1:{free_ports(1)[0]}",
    )
    return create_cloud(settings)


def ask(app: FastAPI, send: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
    async def send_request() -> T:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://tier") as http:
                return await send(http)

    return asyncio.run(send_request())


def infer(app: FastAPI, **fields: Any) -> httpx.Response:
    body = {"request_id": "r1", "attempt_id": "a1", "text": "a wonderful film"} | fields
    return ask(app, lambda http: http.post("/v1/infer", json=body))


def test_cloud_answers_at_its_last_layer(cloud: FastAPI, tmp_path: Path) -> None:
    answer = infer(cloud).json()
    assert (answer["tier"], answer["exit_layer"], answer["label"]) == ("cloud", 6, "positive")
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["confidence"] == max(answer["probabilities"].values())
    assert answer["queue_ms"] >= 0
    assert 0 < answer["compute_ms"] <= answer["tier_ms"]
    assert recorded_states(tmp_path, "cloud") == [("answered", None)]


def test_edge_exits_early_or_at_its_last_layer(edge: FastAPI, bundle: Bundle) -> None:
    texts = [
        "a wonderful film",
        "terrible, just terrible",
        "it almost works, and that is what hurts",
    ]

    async def send(http: httpx.AsyncClient) -> list[dict[str, Any]]:
        answers = []
        for number, text in enumerate(texts):
            body = {"request_id": "r", "attempt_id": f"a{number}", "text": text}
            answers.append((await http.post("/v1/infer", json=body)).json())
        return answers

    alpha, n = bundle.manifest.alpha, bundle.manifest.edge_layers
    for answer in ask(edge, send):
        assert answer["exit_layer"] <= n
        assert answer["confidence"] >= alpha or answer["exit_layer"] == n


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"text": ""}, 422, "is empty"),
        ({"text": "x" * 100_000}, 413, "at most 20,000"),
        ({"text": "a", "pair": "b"}, 422, "the task sst2 uses none"),
        ({"bundle_id": "0123456789abcdef"}, 409, "start both with the same bundle"),
        ({"text": "\u200b"}, 422, "at least 1 word"),
    ],
)
def test_refusal_is_recorded(
    fields: dict[str, Any], status: int, says: str, cloud: FastAPI, tmp_path: Path
) -> None:
    answer = infer(cloud, **fields)
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]
    assert [state for state, _ in recorded_states(tmp_path, "cloud")] == ["refused"]


@pytest.mark.parametrize(
    "fields", [{"text": 3}, {"colour": 1}, {"attempt_id": ""}, {"deadline_ms": 0}, {"ordinal": 0}]
)
def test_invalid_attempt_is_refused(fields: dict[str, Any], cloud: FastAPI) -> None:
    answer = infer(cloud, **fields)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == next(iter(fields))


def test_health_readiness_and_openapi(edge: FastAPI, bundle: Bundle) -> None:
    async def send(http: httpx.AsyncClient) -> list[httpx.Response]:
        return [await http.get(path) for path in ("/healthz", "/readyz", "/openapi.json", "/none")]

    health, ready, openapi, none = ask(edge, send)
    assert health.status_code == ready.status_code == openapi.status_code == 200
    assert ready.json()["bundle_id"] == bundle.bundle_id
    assert ready.json()["layers"] == 3
    assert "/v1/infer" in openapi.json()["paths"]
    assert none.status_code == 404
    assert none.json()["error"]["code"] == "not_found"


def test_closed_tier_is_not_ready(edge: FastAPI) -> None:
    async def send(http: httpx.AsyncClient) -> httpx.Response:
        return await http.get("/readyz")

    ask(edge, send)
    transport = httpx.ASGITransport(edge)

    async def after() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://tier") as http:
            return await send(http)

    assert asyncio.run(after()).status_code == 503


def test_full_queue_and_passed_deadline_are_errors(bundle: Bundle) -> None:
    engine = engine_of(Classifier(bundle, LayerRange(1, 2)), None, max_queue=2)

    async def send_all() -> list[object]:
        work = [engine.run("fine", None, deadline_ms=60_000) for _ in range(5)]
        return list(await asyncio.gather(*work, return_exceptions=True))

    outcomes = asyncio.run(send_all())
    refused = [outcome for outcome in outcomes if isinstance(outcome, Overloaded)]
    assert len(refused) == 3
    assert all(error.retry_after_s is not None and error.retry_after_s > 0 for error in refused)
    with pytest.raises(DeadlineExceeded, match="in the queue"):
        asyncio.run(engine.run("fine", None, deadline_ms=1e-9))
    assert asyncio.run(engine.run("fine", None, 60_000)).prediction.exit_layer == 2
    engine.close()


def exchange(handler: Callable[[httpx.Request], httpx.Response], timeout_s: float = 5) -> Exchange:
    """Return the caller's view of an exchange with a tier that answers with ``handler``."""

    async def send() -> Exchange:
        client = TierClient(Tier.EDGE, "http://edge", EDGE_RULES, httpx.MockTransport(handler))
        request = InferRequest(request_id="r", attempt_id="a", text="fine")
        try:
            return await client.infer(request, timeout_s)
        finally:
            await client.close()

    return asyncio.run(send())


def test_exchange_reports_whether_the_request_arrived() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    def break_connection(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("", request=request)

    not_sent, broken = exchange(refuse), exchange(break_connection)
    assert (not_sent.delivery, not_sent.sent_bytes) == (Delivery.NOT_SENT, 0)
    assert broken.delivery is Delivery.UNKNOWN
    assert broken.sent_bytes > 0
    busy = exchange(lambda _: httpx.Response(429, json=Overloaded("full").payload()))
    assert busy.delivery is Delivery.ARRIVED
    assert isinstance(busy.error, Overloaded)
    for content in (b"", b"<html>", b'{"label": "positive"}', b"[]"):
        malformed = exchange(lambda _, content=content: httpx.Response(200, content=content))
        assert malformed.error is not None
        assert "unknown format" in malformed.error.message
    bad_gateway = exchange(lambda _: httpx.Response(502, content=b"<html>"))
    assert bad_gateway.error is not None
    assert "502" in bad_gateway.error.message


def test_hanging_tier_times_out() -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    hung = exchange(hang, timeout_s=0.05)  # type: ignore[arg-type]
    assert isinstance(hung.error, DeadlineExceeded)
    assert hung.delivery is Delivery.UNKNOWN

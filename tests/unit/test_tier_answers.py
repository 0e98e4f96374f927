"""Broken connections and invalid answers: an attempt fails, and the client never raises."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import httpx
import pytest
import uvloop

from shared.answer_rules import MAX_ANSWER_BYTES
from shared.domain import Delivery, Tier
from shared.errors import (
    BundleMismatch,
    DeadlineExceeded,
    InvalidInput,
    NotAdmitted,
    NotFound,
    NotReady,
    Overloaded,
    PolicyFailed,
    TierError,
    TierFailed,
    TierUnreachable,
    from_payload,
)
from shared.tier_client import Exchange, TierClient
from shared.wire import InferRequest, ResumeRequest
from tests.support.answers import EDGE_RULES, valid_answer
from tests.support.hostile_server import BEHAVIOURS, HostileServer, http, reset

T = TypeVar("T")
TIMEOUT_S = 20.0
RUNNERS: dict[str, Callable[[Coroutine[Any, Any, Any]], Any]] = {
    "asyncio": asyncio.run,
    "uvloop": uvloop.run,
}


def request(attempt_id: str = "a") -> InferRequest:
    return InferRequest(request_id="r", attempt_id=attempt_id, text="fine")


async def with_client(url: str, work: Callable[[TierClient], Awaitable[T]]) -> T:
    client = TierClient(Tier.EDGE, url, EDGE_RULES)
    try:
        return await work(client)
    finally:
        await client.close()


async def send_one(url: str, timeout_s: float) -> Exchange:
    return await with_client(url, lambda client: client.infer(request(), timeout_s))


@pytest.mark.parametrize("loop", RUNNERS)
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_hostile_answer_is_a_failed_attempt(name: str, loop: str) -> None:
    timeout_s = 0.2 if name == "never answers" else TIMEOUT_S
    with HostileServer(BEHAVIOURS[name]) as server:
        found: Exchange = RUNNERS[loop](send_one(server.url, timeout_s))
    assert found.answer is None
    assert isinstance(found.error, TierError)
    assert isinstance(found.error, DeadlineExceeded) == (name == "never answers")
    # the tier itself may have no entry of it, and something was sent that has its price
    assert found.delivery is Delivery.UNKNOWN
    assert found.sent_bytes > 0
    assert len(found.error.message) < 600
    assert found.error.message.isprintable()


@pytest.mark.parametrize("loop", RUNNERS)
def test_peer_that_resets_after_accepting_never_makes_the_client_raise(loop: str) -> None:
    def accept_and_reset(connection: socket.socket, _body: bytes, _number: int) -> None:
        reset(connection)

    async def send_many(client: TierClient) -> list[Exchange]:
        found = []
        for _ in range(10):
            sent = (client.infer(request(), TIMEOUT_S) for _ in range(20))
            found += await asyncio.gather(*sent)
        return found

    with HostileServer(accept_and_reset, reads=False) as server:
        found = RUNNERS[loop](with_client(server.url, send_many))
    assert len(found) == 200
    assert all(isinstance(one.error, TierUnreachable) for one in found)
    assert {one.delivery for one in found} <= {Delivery.NOT_SENT, Delivery.UNKNOWN}


def answers_then_resets(connection: socket.socket, body: bytes, number: int) -> None:
    """Answer the first request of the first connection, and reset it at the second one."""
    answer = json.dumps(valid_answer(json.loads(body)["attempt_id"])).encode()
    if number == 1 and json.loads(body)["attempt_id"] != "first":
        reset(connection)
    else:
        connection.sendall(http(answer))


async def first_and_second(client: TierClient) -> tuple[Exchange, Exchange, Exchange]:
    first = await client.infer(request("first"), TIMEOUT_S)
    second = await client.infer(request("second"), TIMEOUT_S)
    third = await client.infer(request("third"), TIMEOUT_S, fresh_connection=True)
    return first, second, third


@pytest.mark.parametrize("loop", RUNNERS)
def test_broken_reused_connection_is_told_from_a_broken_new_one(loop: str) -> None:
    with HostileServer(answers_then_resets) as server:
        first, second, third = RUNNERS[loop](with_client(server.url, first_and_second))
        assert server.connections == 2
    assert first.answer is not None
    assert isinstance(second.error, TierUnreachable)
    assert second.reused_connection_broke
    assert third.answer is not None
    with HostileServer(BEHAVIOURS["resets without an answer"]) as server:
        assert not RUNNERS[loop](send_one(server.url, TIMEOUT_S)).reused_connection_broke


def test_reused_connection_that_carried_a_byte_of_the_answer_is_not_told_as_broken() -> None:
    def behave(connection: socket.socket, body: bytes, number: int) -> None:
        if json.loads(body)["attempt_id"] == "first":
            answers_then_resets(connection, body, number)
        else:
            connection.sendall(b"H")
            connection.close()

    async def twice(client: TierClient) -> Exchange:
        await client.infer(request("first"), TIMEOUT_S)
        return await client.infer(request("second"), TIMEOUT_S)

    with HostileServer(behave) as server:
        found = asyncio.run(with_client(server.url, twice))
        assert server.connections == 1
    assert isinstance(found.error, TierUnreachable)
    assert not found.reused_connection_broke


@pytest.mark.parametrize("loop", RUNNERS)
def test_idle_connection_that_was_reset_is_not_used(loop: str) -> None:
    def answer_and_reset(connection: socket.socket, body: bytes, _number: int) -> None:
        connection.sendall(http(json.dumps(valid_answer(json.loads(body)["attempt_id"])).encode()))
        # the client's close of its half, or its next request, never comes: the reset does
        reset(connection)

    async def several(client: TierClient) -> list[Exchange]:
        return [await client.infer(request(f"a{i}"), TIMEOUT_S) for i in range(20)]

    with HostileServer(answer_and_reset) as server:
        found = RUNNERS[loop](with_client(server.url, several))
    assert all(one.answer is not None or isinstance(one.error, TierUnreachable) for one in found)


@pytest.mark.parametrize(
    "failure",
    [
        AttributeError("'NoneType' object has no attribute 'getpeername'"),
        RuntimeError("unable to perform operation on <TCPTransport closed=True>"),
        OSError(9, "Bad file descriptor"),
        ValueError("port out of range"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        RecursionError("maximum recursion depth exceeded"),
        ExceptionGroup("several", [OSError("one"), OSError("two")]),
        httpx.DecodingError("bad"),
        KeyError("x"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_any_exception_of_a_transport_is_a_failed_attempt(failure: Exception) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise failure

    found = exchange(fail)
    assert isinstance(found.error, TierUnreachable)
    assert (found.answer, found.delivery) == (None, Delivery.UNKNOWN)


@pytest.mark.parametrize("failure", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(1)])
def test_cancellation_and_the_end_of_the_process_are_raised(failure: BaseException) -> None:
    class Raising(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise failure

    async def send() -> Exchange:
        return await TierClient(Tier.EDGE, "http://edge", EDGE_RULES, Raising()).infer(
            request(), TIMEOUT_S
        )

    with pytest.raises(type(failure)):
        asyncio.run(send())


def exchange(handler: Callable[[httpx.Request], httpx.Response], after: int | None = None) -> Any:
    async def send() -> Exchange:
        client = TierClient(Tier.EDGE, "http://edge", EDGE_RULES, httpx.MockTransport(handler))
        if after is None:
            return await client.infer(request(), TIMEOUT_S)
        resume = ResumeRequest(request_id="r", attempt_id="a")
        return await client.resume(resume, b"state", after, TIMEOUT_S)

    return asyncio.run(send())


def answered(after: int | None = None, **changes: Any) -> Exchange:
    content = json.dumps(valid_answer() | changes)
    found = exchange(lambda _: httpx.Response(200, content=content), after)
    assert isinstance(found, Exchange)
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exit_layer": 1},
        {"tokens": 256},
        {"label": "positive", "probabilities": {"positive": 1.0, "negative": 0.0}, "confidence": 1},
        {"probabilities": {"positive": 0.0105, "negative": 0.9897}},
        {"queue_ms": 0, "compute_ms": 0, "tier_ms": 0},
    ],
)
def test_valid_answer_is_accepted(changes: dict[str, Any]) -> None:
    found = answered(**changes)
    assert found.answer is not None
    assert (found.error, found.delivery) == (None, Delivery.ARRIVED)


NAN, INFINITE = float("nan"), float("inf")
INVALID: list[dict[str, Any]] = [
    {"attempt_id": "b"},
    {"attempt_id": ""},
    {"attempt_id": 7},
    {"tier": "cloud"},
    {"tier": "mobile"},
    {"tier": "moon"},
    {"bundle_id": "0" * 16},
    {"bundle_id": "x" * 5000},
    {"label": "neutral"},
    {"label": ""},
    {"label": "Negative"},
    {"label": None},
    {"label": "positive"},
    {"probabilities": {}},
    {"probabilities": {"negative": 1.0}},
    {"probabilities": {"negative": 0.99, "positive": 0.01, "neutral": 0.0}},
    {"probabilities": {"negative": 0.99, "other": 0.01}},
    {"probabilities": {"negative": NAN, "positive": 0.01}},
    {"probabilities": {"negative": 0.99, "positive": -0.01}},
    {"probabilities": {"negative": 0.99, "positive": 0.9}},
    {"probabilities": {"negative": 0.0, "positive": 0.0}},
    {"probabilities": {"negative": "0.99", "positive": 0.01}},
    {"probabilities": [0.99, 0.01]},
    {"confidence": NAN},
    {"confidence": INFINITE},
    {"confidence": 1.5},
    {"confidence": -0.5},
    {"confidence": 0.5},
    {"confidence": None},
    {"exit_layer": -1},
    {"exit_layer": 0},
    {"exit_layer": 4},
    {"exit_layer": 10**30},
    {"exit_layer": 2.5},
    {"exit_layer": True},
    {"resumed_after": 1},
    {"resumed_after": -1},
    {"tokens": 0},
    {"tokens": -5},
    {"tokens": 257},
    {"tokens": 2**63},
    {"truncated": "no"},
    {"queue_ms": -1.0},
    {"queue_ms": 1e9},
    {"compute_ms": NAN},
    {"compute_ms": 1e300},
    {"tier_ms": INFINITE},
    {"tier_ms": 1e9},
    {"cost_lambda": -3.0},
    {"items": []},
]


@pytest.mark.parametrize("changes", INVALID, ids=lambda changes: str(changes)[:60])
def test_answer_with_a_wrong_field_is_a_failed_attempt(changes: dict[str, Any]) -> None:
    found = answered(**changes)
    assert found.answer is None
    assert isinstance(found.error, TierFailed)
    assert found.error.message.startswith("the edge at http://edge answered")
    assert len(found.error.message) < 600
    assert found.delivery is Delivery.UNKNOWN


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({"resumed_after": 1, "exit_layer": 2}, True),
        ({"resumed_after": 1, "exit_layer": 1}, False),
        ({"resumed_after": 2, "exit_layer": 3}, False),
        ({"resumed_after": None}, False),
    ],
)
def test_resumed_answer_starts_after_the_state_that_was_sent(
    changes: dict[str, Any], valid: bool
) -> None:
    assert (answered(after=1, **changes).answer is not None) == valid


def test_body_up_to_the_limit_is_read_and_no_more() -> None:
    content = json.dumps(valid_answer()).encode()

    def padded(length: int) -> Exchange:
        found = exchange(lambda _: httpx.Response(200, content=content.ljust(length)))
        assert isinstance(found, Exchange)
        return found

    assert padded(MAX_ANSWER_BYTES).answer is not None
    assert isinstance(padded(MAX_ANSWER_BYTES + 1).error, TierFailed)


@pytest.mark.parametrize(
    ("status", "body", "kind", "delivery"),
    [
        (409, BundleMismatch("no").payload(), BundleMismatch, Delivery.ARRIVED),
        (429, Overloaded("full").payload(), Overloaded, Delivery.ARRIVED),
        # before the body was read
        (429, Overloaded("body: no", field="body").payload(), Overloaded, Delivery.UNKNOWN),
        (503, NotReady("no").payload(), NotReady, Delivery.UNKNOWN),
        (504, DeadlineExceeded("no").payload(), DeadlineExceeded, Delivery.ARRIVED),
        (500, TierFailed("no").payload(), TierFailed, Delivery.ARRIVED),
        (500, {"error": {"code": "internal", "message": "x"}}, TierFailed, Delivery.ARRIVED),
        (401, {"error": {"code": "unauthorised"}}, NotAdmitted, Delivery.UNKNOWN),
        # the status of another error, or an error that no tier has for a text that was checked
        (200, NotFound("no").payload(), TierFailed, Delivery.UNKNOWN),
        (404, NotFound("no").payload(), TierFailed, Delivery.UNKNOWN),
        (404, Overloaded("no").payload(), TierFailed, Delivery.UNKNOWN),
        (422, InvalidInput("text: no").payload(), TierFailed, Delivery.UNKNOWN),
        (500, PolicyFailed("no").payload(), TierFailed, Delivery.UNKNOWN),
        (503, {"error": {"code": "ledger_unavailable"}}, TierFailed, Delivery.UNKNOWN),
        (418, {"error": {"code": "teapot"}}, TierFailed, Delivery.UNKNOWN),
        (500, ["error"], TierFailed, Delivery.UNKNOWN),
        (500, None, TierFailed, Delivery.UNKNOWN),
    ],
)
def test_only_errors_that_a_tier_has_are_taken_from_it(
    status: int, body: object, kind: type[Exception], delivery: Delivery
) -> None:
    found = exchange(lambda _: httpx.Response(status, json=body))
    assert (type(found.error), found.delivery) == (kind, delivery)


@pytest.mark.parametrize("error", [InvalidInput("state: no"), NotFound("path: no")])
def test_refused_hidden_state_keeps_its_error(error: InvalidInput | NotFound) -> None:
    found = exchange(lambda _: httpx.Response(error.status, json=error.payload()), after=1)
    assert type(found.error) is type(error)


@pytest.mark.parametrize(
    ("facts", "kept"),
    [
        ({"retry_after_s": 2}, 2),
        ({"retry_after_s": "soon"}, None),
        ({"retry_after_s": -1}, None),
        ({"retry_after_s": NAN}, None),
        ({"retry_after_s": INFINITE}, None),
        ({"retry_after_s": 10**400}, None),
        ({"retry_after_s": True}, None),
        ({"retry_after_s": [1]}, None),
    ],
)
def test_facts_of_an_error_that_are_none_are_left_out(facts: dict[str, Any], kept: Any) -> None:
    error = from_payload({"error": {"code": "overloaded", "message": "full"} | facts}, 429)
    assert type(error) is Overloaded
    assert error.retry_after_s == kept


def test_message_of_an_error_is_cut_and_printable() -> None:
    error = from_payload({"error": {"code": [], "message": "\x1b[2J\ud800" + "a" * 10**6}}, 500)
    assert type(error) is TierFailed
    assert error.message.isprintable()
    assert len(error.message) <= 2_000

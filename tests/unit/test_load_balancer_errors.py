"""Answers of a load balancer are no proof that the tier behind it has got an attempt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence

import httpx
import pytest

from shared.domain import Delivery, Tier
from shared.errors import DimeeError, Overloaded, TierFailed, TierUnreachable
from shared.tier_client import MAX_FORMER, Exchange, TierClient
from shared.wire import InferRequest
from tests.support.answers import EDGE_RULES, valid_answer

NGINX = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n"
    "<hr><center>nginx/1.24.0</center>\r\n</body>\r\n</html>\r\n"
)
Handler = Callable[[httpx.Request], httpx.Response]


def exchanges(handlers: Sequence[Handler]) -> list[Exchange]:
    """Return the exchanges of one client, each with the next handler."""

    async def send() -> list[Exchange]:
        left = iter(handlers)
        transport = httpx.MockTransport(lambda request: next(left)(request))
        client = TierClient(Tier.EDGE, "http://edge", EDGE_RULES, transport)
        request = InferRequest(request_id="r", attempt_id="a", text="fine")
        return [await client.infer(request, 5.0) for _ in handlers]

    return asyncio.run(send())


def named(replica: str, error: DimeeError | None = None) -> Handler:
    headers = {"dimee-replica": replica}
    if error is not None:
        body, status = error.payload(), error.status
        return lambda _: httpx.Response(status, json=body, headers=headers)
    return lambda _: httpx.Response(200, content=json.dumps(valid_answer()), headers=headers)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, NGINX.format("500 Internal Server Error")),
        (502, NGINX.format("502 Bad Gateway")),
        (503, NGINX.format("503 Service Temporarily Unavailable")),
        (504, NGINX.format("504 Gateway Time-out")),
        (503, "no healthy upstream"),  # Envoy
        (503, "<html><body><h1>503 Service Unavailable</h1>\nNo server is available</body></html>"),
        (502, '{"message":"An invalid response was received from the upstream server"}'),  # Kong
        (500, '{"message":"Internal Server Error"}'),  # AWS
        (500, '{"error":{"code":"InternalServerError","message":"failed"}}'),  # Azure
        (500, '{"error":{"code":13,"message":"failed","status":"INTERNAL"}}'),  # Google
        (500, '{"error":"internal"}'),
        (500, '{"error":{"code":"tier_failed","message":"x"},"trace":"y"}'),
        (500, '{"error":{"code":"tier_failed"}}'),
        (500, ""),
        (200, NGINX.format("Welcome to nginx!")),
        (429, NGINX.format("429 Too Many Requests")),
        (429, '{"error":{"code":"429","message":"Rate limit is exceeded"}}'),
    ],
)
def test_error_of_a_load_balancer_is_no_proof_of_delivery(status: int, body: str) -> None:
    (found,) = exchanges([lambda _: httpx.Response(status, text=body)])
    assert (type(found.error), found.delivery) == (TierFailed, Delivery.UNKNOWN)
    assert (found.answer, found.replica) == (None, None)


@pytest.mark.parametrize(
    ("header", "replica"),
    [("cloud-2", "cloud-2"), ("a" * 64, "a" * 64), ("a" * 65, None), ("a b", None), ("", None)],
)
def test_replica_is_named_by_answers_and_errors(header: str, replica: str | None) -> None:
    for found in exchanges([named(header), named(header, Overloaded("full"))]):
        assert (found.delivery, found.replica) == (Delivery.ARRIVED, replica)


def test_replica_of_a_broken_connection_is_that_of_earlier_responses() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    played = [refuse, named("cloud-1"), refuse, named("cloud-2"), refuse, named("cloud-1"), refuse]
    before, _, first, _, second, _, balanced = exchanges(played)
    assert isinstance(before.error, TierUnreachable)
    # a name that returns is a load balancer's, whose next replica is not known
    found = [one.replica for one in (before, first, second, balanced)]
    assert found == [None, "cloud-1", "cloud-2", None]


def test_names_at_an_address_have_a_limit() -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset", request=request)

    *_, within = exchanges([*(named(f"cloud-{n}") for n in range(MAX_FORMER)), broken])
    assert within.replica == f"cloud-{MAX_FORMER - 1}"
    *_, beyond = exchanges([*(named(f"cloud-{n}") for n in range(2 * MAX_FORMER)), broken])
    assert beyond.replica is None

"""Requests after an idle time that is just shorter than the client's, over a real link of delay."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request

from shared.connections import CLIENT_IDLE_S
from shared.domain import Tier
from shared.link_profiles import LINKS
from shared.tier_client import TierClient
from shared.wire import InferRequest
from testbed.links.relay import Relay
from testbed.links.schedule import LinkState, Schedule
from testbed.load.generator import open_loop
from testbed.load.http_client import HttpClient
from tests.support.answers import EDGE_RULES, valid_answer
from tests.support.http_server import HttpServer, in_turn, response
from tests.support.paths import free_ports
from tests.support.servers import serving

HOST = "127.0.0.1"
IDLE_S = CLIENT_IDLE_S - 0.2
CLIENTS = 5


def edge_app() -> FastAPI:
    app = FastAPI()

    @app.post("/v1/infer")
    async def infer(request: Request) -> dict[str, Any]:
        return valid_answer((await request.json())["attempt_id"])

    return app


def test_request_after_4_8_idle_seconds_works_five_of_five_on_a_link_of_delay() -> None:
    """The delay of 3G makes the server's idle time 300 ms longer than the client's.

    All clients wait at the same time. No connection may be opened in place of another: a request
    on a connection that the server had closed would have been sent twice.
    """

    async def two_requests(url: str) -> list[bool]:
        client = TierClient(Tier.EDGE, url, EDGE_RULES)
        answered = []
        for number in range(2):
            request = InferRequest(request_id="r", attempt_id=f"a{number}", text="fine")
            exchange = await client.infer(request, 10.0)
            answered.append(exchange.answer is not None)
            if number == 0:
                await asyncio.sleep(IDLE_S)
        await client.close()
        return answered

    async def run() -> None:
        (listen,) = free_ports(1)
        schedule = Schedule(((0.0, LinkState("3g", LINKS["3g"])),))
        async with serving(edge_app()) as (_, port), asyncio.timeout(60):
            relay = Relay((HOST, listen), (HOST, port), schedule)
            await relay.start()
            try:
                url = f"http://{HOST}:{listen}"
                results = await asyncio.gather(*(two_requests(url) for _ in range(CLIENTS)))
                assert results == [[True, True]] * CLIENTS
                assert relay.report()["connections"] == CLIENTS
            finally:
                await relay.close()

    asyncio.run(run())


def test_load_generator_closes_idle_connections_as_other_clients_do() -> None:
    async def run() -> None:
        async with HttpServer(in_turn([response()])) as server:
            client = HttpClient(server.url, "/")
            tally = await open_loop(client, lambda _: b"{}", [0.0, CLIENT_IDLE_S + 0.1], 10.0)
            assert tally.count(200) == 2
            # of the ten that were opened at the start, none is used again
            assert tally.connections > 10

    asyncio.run(asyncio.wait_for(run(), 60))

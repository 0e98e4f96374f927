"""Wait for one of a tier's connections, which is not the time of the tier."""

from __future__ import annotations

import asyncio
import json

import httpx

from shared.domain import Delivery, Tier
from shared.errors import DeadlineExceeded
from shared.tier_client import Exchange, TierClient
from shared.tier_transport import MAX_CONNECTIONS
from shared.wire import InferRequest
from tests.support.answers import EDGE_RULES, valid_answer
from tests.support.clock import Clock

TIMEOUT_S = 20.0


def request(attempt_id: str) -> InferRequest:
    return InferRequest(request_id="r", attempt_id=attempt_id, text="fine")


def test_wait_for_a_connection_is_not_part_of_the_round_trip() -> None:
    """A caller's batch that takes all connections must not look like a slow tier."""

    async def work() -> tuple[Exchange, Exchange]:
        busy, free = asyncio.Event(), asyncio.Event()
        in_flight = 0

        async def handler(message: httpx.Request) -> httpx.Response:
            nonlocal in_flight
            in_flight += 1
            if in_flight == MAX_CONNECTIONS:
                busy.set()
            await free.wait()
            attempt_id = json.loads(message.content)["attempt_id"]
            return httpx.Response(200, json=valid_answer(attempt_id))

        clock = Clock()
        transport = httpx.MockTransport(handler)
        client = TierClient(Tier.EDGE, "http://edge", EDGE_RULES, transport, clock=clock)
        batch = [
            asyncio.create_task(client.infer(request(str(number)), TIMEOUT_S))
            for number in range(MAX_CONNECTIONS)
        ]
        await busy.wait()
        impatient = await client.infer(request("impatient"), 0.01)
        patient = asyncio.create_task(client.infer(request("patient"), TIMEOUT_S))
        await asyncio.sleep(0)
        clock.now += 3.0
        free.set()
        await asyncio.gather(*batch)
        return impatient, await patient

    impatient, patient = asyncio.run(work())
    assert isinstance(impatient.error, DeadlineExceeded)
    assert (impatient.delivery, impatient.sent_bytes) == (Delivery.NOT_SENT, 0)
    assert patient.answer is not None
    assert (patient.round_trip_ms, patient.waited_ms) == (0.0, 3_000.0)

"""The limit on concurrent calls adapts, and deadlines count from the arrival of a call."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from mobile_client.dispatch import request_state
from mobile_client.gateway.app import create_app
from mobile_client.options import RequestOptions
from mobile_client.resilience.concurrency_limit import (
    FAST_SHARE,
    MIN_DECREASE_INTERVAL_S,
    MIN_LIMIT,
    AIMDLimiter,
)
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.domain import Side
from shared.errors import DeadlineExceeded, DimeeError, Overloaded
from shared.ledger.server.verify import verify
from tests.support.clock import Clock
from tests.support.mobile import World, answered
from tests.support.paths import BUNDLE, free_ports

TEXT = "a wonderful film"


def fill(limiter: AIMDLimiter) -> None:
    while limiter.in_flight < limiter.limit:
        limiter.acquire()


def test_calls_beyond_the_limit_are_refused() -> None:
    limiter = AIMDLimiter(3)
    fill(limiter)
    with pytest.raises(Overloaded, match="3 requests in flight") as refused:
        limiter.acquire()
    assert (refused.value.limit, refused.value.retry_after_s) == (3, 1.0)
    limiter.discard()
    limiter.acquire()


def test_late_answers_lower_the_limit_once_per_interval() -> None:
    clock = Clock()
    limiter = AIMDLimiter(100, clock)
    fill(limiter)
    for _ in range(10):
        limiter.release(1.0, 1.0, late=True)
    assert limiter.limit == 90
    clock.now += 2 * MIN_DECREASE_INTERVAL_S
    fill(limiter)
    limiter.release(FAST_SHARE + 0.01, 1.0, late=False)  # before the deadline, but close to it
    assert limiter.limit == 81


def test_limit_has_a_minimum_and_recovers() -> None:
    clock = Clock()
    limiter = AIMDLimiter(100, clock)
    for _ in range(200):
        clock.now += 2 * MIN_DECREASE_INTERVAL_S
        fill(limiter)
        limiter.release(1.0, 1.0, late=True)
    assert limiter.limit == MIN_LIMIT
    for _ in range(10_000):
        fill(limiter)
        limiter.release(0.1, 1.0, late=False)
    assert limiter.limit == 100


def test_late_answers_at_low_concurrency_do_not_lower_the_limit() -> None:
    """A server that hangs delays its callers although the mobile is not busy."""
    limiter = AIMDLimiter(100)
    for _ in range(1_000):
        limiter.acquire()
        limiter.release(1.0, 1.0, late=True)
    assert limiter.limit == 100


def limit_after(calls: int, took_s: float, deadline_s: float, **more: float) -> int:
    """Return the limit, at first 256, after ``calls`` late calls of 150 callers."""
    clock = Clock()
    limiter = AIMDLimiter(256, clock)
    for _ in range(150):
        limiter.acquire()
    for _ in range(calls):
        clock.now += MIN_DECREASE_INTERVAL_S
        limiter.release(took_s, deadline_s, took_s > deadline_s, **more)
        limiter.in_flight += 1
    return limiter.limit


@pytest.mark.parametrize(
    ("took_s", "deadline_s", "waited_s", "lag_s", "lowers"),
    [
        (0.31, 0.3, 0.29, 0.001, False),  # deadlines of 300 ms on a link of 340 ms
        (5.01, 5.0, 4.99, 0.2, False),  # a server that hangs
        (0.01, 0.001, 0.0, 0.001, False),  # a deadline that an idle mobile may miss
        (0.31, 0.3, 0.05, 0.001, True),  # the mobile itself took 260 ms
        (0.31, 0.3, 0.0, 0.0, True),  # an answer of the mobile
        (0.31, 0.3, 0.29, 0.08, True),  # the event loop was late
        (0.1, 0.3, 0.08, 0.08, False),  # … but the answer came early
    ],
)
def test_only_the_mobiles_own_time_and_a_late_loop_lower_the_limit(
    took_s: float, deadline_s: float, waited_s: float, lag_s: float, lowers: bool
) -> None:
    limit = limit_after(500, took_s, deadline_s, waited_s=waited_s, lag_s=lag_s)
    assert limit == (MIN_LIMIT if lowers else 256)


@pytest.mark.parametrize("policy", ["mobile", "cloud", "edge"])
def test_answer_after_the_deadline_is_an_error(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, up=("edge", "cloud"))
    monkeypatch.setattr(request_state, "GRACE_MS", -5_000.0)  # every answer is late
    late = request_state.RequestState.deadline_error
    calls: list[int] = []

    def deadline_error(
        self: request_state.RequestState, spent_ms: float
    ) -> DeadlineExceeded | None:
        calls.append(1)
        # the attempt is begun: the checks before it pass
        return late(self, spent_ms) if len(calls) > (2 if policy == "mobile" else 1) else None

    monkeypatch.setattr(request_state.RequestState, "deadline_error", deadline_error)

    async def ask(mobile: MobileService) -> Any:
        (outcome,) = await mobile.classify([TEXT], options=RequestOptions(policy))
        return outcome

    outcome = world.run(ask)
    assert isinstance(outcome, DimeeError)
    assert isinstance(outcome, DeadlineExceeded), outcome
    assert "passed" in outcome.message
    first = next(one for one in world.entries() if one.side is Side.CALLER and one.ordinal == 1)
    assert (first.state, first.error_code) == ("timed_out", "deadline_exceeded")
    store = world.ledger()
    assert verify(store).consistent
    store.close()


def test_request_that_arrives_too_late_opens_no_attempt(tmp_path: Path) -> None:
    world = World(tmp_path, up=("cloud",))

    async def ask(mobile: MobileService) -> Any:
        (outcome,) = await mobile.classify([TEXT], options=RequestOptions("cloud"), since=-1e6)
        return outcome

    assert isinstance(world.run(ask), DeadlineExceeded)
    assert world.entries() == []


def test_total_time_counts_from_the_arrival(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def ask(mobile: MobileService) -> Any:
        loop_time = time.perf_counter() - 1.0
        (outcome,) = await mobile.classify(
            [TEXT], options=RequestOptions("mobile"), since=loop_time
        )
        return outcome

    assert answered(world.run(ask)).total_ms > 1_000


def gateway(folder: Path, **more: Any) -> FastAPI:
    edge, cloud, ledger = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    urls = {"edge_url": edge, "cloud_url": cloud, "ledger_url": ledger}
    return create_app(MobileSettings(bundle=BUNDLE, state_dir=folder, **urls, **more))


def test_gateway_refuses_beyond_its_limit_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = gateway(tmp_path, max_queue=2)
    classify = MobileService.classify

    async def main() -> list[httpx.Response]:
        begun: list[int] = []
        both, go_on = asyncio.Event(), asyncio.Event()

        async def held(self: MobileService, *asked: Any, **more: Any) -> Any:
            begun.append(1)
            if len(begun) == 2:
                both.set()
            await go_on.wait()
            return await classify(self, *asked, **more)

        monkeypatch.setattr(MobileService, "classify", held)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://mobile") as http,
        ):

            def call(body: Any) -> Any:
                return http.post("/v1/classify", json=body)

            good = {"texts": [TEXT], "policy": "mobile"}
            two = [asyncio.create_task(call(good)) for _ in range(2)]
            await both.wait()
            refused = await call(good)
            elsewhere = await http.get("/healthz")
            go_on.set()
            answers = await asyncio.gather(*two)
            wrong = await call({"texts": [""]})
            again = [await call(good), await call(good)]
        return [refused, elsewhere, *answers, wrong, *again]

    refused, *others = asyncio.run(main())
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "overloaded"
    assert [one.status_code for one in others] == [200, 200, 200, 422, 200, 200]

"""The mobile lets in what it gets done in time, and tells nobody a late answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from mobile_client.dispatch import request_state as course
from mobile_client.gateway.app import create_app
from mobile_client.resilience.concurrency_limit import GOOD_TIME, LEAST, PAUSE_S, AIMDLimiter
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.domain import Side
from shared.errors import DeadlineExceeded, DimeeError, Overloaded
from shared.ledger.server.verify import verify
from tests.support.clock import Clock
from tests.support.mobile import World, answered
from tests.support.paths import BUNDLE, free_ports

TEXT = "a wonderful film"


def full(crowd: AIMDLimiter) -> None:
    while crowd.under_way < crowd.bound:
        crowd.enter()


def test_no_more_than_the_bound_are_let_in() -> None:
    crowd = AIMDLimiter(3)
    full(crowd)
    with pytest.raises(Overloaded, match="3 requests under way") as refused:
        crowd.enter()
    assert (refused.value.limit, refused.value.retry_after_s) == (3, 1.0)
    crowd.forget()
    crowd.enter()


def test_late_answers_lower_the_bound_once_for_what_was_let_in_before() -> None:
    clock = Clock()
    crowd = AIMDLimiter(100, clock)
    full(crowd)
    for _ in range(10):
        crowd.leave(1.0, 1.0, late=True)
    assert crowd.bound == 90
    clock.now += 2 * PAUSE_S
    full(crowd)
    crowd.leave(GOOD_TIME + 0.01, 1.0, late=False)  # in time, and yet too near to it
    assert crowd.bound == 81


def test_it_is_never_lowered_to_nothing_and_comes_back() -> None:
    clock = Clock()
    crowd = AIMDLimiter(100, clock)
    for _ in range(200):
        clock.now += 2 * PAUSE_S
        full(crowd)
        crowd.leave(1.0, 1.0, late=True)
    assert crowd.bound == LEAST
    for _ in range(10_000):
        full(crowd)
        crowd.leave(0.1, 1.0, late=False)
    assert crowd.bound == 100


def test_a_few_that_are_late_lower_nothing() -> None:
    """A server that hangs makes its callers late, not the mobile busy."""
    crowd = AIMDLimiter(100)
    for _ in range(1_000):
        crowd.enter()
        crowd.leave(1.0, 1.0, late=True)
    assert crowd.bound == 100


@pytest.mark.parametrize("policy", ["mobile", "cloud", "edge"])
def test_an_answer_after_its_time_is_an_error(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, up=("edge", "cloud"))
    # no answer can come before that
    monkeypatch.setattr(course, "GRACE_MS", -5_000.0)
    # but the request is begun
    begun = course.RequestState.check_time
    calls: list[int] = []

    def first_passes(self: course.RequestState) -> None:
        calls.append(1)
        if len(calls) > (2 if policy == "mobile" else 1):
            begun(self)

    monkeypatch.setattr(course.RequestState, "check_time", first_passes)

    async def ask(mobile: MobileService) -> Any:
        (outcome,) = await mobile.classify([TEXT], policy=policy)
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


def test_a_request_that_comes_too_late_opens_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, up=("cloud",))

    async def ask(mobile: MobileService) -> Any:
        (outcome,) = await mobile.classify([TEXT], policy="cloud", since=-1e6)
        return outcome

    assert isinstance(world.run(ask), DeadlineExceeded)
    assert world.entries() == []


def test_the_time_of_an_answer_counts_from_its_arrival(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def ask(mobile: MobileService) -> Any:
        loop_time = course.time.perf_counter() - 1.0
        (outcome,) = await mobile.classify([TEXT], policy="mobile", since=loop_time)
        return outcome

    assert answered(world.run(ask)).total_ms > 1_000


def gateway(folder: Path, **more: Any) -> FastAPI:
    edge, cloud, ledger = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    urls = {"edge_url": edge, "cloud_url": cloud, "ledger_url": ledger}
    return create_app(MobileSettings(bundle=BUNDLE, state_dir=folder, **urls, **more))


def test_the_gateway_refuses_beyond_its_bound_and_takes_again(
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

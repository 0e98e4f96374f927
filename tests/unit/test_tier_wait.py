"""The gateway tells its own time from the time that its calls wait for other tiers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from mobile_client.dispatch.tier_wait import TierWait, measure_tier_wait, waiting_for_tier
from mobile_client.gateway.app import CLASSIFY, DEADLINE_MS, ConcurrencyLimitMiddleware
from mobile_client.resilience.concurrency_limit import MIN_LIMIT, AIMDLimiter
from mobile_client.resilience.loop_lag import DECAY, INTERVAL_S, LoopLag
from mobile_client.service import MobileService
from tests.support.clock import Clock
from tests.support.played_tiers import one, world
from tests.support.virtual_time import VirtualClock, run_in_virtual_time

CALLERS = 30


def test_waits_are_added_only_within_the_block() -> None:
    clock = Clock()
    wait = TierWait(clock)
    with waiting_for_tier():
        clock.now += 1
    with measure_tier_wait(wait):
        clock.now += 10
        for _ in range(2):
            with waiting_for_tier():
                clock.now += 2
        with suppress(ValueError), waiting_for_tier():
            clock.now += 3
            raise ValueError
    with waiting_for_tier():
        clock.now += 1
    assert wait.total_s == 7


def test_waits_of_tasks_of_a_block_are_added() -> None:
    clock = Clock()

    async def exchange() -> None:
        with waiting_for_tier():
            clock.now += 2

    async def main() -> float:
        wait = TierWait(clock)
        with measure_tier_wait(wait):
            await asyncio.create_task(exchange())
        return wait.total_s

    assert asyncio.run(main()) == 2


@pytest.mark.parametrize(
    ("edge", "cloud", "settings", "asked", "least_s", "most_s"),
    [
        ("hangs", "gone", {"retries": 0}, {"policy": "edge", "deadline_ms": 300}, 0.1, 0.31),
        ("gone", "hangs", {"retries": 0}, {"policy": "cloud", "deadline_ms": 800}, 0.1, 0.81),
        # the hedge starts while the first attempt runs: one wait
        ("hangs", "hangs", {"hedge": "p95"}, {"policy": "edge", "deadline_ms": 300}, 0.1, 0.31),
        ("gone", "gone", {}, {"policy": "mobile", "deadline_ms": 300}, 0.0, 0.0),
    ],
)
def test_exchanges_are_waits_and_answers_of_the_mobile_are_not(
    tmp_path: Path,
    edge: str,
    cloud: str,
    settings: dict[str, Any],
    asked: dict[str, Any],
    least_s: float,
    most_s: float,
) -> None:
    async def work(mobile: MobileService) -> float:
        wait = TierWait(asyncio.get_running_loop().time)
        with measure_tier_wait(wait):
            await one(mobile, **asked)
        return wait.total_s

    assert least_s <= world(tmp_path, edge, cloud, **settings).run(work) <= most_s


def test_lag_is_the_lateness_of_the_loop_and_decays() -> None:
    async def main(clock: VirtualClock) -> list[float]:
        needed = True
        lag = LoopLag(lambda: needed, clock)
        found = []
        lag.watch()
        await asyncio.sleep(INTERVAL_S * 1.5)
        found.append(lag.seconds)
        clock.advance(0.4)  # a callback that takes 400 ms
        found.append(lag.seconds)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found.append(lag.seconds)
        await asyncio.sleep(INTERVAL_S)
        found.append(lag.seconds)
        needed = False
        await asyncio.sleep(2 * INTERVAL_S)
        clock.advance(5)
        lag.watch()
        found.append(lag.seconds)
        return found

    idle, overdue, measured, later, begun = run_in_virtual_time(main)
    assert idle < 0.001
    assert overdue == pytest.approx(0.4 - INTERVAL_S / 2, abs=0.001)
    assert measured == pytest.approx(overdue, abs=0.001)
    assert later == pytest.approx(DECAY * measured, abs=0.001)
    assert begun == 0


async def limit_after_calls(
    clock: VirtualClock, answer: Callable[[VirtualClock], Awaitable[int]]
) -> int:
    """Return the limit, at first 40, after 30 callers with deadlines of 300 ms called for 20 s."""
    limiter = AIMDLimiter(40, clock)

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        scope[DEADLINE_MS] = 300.0
        await send({"type": "http.response.start", "status": await answer(clock), "headers": []})

    gateway = ConcurrencyLimitMiddleware(app, limiter, {CLASSIFY}, clock)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        return None

    async def caller() -> None:
        until = clock() + 20
        while clock() < until:
            scope = {"type": "http", "path": CLASSIFY, "method": "POST"}
            await gateway(scope, receive, send)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return limiter.limit


def test_impatient_callers_do_not_lower_the_limit_for_others() -> None:
    async def answer(_: VirtualClock) -> int:
        with waiting_for_tier():
            await asyncio.sleep(0.3)
        return 504

    assert run_in_virtual_time(lambda clock: limit_after_calls(clock, answer)) == 40


def test_slow_answers_of_the_mobile_lower_the_limit() -> None:
    async def answer(_: VirtualClock) -> int:
        await asyncio.sleep(0.3)
        return 504

    assert run_in_virtual_time(lambda clock: limit_after_calls(clock, answer)) == MIN_LIMIT


def test_waits_that_a_busy_loop_makes_longer_lower_the_limit() -> None:
    async def answer(clock: VirtualClock) -> int:
        with waiting_for_tier():
            await asyncio.sleep(0.2)
            clock.advance(0.02)  # work on the event loop, for each of 30 calls
        return 200

    assert run_in_virtual_time(lambda clock: limit_after_calls(clock, answer)) < 20

"""Measured delays, failures, deadlines and prices change decisions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobile_client.resilience.circuit_breaker import FAILURES, OPEN_S
from mobile_client.resilience.tier_stats import FAIR_TIMEOUT_MS, SMOOTHING, TierStats
from mobile_client.service import MobileService
from shared.domain import Delivery, Tier
from shared.errors import DeadlineExceeded, DimeeError, TierError
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices
from shared.tier_client import Exchange
from shared.wire import Classification
from tests.support.clock import Clock
from tests.support.mobile import World

COSTS = CostModel.paper(6)
TEXTS = ["a fine film", "neither good nor bad , and long at that", "dreadful", "it is what it is"]


def stats(clock: Clock, latency_price_lambda: float = 0.0) -> TierStats:
    return TierStats(LivePrices(COSTS), latency_price_lambda, clock)


def failed(error: DimeeError, delivery: Delivery, took_ms: float = 1.0) -> Exchange:
    return Exchange(
        answer=None,
        error=error,
        delivery=delivery,
        round_trip_ms=took_ms,
        sent_bytes=10,
        received_bytes=0,
    )


def test_delays_are_smoothed() -> None:
    tier_stats = stats(Clock())
    tier_stats.record_delay(Tier.EDGE, 100.0)
    tier_stats.record_delay(Tier.EDGE, 20.0)
    assert tier_stats.conditions.delay_ms[Tier.EDGE] == pytest.approx(100 - SMOOTHING * 80)


def test_unreachable_tier_becomes_available_again_after_a_while() -> None:
    clock = Clock()
    tier_stats = stats(clock)
    tier_stats.record_exchange(Tier.CLOUD, failed(TierError("gone"), Delivery.NOT_SENT))
    tier_stats.refresh(5000)
    assert not tier_stats.conditions.can_answer(Tier.CLOUD)
    assert tier_stats.conditions.can_answer(Tier.EDGE)
    clock.now += OPEN_S
    tier_stats.refresh(5000)
    assert tier_stats.conditions.can_answer(Tier.CLOUD)


@pytest.mark.parametrize(
    ("took_ms", "state"), [(FAIR_TIMEOUT_MS - 1, "closed"), (FAIR_TIMEOUT_MS, "open")]
)
def test_timeout_counts_as_a_failure_only_after_a_fair_time(took_ms: float, state: str) -> None:
    """Otherwise a caller with deadlines of 1 ms would exclude the tier for all others."""
    tier_stats = stats(Clock())
    for _ in range(FAILURES):
        late = failed(DeadlineExceeded("late"), Delivery.UNKNOWN, took_ms)
        tier_stats.record_exchange(Tier.EDGE, late)
    assert tier_stats.breakers[Tier.EDGE].state == state


def test_timeout_raises_the_mean_delay() -> None:
    tier_stats = stats(Clock())
    tier_stats.record_delay(Tier.EDGE, 8.0)
    tier_stats.record_exchange(
        Tier.EDGE, failed(DeadlineExceeded("late"), Delivery.UNKNOWN, 2008.0)
    )
    assert tier_stats.conditions.delay_ms[Tier.EDGE] == pytest.approx(8 + SMOOTHING * 2000)
    tier_stats.refresh(100)
    assert not tier_stats.conditions.can_answer(Tier.EDGE)


def tiers(world: World, texts: list[str]) -> list[Tier]:
    async def work(mobile: MobileService) -> list[Tier]:
        answers = await mobile.classify(texts)
        assert all(isinstance(answer, Classification) for answer in answers)
        return [answer.attempts[0].tier for answer in answers]  # type: ignore[union-attr]

    return world.run(work)


def test_offline_requests_stay_on_the_mobile_after_the_first_failure(tmp_path: Path) -> None:
    texts = [*TEXTS, "somewhere inside these three hours is a very good short"]

    async def work(mobile: MobileService) -> list[Classification]:
        return [(await mobile.classify([text]))[0] for text in texts * 2]  # type: ignore[misc]

    pure = {"latency_price_lambda": 0.0}  # the measured delays of two mobiles differ
    world = World(tmp_path, settings=pure | {"fail_over": (Tier.EDGE, Tier.CLOUD, Tier.MOBILE)})
    answers = world.run(work)
    assert {answer.tier for answer in answers} == {Tier.MOBILE}
    # the first request that needs a server asks both; later ones ask none
    assert [len(answer.attempts) > 1 for answer in answers].count(True) == 1
    # with all servers up, some of the texts go to one: without servers these are degraded
    up = World(tmp_path / "up", up=("edge", "cloud"), settings=pure)
    alone = [one.tier is Tier.MOBILE for one in up.run(work)]
    assert [answer.degraded_because for answer in answers] == [
        None if stays else "offline" for stays in alone
    ]
    assert not all(alone)


def test_higher_price_changes_decisions(tmp_path: Path) -> None:
    cheap, dear = tmp_path / "cheap.json", tmp_path / "dear.json"
    cheap.write_text(json.dumps({"version": "cheap", "cost_model": {"cloud_fee": 0}}))
    dear.write_text(json.dumps({"version": "dear", "cost_model": {"cloud_fee": 1e6}}))
    up = ("edge", "cloud")
    first = tiers(World(tmp_path / "a", up=up, settings={"price_book": cheap}), TEXTS)
    second = tiers(World(tmp_path / "b", up=up, settings={"price_book": dear}), TEXTS)
    assert set(first) == {Tier.CLOUD}
    assert Tier.CLOUD not in second


def test_measured_delay_changes_decisions(tmp_path: Path) -> None:
    """With a price of waiting, a slow tier is chosen less often."""

    async def work(mobile: MobileService) -> tuple[Tier, Tier]:
        read = mobile.runtime.prepare(TEXTS[0], None)
        policy = await mobile.runtime.policy("cascade-routing")
        before = mobile.runtime.route(read, policy, 5000).routing.tier
        mobile.runtime.tier_stats.record_delay(before, 4000.0)
        return before, mobile.runtime.route(read, policy, 5000).routing.tier

    before, after = World(tmp_path, settings={"latency_price_lambda": 1.0}).run(work)
    assert before is not after

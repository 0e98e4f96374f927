"""What was measured moves decisions: delays, tiers that are gone, deadlines, prices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobile_client.resilience.circuit_breaker import FAILURES, REST_S
from mobile_client.resilience.tier_stats import FAIR_MS, SMOOTHING, TierStats
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


def seen(clock: Clock, latency_price_lambda: float = 0.0) -> TierStats:
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
    observed = seen(Clock())
    observed.answered(Tier.EDGE, 100.0)
    observed.answered(Tier.EDGE, 20.0)
    assert observed.conditions.delay_ms[Tier.EDGE] == pytest.approx(100 - SMOOTHING * 80)


def test_a_tier_that_is_gone_rests_and_is_tried_again() -> None:
    clock = Clock()
    observed = seen(clock)
    observed.exchanged(Tier.CLOUD, failed(TierError("gone"), Delivery.NOT_SENT))
    observed.now(5000)
    assert not observed.conditions.can_answer(Tier.CLOUD)
    assert observed.conditions.can_answer(Tier.EDGE)
    clock.now += REST_S
    observed.now(5000)
    assert observed.conditions.can_answer(Tier.CLOUD)


@pytest.mark.parametrize(("took_ms", "state"), [(FAIR_MS - 1, "closed"), (FAIR_MS, "open")])
def test_only_who_had_time_enough_is_late(took_ms: float, state: str) -> None:
    """Else one caller's deadlines of a millisecond would keep the tier from all others."""
    observed = seen(Clock())
    for _ in range(FAILURES):
        late = failed(DeadlineExceeded("late"), Delivery.UNKNOWN, took_ms)
        observed.exchanged(Tier.EDGE, late)
    assert observed.breakers[Tier.EDGE].state == state


def test_a_late_tier_loses_its_good_name() -> None:
    observed = seen(Clock())
    observed.answered(Tier.EDGE, 8.0)
    observed.exchanged(Tier.EDGE, failed(DeadlineExceeded("late"), Delivery.UNKNOWN, 2008.0))
    assert observed.conditions.delay_ms[Tier.EDGE] == pytest.approx(8 + SMOOTHING * 2000)
    observed.now(100)
    assert not observed.conditions.can_answer(Tier.EDGE)


def tiers(world: World, texts: list[str]) -> list[Tier]:
    async def work(mobile: MobileService) -> list[Tier]:
        answers = await mobile.classify(texts, policy="cascade-routing")
        assert all(isinstance(answer, Classification) for answer in answers)
        return [answer.attempts[0].tier for answer in answers]  # type: ignore[union-attr]

    return world.run(work)


def test_without_a_network_the_mobile_is_asked_after_the_first_failure(tmp_path: Path) -> None:
    texts = [*TEXTS, "somewhere inside these three hours is a very good short"]

    async def work(mobile: MobileService) -> list[Classification]:
        return [(await mobile.classify([text], policy="cascade-routing"))[0] for text in texts * 2]  # type: ignore[misc]

    pure = {"latency_price_lambda": 0.0}  # the delays of two worlds are not the same
    world = World(tmp_path, settings=pure | {"fail_over": (Tier.EDGE, Tier.CLOUD, Tier.MOBILE)})
    answers = world.run(work)
    assert {answer.tier for answer in answers} == {Tier.MOBILE}
    # the first that wanted a server asked both; after that nothing asks them
    assert [len(answer.attempts) > 1 for answer in answers].count(True) == 1
    # the same texts with all servers there: what would have gone on to one is degraded without
    up = World(tmp_path / "up", up=("edge", "cloud"), settings=pure)
    alone = [one.tier is Tier.MOBILE for one in up.run(work)]
    assert [answer.degraded_because for answer in answers] == [
        None if stays else "offline" for stays in alone
    ]
    assert not all(alone)


def test_a_price_that_rises_changes_the_next_decision(tmp_path: Path) -> None:
    cheap, dear = tmp_path / "cheap.json", tmp_path / "dear.json"
    cheap.write_text(json.dumps({"version": "cheap", "cost_model": {"cloud_fee": 0}}))
    dear.write_text(json.dumps({"version": "dear", "cost_model": {"cloud_fee": 1e6}}))
    up = ("edge", "cloud")
    first = tiers(World(tmp_path / "a", up=up, settings={"price_book": cheap}), TEXTS)
    second = tiers(World(tmp_path / "b", up=up, settings={"price_book": dear}), TEXTS)
    assert set(first) == {Tier.CLOUD}
    assert Tier.CLOUD not in second


def test_waiting_has_a_price(tmp_path: Path) -> None:
    """With a price on milliseconds, a slow edge is worth less than it was."""

    async def work(mobile: MobileService) -> tuple[Tier, Tier]:
        read = mobile.runtime.read(TEXTS[0], None)
        policy = await mobile.runtime.policy("cascade-routing")
        before = mobile.runtime.decide(read, policy, 5000).routing.tier
        mobile.runtime.tier_stats.answered(before, 4000.0)
        return before, mobile.runtime.decide(read, policy, 5000).routing.tier

    before, after = World(tmp_path, settings={"latency_price_lambda": 1.0}).run(work)
    assert before is not after

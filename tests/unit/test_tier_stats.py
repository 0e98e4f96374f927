"""Measured delays, failures, deadlines and prices change decisions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mobile_client.resilience.circuit_breaker import FAILURES, OPEN_S
from mobile_client.resilience.replica_stats import (
    FAIR_MULTIPLE,
    FAIR_TIMEOUT_MS,
    SMOOTHING,
    RoundTrip,
)
from mobile_client.resilience.tier_stats import TierStats
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.domain import Delivery, Tier
from shared.errors import DeadlineExceeded, DimeeError, TierError, TierFailed, TierUnreachable
from shared.link_profiles import LINKS
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
    tier_stats.replicas[Tier.CLOUD][0].record_exchange(failed(TierError("gone"), Delivery.NOT_SENT))
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
        tier_stats.replicas[Tier.EDGE][0].record_exchange(late)
    assert tier_stats.replicas[Tier.EDGE][0].breaker.state == state


def test_fair_time_is_a_multiple_of_the_tiers_own_delay() -> None:
    """A caller with 300 ms on a link of 340 ms must not exclude the tier for all others."""
    tier_stats = stats(Clock())
    tier_stats.record_delay(Tier.EDGE, 1_000.0)
    assert tier_stats.replicas[Tier.EDGE][0].fair_timeout_ms == FAIR_MULTIPLE * 1_000.0
    for _ in range(2 * FAILURES):
        late = failed(DeadlineExceeded("late"), Delivery.UNKNOWN, FAIR_TIMEOUT_MS)
        tier_stats.replicas[Tier.EDGE][0].record_exchange(late)
    assert tier_stats.replicas[Tier.EDGE][0].breaker.state == "closed"


def test_fair_time_suffices_on_the_slowest_link_and_fits_the_default_deadline() -> None:
    handshakes = 3  # TCP, TLS, and the exchange itself
    slowest_ms = max(link.round_trip_ms + 2 * link.jitter_ms for link in LINKS.values())
    assert handshakes * slowest_ms < FAIR_TIMEOUT_MS
    assert MobileSettings.model_fields["deadline_ms"].default / 2 > FAIR_TIMEOUT_MS


@pytest.mark.parametrize("took_ms", [5.0, FAIR_TIMEOUT_MS + 8])
@pytest.mark.parametrize(
    "error", [DeadlineExceeded("late"), TierFailed("broken"), TierUnreachable("gone")]
)
def test_only_answers_enter_the_mean_delay(error: DimeeError, took_ms: float) -> None:
    tier_stats = stats(Clock())
    tier_stats.record_delay(Tier.EDGE, 8.0)
    tier_stats.replicas[Tier.EDGE][0].record_exchange(failed(error, Delivery.UNKNOWN, took_ms))
    assert tier_stats.conditions.delay_ms == {Tier.EDGE: 8.0}


def test_wait_for_a_connection_of_this_process_is_not_the_time_of_the_tier() -> None:
    tier_stats = stats(Clock())
    late = DeadlineExceeded("late")
    waited = replace(failed(late, Delivery.NOT_SENT, 0.0), waited_ms=5_000.0)
    asked_late = replace(failed(late, Delivery.UNKNOWN, 500.0), waited_ms=4_500.0)
    for _ in range(2 * FAILURES):
        for exchange in (waited, asked_late):
            tier_stats.replicas[Tier.CLOUD][0].record_exchange(exchange, timeout_ms=5_000.0)
    assert tier_stats.replicas[Tier.CLOUD][0].breaker.state == "closed"
    assert tier_stats.replicas[Tier.CLOUD][0].breaker.failures == 0


def test_timeouts_after_a_pause_of_this_process_do_not_count() -> None:
    """A laptop that slept, or a process that got no CPU time, finds its answers unread."""
    tier_stats = stats(Clock())
    for _ in range(FAILURES):
        late = failed(DeadlineExceeded("late"), Delivery.UNKNOWN, 30_000.0)
        tier_stats.replicas[Tier.EDGE][0].record_exchange(late, timeout_ms=2_500.0)
    breaker = tier_stats.replicas[Tier.EDGE][0].breaker
    assert (breaker.state, breaker.failures, breaker.needs_probe) == ("closed", 0, True)
    for _ in range(FAILURES):
        late = failed(DeadlineExceeded("late"), Delivery.UNKNOWN, 2_501.0)
        tier_stats.replicas[Tier.EDGE][0].record_exchange(late, timeout_ms=2_500.0)
    assert breaker.state == "open"


def test_tier_that_reports_a_short_deadline_itself_is_not_suspected() -> None:
    tier_stats = stats(Clock())
    late = DeadlineExceeded("late")
    tier_stats.replicas[Tier.EDGE][0].record_exchange(failed(late, Delivery.ARRIVED, 50.0))
    assert not tier_stats.replicas[Tier.EDGE][0].breaker.needs_probe
    tier_stats.replicas[Tier.EDGE][0].record_exchange(failed(late, Delivery.UNKNOWN, 50.0))
    assert tier_stats.replicas[Tier.EDGE][0].breaker.needs_probe


def with_round_trips(answered_ms: list[float], cut_off_ms: list[float]) -> TierStats:
    tier_stats = stats(Clock())
    tier_stats.replicas[Tier.EDGE][0].round_trips.extend(RoundTrip(ms, True) for ms in answered_ms)
    for ms in cut_off_ms:
        tier_stats.replicas[Tier.EDGE][0].record_cancelled(ms)
    return tier_stats


def test_p95_counts_a_cancelled_round_trip_as_longer_than_its_wait() -> None:
    """Otherwise each hedge would remove a slow answer, and the next one would come earlier."""
    hundred = [float(ms) for ms in range(1, 101)]
    assert with_round_trips(hundred, []).replicas[Tier.EDGE][0].p95_ms() == 95.0
    # those between 90 and 95 were cancelled at 90: the p95 must not fall to that of the others
    fewer = [ms for ms in hundred if not 90 < ms <= 95]
    assert with_round_trips(fewer, [90.0] * 5).replicas[Tier.EDGE][0].p95_ms() == 98.0
    # waits that were much shorter say little
    assert with_round_trips(hundred, [1.5] * 100).replicas[Tier.EDGE][0].p95_ms() == 96.0
    # more than 5 % without an end: the longest answered one, not a longer time and not never
    assert with_round_trips(hundred, [100.0] * 20).replicas[Tier.EDGE][0].p95_ms() == 100.0
    assert with_round_trips(hundred[:10], [100.0] * 20).replicas[Tier.EDGE][0].p95_ms() is None


def test_tier_that_hangs_is_hedged_as_before_and_probed() -> None:
    """Every hedge wins then, and no attempt at the tier has another end."""
    tier_stats = with_round_trips([float(ms) for ms in range(1, 101)], [100.0] * 1_000)
    assert tier_stats.replicas[Tier.EDGE][0].p95_ms() == 100.0
    assert tier_stats.replicas[Tier.EDGE][0].breaker.needs_probe


def test_impatient_callers_do_not_enter_the_p95() -> None:
    tier_stats = with_round_trips([100.0] * 50, [])
    for _ in range(500):
        late = failed(DeadlineExceeded("late"), Delivery.UNKNOWN, 10.0)
        tier_stats.replicas[Tier.EDGE][0].record_exchange(late)
    assert tier_stats.replicas[Tier.EDGE][0].p95_ms() == 100.0


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

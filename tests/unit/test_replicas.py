"""Choice of a replica, addresses of a name, and conditions of a tier with replicas."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from typing import Any

import pytest

from mobile_client.resilience.circuit_breaker import FAILURES
from mobile_client.resilience.replica_stats import BUSY_S, MAX_BUSY_S
from mobile_client.resilience.tier_stats import TierStats
from mobile_client.settings import MobileSettings
from shared import replica_addresses
from shared.addresses import MAX_ADDRESSES, split_addresses
from shared.domain import Delivery, Tier
from shared.errors import (
    BundleMismatch,
    DeadlineExceeded,
    DimeeError,
    InvalidInput,
    NotAdmitted,
    NotReady,
    Overloaded,
    TierFailed,
    TierUnreachable,
)
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices
from shared.replica_addresses import has_name, one_family, system_addresses
from shared.settings import read_settings
from shared.tier_client import Exchange
from tests.support.clock import Clock

EDGE, CLOUD = Tier.EDGE, Tier.CLOUD


def stats(replicas: int, clock: Clock | None = None, seed: int = 0) -> TierStats:
    prices = LivePrices(CostModel.paper(6))
    made = TierStats(prices, 0.0, clock or Clock(), rng=random.Random(seed))
    for _ in range(replicas - 1):
        made.add_replica(EDGE)
    return made


def failure(error: DimeeError, delivery: Delivery = Delivery.ARRIVED) -> Exchange:
    return Exchange(delivery, 10, 10, 5.0, None, error)


def test_replica_with_the_fewest_outstanding_exchanges_is_chosen() -> None:
    tier_stats = stats(3)
    first, second, third = tier_stats.replicas[EDGE]
    tokens = [first.begin(), first.begin(), second.begin()]
    assert [tier_stats.choose(EDGE) for _ in range(4)] == [third] * 4
    third.begin()
    assert {tier_stats.choose(EDGE) for _ in range(2)} == {second, third}
    for token in tokens:
        first.end(token)
        first.end(token)  # idempotent
    assert first.outstanding == 0
    assert tier_stats.choose(EDGE) is first


def test_idle_replicas_take_turns_and_clients_begin_at_different_ones() -> None:
    begun: Counter[int] = Counter()
    for seed in range(30):
        tier_stats = stats(3, seed=seed)
        chosen = [tier_stats.choose(EDGE) for _ in range(30)]
        assert set(Counter(chosen).values()) == {10}
        assert chosen[0] is not None
        begun[tier_stats.replicas[EDGE].index(chosen[0])] += 1
    assert min(begun[number] for number in range(3)) > 3


def test_replica_that_rests_or_refuses_is_chosen_last() -> None:
    clock = Clock()
    tier_stats = stats(2, clock)
    first, second = tier_stats.replicas[EDGE]
    first.record_exchange(failure(Overloaded("full", retry_after_s=30.0)))
    second.begin()
    assert [tier_stats.choose(EDGE) for _ in range(3)] == [second] * 3
    clock.now += MAX_BUSY_S
    assert tier_stats.choose(EDGE) is first
    second.record_exchange(failure(TierUnreachable("gone"), Delivery.NOT_SENT))
    first.begin(), first.begin(), first.begin()
    assert tier_stats.choose(EDGE) is first
    assert tier_stats.choose(EDGE, [first]) is second
    for _ in range(FAILURES):
        second.record_exchange(failure(TierUnreachable("gone"), Delivery.NOT_SENT))
    assert tier_stats.choose(EDGE, [first]) is None


@pytest.mark.parametrize(
    "error", [DeadlineExceeded("the queue is long"), TierFailed("500"), NotReady("starting")]
)
def test_replica_that_fails_at_once_does_not_attract_requests(error: DimeeError) -> None:
    """It has the fewest outstanding exchanges."""
    clock = Clock()
    tier_stats = stats(2, clock)
    slow, other = tier_stats.replicas[EDGE]
    token = slow.begin()
    slow.record_exchange(failure(error), token, timeout_ms=500.0)
    slow.end(token)
    for _ in range(5):
        other.begin()
    assert tier_stats.choose(EDGE) is other
    clock.now += BUSY_S
    assert tier_stats.choose(EDGE) is slow
    lost = failure(DeadlineExceeded("no answer"), Delivery.UNKNOWN)
    slow.record_exchange(lost, slow.begin(), timeout_ms=500.0)
    assert not slow.busy  # that exchange was outstanding for as long as it took


@pytest.mark.parametrize("error", [BundleMismatch("no"), NotAdmitted("no")])
def test_replica_that_refuses_every_request_of_this_mobile_does_not_attract_them(
    error: DimeeError,
) -> None:
    """It answers at once, so that it is always the one with the fewest outstanding exchanges."""
    clock = Clock()
    tier_stats = stats(2, clock)
    misfit, good = tier_stats.replicas[EDGE]
    refusals = 0
    for _ in range(100):
        good.begin()
        chosen = tier_stats.choose(EDGE)
        if chosen is misfit:
            refusals += 1
            token = misfit.begin()
            misfit.record_exchange(failure(error), token)
            misfit.end(token)
        clock.now += 0.25
    assert refusals == 3  # one each UNSUITED_S
    assert tier_stats.choose(EDGE, [good]) is misfit


def test_tier_is_available_while_one_replica_is() -> None:
    tier_stats = stats(2)
    first, second = tier_stats.replicas[EDGE]
    first.record_delay(100.0)
    second.record_delay(300.0)
    assert tier_stats.conditions.delay_ms[EDGE] == 200.0
    for _ in range(FAILURES):
        first.record_exchange(failure(TierUnreachable("gone"), Delivery.NOT_SENT))
    tier_stats.refresh(5_000)
    assert tier_stats.conditions.can_answer(EDGE)
    assert tier_stats.conditions.delay_ms[EDGE] == 300.0
    assert tier_stats.breaker_state(EDGE) == "closed"
    second.record_probe(None)
    assert tier_stats.readiness(EDGE) == "ready"
    for _ in range(FAILURES):
        second.record_exchange(failure(NotReady("starting"), Delivery.UNKNOWN))
    tier_stats.refresh(5_000)
    assert not tier_stats.conditions.can_answer(EDGE)
    assert tier_stats.conditions.can_answer(CLOUD)
    assert tier_stats.breaker_state(EDGE) == "open"
    assert tier_stats.readiness(EDGE) == "not ready"


def test_addresses_of_replicas_are_checked() -> None:
    several = "http://127.0.0.1:1, http://127.0.0.1:2"
    settings = read_settings(MobileSettings, cloud_url=several)
    assert split_addresses(settings.cloud_url) == ("http://127.0.0.1:1", "http://127.0.0.1:2")
    read_settings(MobileSettings, cloud_url="http://a:1,https://a:1,http://a:2,http://a:1/b")
    for wrong, problem in (
        ("http://a:1,", "is not an address|begins with neither"),
        ("http://a:1,b:2", "begins with neither"),
        ("http://a:1,http://a:1/", "twice"),
        ("http://cloud:1,http://Cloud.:1", "twice"),
        ("http://a,http://a:80", "twice"),
        ("https://a:443/x,HTTPS://user:word@a/x/", "twice"),
        ("http://[::1]:1,http://[0:0::1]:1", "twice"),
        (",".join(f"http://a:{n}" for n in range(1, MAX_ADDRESSES + 2)), "more than"),
    ):
        with pytest.raises(InvalidInput, match=problem):
            read_settings(MobileSettings, edge_url=wrong)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://127.0.0.1:8703", False),
        ("http://[::1]:8703", False),
        ("http://[fe80::1%25eth0]:1", False),
        ("http://localhost:8703", False),
        ("http://cloud:8703", True),
        ("https://cloud.example.org", True),
    ],
)
def test_only_names_are_resolved(url: str, named: bool) -> None:
    assert has_name(url) is named


def test_addresses_of_the_larger_family_are_the_replicas() -> None:
    assert one_family(["::1", "127.0.0.1"]) == ["::1"]
    assert one_family(["fd00::1", "10.0.0.1", "10.0.0.2"]) == ["10.0.0.1", "10.0.0.2"]
    assert one_family(["fe80::1%eth0", "fe80::2%eth0", "10.0.0.1"]) == [
        "fe80::1%eth0",
        "fe80::2%eth0",
    ]
    assert one_family([]) == []


def test_the_systems_resolver_is_asked() -> None:
    assert "127.0.0.1" in asyncio.run(system_addresses("127.0.0.1", 80))
    with pytest.raises(socket.gaierror):
        asyncio.run(system_addresses("no-such-host.invalid", 80))


def test_addresses_without_a_route_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without IPv6 may be given more IPv6 addresses than others."""
    versions = {socket.AF_INET: ["127.0.0.1"], socket.AF_INET6: ["2001:db8::1", "2001:db8::2"]}
    routes = {socket.AF_INET}

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, 80))
            for family, addresses in versions.items()
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(replica_addresses, "has_route", lambda family, _: family in routes)
    assert asyncio.run(system_addresses("cloud", 80)) == ["127.0.0.1"]
    routes.clear()  # no network at all
    assert len(asyncio.run(system_addresses("cloud", 80))) == 3


def test_route_to_an_address() -> None:
    assert replica_addresses.has_route(socket.AF_INET, ("127.0.0.1", 80))
    # a broadcast address cannot be connected to
    assert not replica_addresses.has_route(socket.AF_INET, ("255.255.255.255", 80))

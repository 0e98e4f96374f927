"""Choice of a replica, addresses of a name, and conditions of a tier with replicas."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from typing import Any

import pytest

from mobile_client.dispatch import replica_set
from mobile_client.dispatch.replica_set import DRAIN_S, RESOLVE_INTERVAL_S, ReplicaSet
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
from shared.replica_addresses import Resolve, has_name, one_family, system_addresses
from shared.settings import read_settings
from shared.tier_client import Exchange, TierClient
from tests.support.answers import EDGE_RULES
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


class Names:
    """Resolver whose addresses a test sets."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: list[str] = list(addresses)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        assert (host, port) == ("edge", 8702)
        self.asked += 1
        if not self.addresses:
            raise OSError("no address")
        return self.addresses


class Replicas:
    """A set of replicas of the edge, with the clients that it has made and closed."""

    def __init__(self, names: Resolve | None, *edge_urls: str) -> None:
        self.clock = Clock()
        self.stats = stats(1, self.clock)
        self.closed: list[str | None] = []
        urls = {EDGE: edge_urls or ("http://edge:8702",), CLOUD: ("http://127.0.0.1:8703",)}
        self.set = ReplicaSet(self.stats, urls, self._client, names, self.clock)

    def _client(self, tier: Tier, url: str, address: str | None) -> TierClient:
        client = TierClient(tier, url, EDGE_RULES, address=address)
        close = client.close

        async def closing() -> None:
            self.closed.append(address)
            await close()

        client.close = closing  # type: ignore[method-assign]
        return client

    async def later(self, seconds: float = RESOLVE_INTERVAL_S) -> list[str | None]:
        """Wake the set after ``seconds``, and return the addresses of the replicas."""
        self.clock.now += seconds
        self.set.wake()
        if self.set._task is not None:
            await self.set._task
        return [self.set.client(one).address for one in self.stats.replicas[EDGE]]


def test_replicas_follow_the_addresses_of_a_name() -> None:
    async def work() -> None:
        names = Names("10.0.0.1")
        replicas = Replicas(names)
        assert await replicas.later() == [None]  # one address: the connection resolves it
        names.addresses = ["10.0.0.1", "10.0.0.2"]
        assert await replicas.later(RESOLVE_INTERVAL_S - 1) == [None]
        assert await replicas.later() == ["10.0.0.1", "10.0.0.2"]
        kept = replicas.stats.replicas[EDGE][1]
        names.addresses = ["10.0.0.2", "10.0.0.3"]
        assert await replicas.later() == ["10.0.0.2", "10.0.0.3"]
        assert replicas.stats.replicas[EDGE][0] is kept
        names.addresses = []  # it cannot be resolved: the last addresses stay
        assert await replicas.later() == ["10.0.0.2", "10.0.0.3"]
        names.addresses = ["10.0.0.3"]
        assert await replicas.later() == ["10.0.0.3"]
        names.addresses = ["10.0.0.3", "10.0.0.2"]
        assert await replicas.later() == ["10.0.0.3", "10.0.0.2"]
        assert replicas.stats.replicas[EDGE][1] is kept  # with what is known of it
        await replicas.set.close()

    asyncio.run(work())


def test_name_with_one_address_moves_to_the_next_one() -> None:
    """Requests without a pause would keep the connection to the earlier address alive."""

    async def work() -> None:
        names = Names("10.0.0.1")
        replicas = Replicas(names)
        assert await replicas.later() == [None]
        assert await replicas.later() == [None]
        names.addresses = ["10.0.0.2"]
        assert await replicas.later() == ["10.0.0.2"]
        names.addresses = ["10.0.0.1"]
        assert await replicas.later() == ["10.0.0.1"]
        await replicas.set.close()
        both = Names("fd00::1", "10.0.0.1")  # of one server, whose addresses change their order
        replicas = Replicas(both)
        assert await replicas.later() == [None]
        both.addresses.reverse()
        assert await replicas.later() == [None]
        await replicas.set.close()

    asyncio.run(work())


def test_silent_name_server_does_not_delay_the_other_names() -> None:
    async def work() -> list[str | None]:
        answered = asyncio.Event()

        async def resolve(host: str, port: int) -> list[str]:
            if host == "first":
                await answered.wait()
                return ["10.0.0.1"]
            answered.set()
            return ["10.0.0.2", "10.0.0.3"]

        replicas = Replicas(resolve, "http://first:1", "http://second:2")
        async with asyncio.timeout(30):
            found = await replicas.later()
        await replicas.set.close()
        return found

    assert asyncio.run(work()) == [None, "10.0.0.2", "10.0.0.3"]


def test_vanished_replica_ends_its_exchanges_before_it_is_closed() -> None:
    async def work() -> None:
        names = Names("10.0.0.1", "10.0.0.2")
        replicas = Replicas(names)
        await replicas.later()
        gone = replicas.stats.replicas[EDGE][0]
        token = gone.begin()
        names.addresses = ["10.0.0.2", "10.0.0.3"]
        await replicas.later()
        assert gone not in replicas.stats.replicas[EDGE]
        assert all(replicas.stats.choose(EDGE) is not gone for _ in range(9))
        await replicas.later(DRAIN_S)
        assert replicas.closed == [None]  # that of the name itself
        assert replicas.set.client(gone).address == "10.0.0.1"
        gone.end(token)
        await replicas.later(DRAIN_S)
        assert replicas.closed == [None, "10.0.0.1"]
        await replicas.set.close()
        assert sorted(map(str, replicas.closed[2:])) == ["10.0.0.2", "10.0.0.3", "None"]

    asyncio.run(work())


def test_names_are_resolved_soon_after_a_failed_connection() -> None:
    async def work() -> None:
        names = Names("10.0.0.1", "10.0.0.2")
        replicas = Replicas(names)
        await replicas.later()
        await replicas.later(replica_set.RETRY_INTERVAL_S)
        assert names.asked == 1
        replicas.set.connection_failed()
        await replicas.later(0)
        assert names.asked == 2
        await replicas.set.close()

    asyncio.run(work())


def test_address_is_never_resolved() -> None:
    async def work() -> None:
        for url, names in (
            ("http://127.0.0.1:8702", Names("10.0.0.1", "10.0.0.2")),
            ("http://edge", None),
        ):
            replicas = Replicas(names, url)
            assert await replicas.later() == [None]
            assert replicas.set._task is None
            await replicas.set.close()
            assert names is None or names.asked == 0

    asyncio.run(work())


def test_name_of_many_addresses_has_a_limit_and_keeps_those_in_use() -> None:
    async def work() -> None:
        names = Names(*(f"10.0.{n // 250}.{n % 250}" for n in range(1_000)))
        replicas = Replicas(names)
        found = await replicas.later()
        assert len(found) == replica_set.MAX_REPLICAS
        random.Random(0).shuffle(names.addresses)  # as name servers do
        assert set(await replicas.later()) == set(found)
        gone = found[0]
        names.addresses.remove(str(gone))
        later = await replicas.later()
        assert (len(later), set(found) - set(later)) == (len(found), {gone})
        await replicas.set.close()

    asyncio.run(work())

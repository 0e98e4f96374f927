"""Replicas that follow the addresses of a name: added, drained, limited."""

from __future__ import annotations

import asyncio
import random

from mobile_client.dispatch import replica_set
from mobile_client.dispatch.replica_set import DRAIN_S, RESOLVE_INTERVAL_S, ReplicaSet
from mobile_client.resilience.tier_stats import TierStats
from shared.domain import Tier
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices
from shared.replica_addresses import Resolve
from shared.tier_client import TierClient
from tests.support.answers import EDGE_RULES
from tests.support.clock import Clock

EDGE, CLOUD = Tier.EDGE, Tier.CLOUD


def stats(clock: Clock) -> TierStats:
    return TierStats(LivePrices(CostModel.paper(6)), 0.0, clock, rng=random.Random(0))


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
        self.stats = stats(self.clock)
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

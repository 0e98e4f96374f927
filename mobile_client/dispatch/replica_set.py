"""The replicas of edge and cloud: a client for each, and the addresses at which they are."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

from mobile_client.resilience.replica_report import ReplicaReport
from mobile_client.resilience.replica_stats import ReplicaStats
from mobile_client.resilience.tier_stats import TierStats
from shared.domain import Tier
from shared.replica_addresses import Resolve, has_name, one_family
from shared.tier_client import TierClient

log = logging.getLogger(__name__)

RESOLVE_INTERVAL_S = 5.0
"""Time after which a name is resolved again, with the next request."""
RETRY_INTERVAL_S = 1.0
"""The same after a replica could not be connected to."""
RESOLVE_TIMEOUT_S = 10.0
DRAIN_S = 70.0
"""Time after which the connections of a vanished replica are closed: longer than any deadline."""
MAX_REPLICAS = 64
"""Most replicas of a tier; further addresses of a name are not used."""

MakeClient = Callable[[Tier, str, str | None], TierClient]
"""Returns the client of a tier at a URL, and at this IP address in place of the URL's name."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A replica's URL, and its IP address if the URL's name has several."""

    url: str
    address: str | None = None


class ReplicaSet:
    """Clients of all replicas, by their statistics in ``tier_stats``.

    A URL is a replica. A URL whose name has several addresses is a replica for each of them. Names
    are resolved in the background, while there are requests: new addresses get a replica, vanished
    ones get no more requests, also if a name has one address and that changes. While a name cannot
    be resolved, its last addresses are kept.

    Without ``resolve``, each URL is one replica. ``clock`` returns seconds. Used in one event loop.
    """

    def __init__(
        self,
        tier_stats: TierStats,
        urls: Mapping[Tier, Sequence[str]],
        make_client: MakeClient,
        resolve: Resolve | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tier_stats = tier_stats
        self._urls = urls
        self._make_client = make_client
        self._resolve = resolve
        self._clock = clock
        self._endpoints: dict[ReplicaStats, Endpoint] = {}
        self._clients: dict[ReplicaStats, TierClient] = {}
        self._drained_at: dict[ReplicaStats, float] = {}
        self._addresses: dict[str, list[str]] = {}
        self._single: dict[str, str] = {}
        self._due_at = -math.inf
        self._resolved_at = -math.inf
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._named = resolve is not None and any(
            has_name(url) for tier_urls in urls.values() for url in tier_urls
        )
        for tier, tier_urls in urls.items():
            present = list(tier_stats.replicas[tier])
            for number, url in enumerate(tier_urls):
                replica = present[number] if number < len(present) else None
                self._add(tier, Endpoint(url), replica)

    def client(self, replica: ReplicaStats) -> TierClient:
        """Return the client of a replica."""
        return self._clients[replica]

    def next_client(self, tier: Tier, other_than: TierClient | None = None) -> TierClient:
        """Return the client for an exchange that no breaker and no load decide about.

        It is not ``other_than``, if another replica may be asked.
        """
        replicas = self._tier_stats.replicas[tier]
        excluded = [one for one in replicas if self._clients[one] is other_than]
        return self._clients[self._tier_stats.choose(tier, excluded) or replicas[0]]

    def report(self) -> dict[str, list[ReplicaReport]]:
        """Return the state of each replica, by tier."""
        return {
            tier.value: [self._report(replica) for replica in replicas]
            for tier, replicas in self._tier_stats.replicas.items()
        }

    def _report(self, replica: ReplicaStats) -> ReplicaReport:
        client = self._clients[replica]
        return ReplicaReport(
            url=client.shown_url,
            replica=client.replica,
            ready=replica.breaker.readiness,
            breaker=replica.breaker.state,
            outstanding=replica.outstanding,
            delay_ms=replica.delay.ms,
        )

    def wake(self) -> None:
        """Resolve the names again if that is due. Call it with every request: it is cheap."""
        if not self._named or self._task is not None or self._closed:
            return
        if self._clock() >= self._due_at:
            self._due_at = self._clock() + RESOLVE_INTERVAL_S
            self._task = asyncio.get_running_loop().create_task(self._update(), name="resolve")

    def connection_failed(self) -> None:
        """Resolve the names soon: a replica may have another address now."""
        self._due_at = min(self._due_at, self._resolved_at + RETRY_INTERVAL_S)

    async def close(self) -> None:
        """End the resolution and close all connections."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        async with AsyncExitStack() as all_of_them:  # also if one of them raises
            for client in self._clients.values():
                all_of_them.push_async_callback(client.close)

    def _add(self, tier: Tier, endpoint: Endpoint, replica: ReplicaStats | None = None) -> None:
        replica = replica or self._tier_stats.add_replica(tier)
        self._endpoints[replica] = endpoint
        self._clients[replica] = self._make_client(tier, endpoint.url, endpoint.address)

    async def _update(self) -> None:
        try:
            for tier, urls in self._urls.items():
                # at once: a name server that is silent would delay the next name by its time-out
                found = await asyncio.gather(*map(self._endpoints_of, urls))
                self._replace(tier, self._limited(tier, [one for each in found for one in each]))
            self._resolved_at = self._clock()
            await self._close_drained()
        finally:
            self._task = None

    async def _endpoints_of(self, url: str) -> list[Endpoint]:
        if self._resolve is None or not has_name(url):
            return [Endpoint(url)]
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                found = one_family(await self._resolve(str(parts.hostname), port))
        except (OSError, TimeoutError, ValueError):
            found = []
        known = self._addresses.get(url, [])
        if not found:
            found = known
        elif len(found) > 1 or known or self._has_moved(url, found[0]):
            self._addresses[url] = found
            if set(found) != set(known):
                log.info("number of addresses of %s: %d", parts.hostname, len(found))
        # a name that never had several addresses is left to the connection, which also tries IPv6
        several = url in self._addresses
        return [Endpoint(url, address) for address in found] if several else [Endpoint(url)]

    def _has_moved(self, url: str, address: str) -> bool:
        """Return whether a name with one address has another one than before.

        Connections that are kept alive would go to the earlier one as long as there are requests.
        """
        earlier = self._single.setdefault(url, address)
        versions = {
            ipaddress.ip_address(one.partition("%")[0]).version for one in (earlier, address)
        }
        # a name with an IPv4 and an IPv6 address may seem to move between them
        return earlier != address and len(versions) == 1

    def _limited(self, tier: Tier, endpoints: list[Endpoint]) -> list[Endpoint]:
        """Return at most `MAX_REPLICAS`, first those in use: resolvers change the order."""
        in_use = {self._endpoints[one] for one in self._tier_stats.replicas[tier]}
        return sorted(endpoints, key=lambda one: one not in in_use)[:MAX_REPLICAS]

    def _replace(self, tier: Tier, endpoints: list[Endpoint]) -> None:
        """Add the replicas that are new, and drain those that have vanished."""
        present = {self._endpoints[one]: one for one in self._tier_stats.replicas[tier]}
        returned = {self._endpoints[one]: one for one in self._drained_at if one.tier is tier}
        for endpoint in endpoints:
            if endpoint in returned:
                replica = returned[endpoint]
                del self._drained_at[replica]
                self._tier_stats.replicas[tier].append(replica)
            elif endpoint not in present:
                self._add(tier, endpoint)
        for endpoint, replica in present.items():
            if endpoint not in endpoints:
                self._tier_stats.remove_replica(replica)
                self._drained_at[replica] = self._clock()

    async def _close_drained(self) -> None:
        now = self._clock()
        for replica, since in list(self._drained_at.items()):
            if now - since >= DRAIN_S and not replica.outstanding:
                del self._drained_at[replica], self._endpoints[replica]
                await self._clients.pop(replica).close()

"""Probes of replicas that rest: asks their ``/readyz`` in the background."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

from mobile_client.resilience.replica_stats import STALL_MS, ReplicaStats
from mobile_client.resilience.tier_stats import TierStats
from shared.domain import Tier
from shared.errors import DeadlineExceeded, TierError
from shared.tier_client import TierClient

INTERVAL_S = 0.5
"""Time between two probes of one replica, unless it has been down for long."""
DOWN_SHARE, MAX_INTERVAL_S = 0.1, 30.0
"""The mean time between two probes, as a share of the time for which the replica has been down, and
its upper limit in seconds. Each time is random, between half of the mean and one and a half. A
million mobiles must not ask a tier that is down, or starts again, twice a second each."""
IDLE_S = 60.0
"""Probes stop when there was no request for this long; the next request starts them again."""
FRESH_S = 10.0
"""Knowledge of a tier that is older than this is renewed by `ReadinessProber.renew`."""


class ReadinessProber:
    """Asks replicas whether they are ready, while that would change what is known about them.

    A replica is asked after a failure and while its breaker is open, so that requests go to it
    again as soon as it is ready, and after a timeout that was too short to count against it. A
    replica that works is not asked. A probe waits as long for its answer as a timeout must last to
    count. The longer a replica is down, the less often it is asked, at random times.

    Used in one event loop; ``client_of`` returns the client of a replica, ``clock`` seconds.
    """

    def __init__(
        self,
        tier_stats: TierStats,
        client_of: Callable[[ReplicaStats], TierClient],
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tier_stats = tier_stats
        self._random = random.Random()
        self._client_of = client_of
        self._interval_s = interval_s
        self._clock = clock
        self._requested_at = -math.inf
        self._probed_at: WeakKeyDictionary[ReplicaStats, float] = WeakKeyDictionary()
        self._asked: set[ReplicaStats] = set()
        self._tasks: dict[ReplicaStats, asyncio.Task[None]] = {}
        self._closed = False
        tier_stats.on_failure = self.wake

    @property
    def running(self) -> frozenset[Tier]:
        """Tiers of which a replica is being probed."""
        return frozenset(replica.tier for replica in self._tasks)

    def wake(self) -> None:
        """Start the probes that are needed. Call it with every request: it is cheap."""
        self._requested_at = self._clock()
        for replica in self._replicas():
            if replica not in self._tasks and self._is_needed(replica) and not self._closed:
                work = self._probe_while_needed(replica)
                name = f"probes of the {replica.tier}"
                self._tasks[replica] = asyncio.get_running_loop().create_task(work, name=name)

    def renew(self, allowed: frozenset[Tier] = frozenset(Tier)) -> None:
        """Probe those of the ``allowed`` tiers of which nothing is known for `FRESH_S`."""
        for replica in self._replicas():
            known_at = max(replica.breaker.heard_at, self._probed_at.get(replica, -math.inf))
            if replica.tier in allowed and self._clock() - known_at >= FRESH_S:
                self._asked.add(replica)
        self.wake()

    async def close(self) -> None:
        """End all probes."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _replicas(self) -> Iterator[ReplicaStats]:
        for replicas in self._tier_stats.replicas.values():
            yield from replicas

    def _is_needed(self, replica: ReplicaStats) -> bool:
        if self._clock() - self._requested_at >= IDLE_S:
            return False
        if replica not in self._tier_stats.replicas[replica.tier]:  # its address has vanished
            self._asked.discard(replica)
            return False
        return replica in self._asked or replica.breaker.needs_probe

    async def _probe_while_needed(self, replica: ReplicaStats) -> None:
        client = self._client_of(replica)
        wait_s = self._wait_s(replica)
        try:
            while True:
                # a failure has just been observed, so that the first probe waits as well
                waited_s, since = 0.0, replica.breaker.failing_since
                while replica not in self._asked and waited_s < wait_s:
                    await asyncio.sleep(self._interval_s)
                    waited_s += self._interval_s
                    if not self._is_needed(replica):
                        return
                    if replica.breaker.failing_since != since:
                        break  # it has worked in the meantime
                if not self._is_needed(replica):
                    return
                self._asked.discard(replica)
                self._probed_at[replica] = self._clock()
                timeout_s = replica.fair_timeout_ms / 1e3
                error = await client.probe(timeout_s)
                stalled = self._clock() - self._probed_at[replica] > timeout_s + STALL_MS / 1e3
                wait_s = self._wait_s(replica)
                if await self._only_readyz_hangs(replica, client, error, timeout_s):
                    replica.breaker.record_alive()
                elif error is None or not stalled:
                    # waits are whole intervals, rounded up; /readyz and /healthz may both time out
                    ended_s = wait_s + self._interval_s + 2 * timeout_s
                    replica.record_probe(error, ended_s)
                else:
                    self._asked.add(replica)
        finally:
            del self._tasks[replica]

    def _wait_s(self, replica: ReplicaStats) -> float:
        """Return the time from one probe of a replica to the next; a long one is random."""
        since = replica.breaker.failing_since
        down_s = 0.0 if since is None else self._clock() - since
        more_s = min(MAX_INTERVAL_S, DOWN_SHARE * down_s) - self._interval_s
        return self._interval_s + max(0.0, more_s) * self._random.uniform(0.5, 1.5)

    async def _only_readyz_hangs(
        self,
        replica: ReplicaStats,
        client: TierClient,
        error: TierError | None,
        timeout_s: float,
    ) -> bool:
        """Return True if the resting replica has not answered ``/readyz``, but does ``/healthz``.

        Its requests may work even so. One that hangs as a whole must not get any.
        """
        if replica.breaker.state == "closed":
            return False
        hangs = isinstance(error, DeadlineExceeded)
        return hangs and await client.is_alive(timeout_s)

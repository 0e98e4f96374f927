"""Probes of tiers that rest: asks their ``/readyz`` in the background."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping

from mobile_client.resilience.tier_stats import STALL_MS, TierStats
from shared.domain import Tier
from shared.errors import DeadlineExceeded, TierError
from shared.tier_client import TierClient

INTERVAL_S = 0.5
"""Time between two probes of one tier."""
IDLE_S = 60.0
"""Probes stop when there was no request for this long; the next request starts them again."""
FRESH_S = 10.0
"""Knowledge of a tier that is older than this is renewed by `ReadinessProber.renew`."""


class ReadinessProber:
    """Asks tiers whether they are ready, while that would change what is known about them.

    A tier is asked after a failure and while its breaker is open, so that requests go to it again
    as soon as it is ready, and after a timeout that was too short to count against it. A tier that
    works is not asked. A probe waits as long for its answer as a timeout must last to count.

    Used in one event loop; ``clock`` returns seconds.
    """

    def __init__(
        self,
        tier_stats: TierStats,
        tiers: Mapping[Tier, TierClient],
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tier_stats = tier_stats
        self._tiers = tiers
        self._interval_s = interval_s
        self._clock = clock
        self._requested_at = -math.inf
        self._probed_at: dict[Tier, float] = dict.fromkeys(tier_stats.breakers, -math.inf)
        self._asked: set[Tier] = set()
        self._tasks: dict[Tier, asyncio.Task[None]] = {}
        self._closed = False
        tier_stats.on_failure = self.wake

    @property
    def running(self) -> frozenset[Tier]:
        """Tiers that are being probed."""
        return frozenset(self._tasks)

    def wake(self) -> None:
        """Start the probes that are needed. Call it with every request: it is cheap."""
        self._requested_at = self._clock()
        for tier in self._tier_stats.breakers:
            if tier not in self._tasks and self._is_needed(tier) and not self._closed:
                work = self._probe_while_needed(tier)
                task = asyncio.get_running_loop().create_task(work, name=f"probes of the {tier}")
                self._tasks[tier] = task

    def renew(self, allowed: frozenset[Tier] = frozenset(Tier)) -> None:
        """Probe those of the ``allowed`` tiers of which nothing is known for `FRESH_S`."""
        for tier, breaker in self._tier_stats.breakers.items():
            known_at = max(breaker.heard_at, self._probed_at[tier])
            if tier in allowed and self._clock() - known_at >= FRESH_S:
                self._asked.add(tier)
        self.wake()

    async def close(self) -> None:
        """End all probes."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_needed(self, tier: Tier) -> bool:
        if self._clock() - self._requested_at >= IDLE_S:
            return False
        return tier in self._asked or self._tier_stats.breakers[tier].needs_probe

    async def _probe_while_needed(self, tier: Tier) -> None:
        try:
            while True:
                # a failure has just been observed, so that the first probe waits as well
                if tier not in self._asked:
                    await asyncio.sleep(self._interval_s)
                if not self._is_needed(tier):
                    return
                self._asked.discard(tier)
                self._probed_at[tier] = self._clock()
                timeout_s = self._tier_stats.fair_timeout_ms(tier) / 1e3
                error = await self._tiers[tier].probe(timeout_s)
                stalled = self._clock() - self._probed_at[tier] > timeout_s + STALL_MS / 1e3
                if await self._only_readyz_hangs(tier, error, timeout_s):
                    self._tier_stats.breakers[tier].record_alive()
                elif error is None or not stalled:
                    self._tier_stats.record_probe(tier, error)
                else:
                    self._asked.add(tier)
        finally:
            del self._tasks[tier]

    async def _only_readyz_hangs(
        self, tier: Tier, error: TierError | None, timeout_s: float
    ) -> bool:
        """Return True if the resting tier has not answered ``/readyz``, but answers ``/healthz``.

        Its requests may work even so. A tier that hangs as a whole must not get any.
        """
        if self._tier_stats.breakers[tier].state == "closed":
            return False
        hangs = isinstance(error, DeadlineExceeded)
        return hangs and await self._tiers[tier].is_alive(timeout_s)

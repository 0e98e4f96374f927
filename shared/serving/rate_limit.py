"""Rate limit with a token bucket for each client, for a bounded number of clients."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CLIENTS = 10_000


class RateLimit:
    """Token buckets that allow each client ``per_s`` requests a second and bursts of ``burst``.

    A request that counts as several is allowed while one token is left. It may overdraw the bucket,
    and the client then waits until the bucket has refilled. Buckets of the least recently seen
    clients beyond ``max_clients`` are dropped; those clients start with a full one.
    """

    def __init__(
        self,
        per_s: float,
        burst: float,
        now: Callable[[], float] = time.monotonic,
        max_clients: int = MAX_CLIENTS,
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._now = now
        self._max_clients = max_clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def acquire(self, client: str) -> float:
        """Count one request; return 0.0 if it is allowed, else the seconds until it would be."""
        tokens, now = self._refilled(client)
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) / self._per_s
        self._store(client, tokens - 1 if wait_s == 0 else tokens, now)
        return wait_s

    def charge(self, client: str, count: float) -> None:
        """Count ``count`` further requests, even if that overdraws the bucket; none if negative."""
        count = max(0.0, count)
        tokens, now = self._refilled(client)
        self._store(client, tokens - count, now)

    def _refilled(self, client: str) -> tuple[float, float]:
        """Return the client's tokens now, and the time."""
        now = self._now()
        tokens, since = self._buckets.get(client, (self._burst, now))
        return min(self._burst, tokens + (now - since) * self._per_s), now

    def _store(self, client: str, tokens: float, now: float) -> None:
        self._buckets[client] = (tokens, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > self._max_clients:
            self._buckets.popitem(last=False)

"""How often each client may ask: a token bucket for each, of a bounded number of clients."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CLIENTS = 10_000


class RateLimit:
    """``per_s`` requests a second for each client, and ``burst`` at once.

    A call that counts as many is let in while one is left, and paid in full: the client then waits
    until it is even again. The least recently seen clients beyond ``remembered`` are forgotten,
    and begin anew.
    """

    def __init__(
        self,
        per_s: float,
        burst: float,
        now: Callable[[], float] = time.monotonic,
        remembered: int = MAX_CLIENTS,
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._now = now
        self._remembered = remembered
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def take(self, client: str) -> float:
        """Count one request; 0.0 if it may be made, else the seconds to wait until it may."""
        left, now = self._now_left(client)
        waits_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._keep(client, left - 1 if waits_s == 0 else left, now)
        return waits_s

    def charge(self, client: str, more: float) -> None:
        """Count ``more`` for what was let in; what is owed has to be waited for."""
        left, now = self._now_left(client)
        self._keep(client, left - more, now)

    def _now_left(self, client: str) -> tuple[float, float]:
        now = self._now()
        left, since = self._left.get(client, (self._burst, now))
        return min(self._burst, left + (now - since) * self._per_s), now

    def _keep(self, client: str, left: float, now: float) -> None:
        self._left[client] = (left, now)
        self._left.move_to_end(client)
        if len(self._left) > self._remembered:
            self._left.popitem(last=False)

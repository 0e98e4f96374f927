"""Limit on concurrent calls of the gateway that adapts to how fast they are answered.

Additive increase, multiplicative decrease, as in TCP's congestion control (Chiu and Jain 1989):
each answer in good time raises the limit a little, a late one lowers it by a tenth. Answers count
as late by their deadline only, so that a long link does not lower the limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.errors import Overloaded

MIN_LIMIT = 8
"""The limit never falls below this number of calls."""
GOOD_TIME = 0.75
"""An answer that took at most this share of its deadline came in good time."""
DECREASE = 0.9
"""Factor by which a late answer lowers the limit."""
MIN_DECREASE_INTERVAL_S = 0.1
"""Shortest time between two decreases: calls admitted before the first prove nothing new."""
RETRY_AFTER_S = 1.0


class AIMDLimiter:
    """Counts the calls in flight and adapts their limit; for one event loop."""

    def __init__(self, max_limit: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._max = max_limit
        self._min = min(MIN_LIMIT, max_limit)
        self._limit = float(max_limit)
        self._clock = clock
        self._decreased_at = float("-inf")
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """Number of calls that may be in flight now."""
        return int(self._limit)

    def acquire(self) -> None:
        """Take a slot; raise `Overloaded` if none is free."""
        if self.in_flight >= self.limit:
            raise Overloaded(
                f"the mobile has {self.in_flight} requests in flight and answers no more in time; "
                f"try again in {RETRY_AFTER_S:.0f} s",
                limit=self.limit,
                retry_after_s=RETRY_AFTER_S,
            )
        self.in_flight += 1

    def discard(self) -> None:
        """Release a slot without adjusting the limit, as for wrong input or a client that left."""
        self.in_flight -= 1

    def release(self, took_s: float, deadline_s: float, late: bool) -> None:
        """Release a slot and adjust the limit; ``late`` if the call's deadline passed."""
        half_used = self.in_flight > self.limit / 2
        self.in_flight -= 1
        if late or took_s > GOOD_TIME * deadline_s:
            if half_used and self._clock() - self._decreased_at >= MIN_DECREASE_INTERVAL_S:
                self._limit = max(self._min, self._limit * DECREASE)
                self._decreased_at = self._clock()
        elif half_used:
            self._limit = min(self._max, self._limit + 1 / self._limit)

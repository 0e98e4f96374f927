"""Limit on concurrent calls of the gateway that adapts to their response times.

Additive increase, multiplicative decrease, as in TCP's congestion control (Chiu and Jain 1989):
each fast answer raises the limit a little, and each slow one lowers it by a tenth. Slow is relative
to the call's deadline, so that a long link does not lower the limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.errors import Overloaded

MIN_LIMIT = 8
"""The limit never falls below this number of calls."""
FAST_SHARE = 0.75
"""An answer is fast if it took at most this share of its deadline."""
DECREASE = 0.9
"""Factor by which a slow answer lowers the limit."""
MIN_DECREASE_INTERVAL_S = 0.1
"""Shortest time between two decreases, so that calls admitted before a decrease cause no other."""
RETRY_AFTER_S = 1.0


class AIMDLimiter:
    """Counts the calls in flight and adapts their limit. For use in one event loop."""

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
                f"the mobile has {self.in_flight} requests in flight and accepts no more; "
                f"try again in {RETRY_AFTER_S:.0f} s",
                limit=self.limit,
                retry_after_s=RETRY_AFTER_S,
            )
        self.in_flight += 1

    def discard(self) -> None:
        """Release a slot without adjusting the limit, e.g. after invalid input or a disconnect."""
        self.in_flight -= 1

    def release(self, took_s: float, deadline_s: float, late: bool) -> None:
        """Release a slot and adjust the limit; ``late`` if the call's deadline passed."""
        half_used = self.in_flight > self.limit / 2
        self.in_flight -= 1
        if late or took_s > FAST_SHARE * deadline_s:
            if half_used and self._clock() - self._decreased_at >= MIN_DECREASE_INTERVAL_S:
                self._limit = max(self._min, self._limit * DECREASE)
                self._decreased_at = self._clock()
        elif half_used:
            self._limit = min(self._max, self._limit + 1 / self._limit)

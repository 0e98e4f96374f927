"""Limit on concurrent calls of the gateway that adapts to their response times.

Additive increase, multiplicative decrease, as in TCP's congestion control (Chiu and Jain 1989):
each fast answer raises the limit a little, and each slow one lowers it by a tenth. Slow is relative
to the call's deadline. The time that a call waited for other tiers does not count, so that neither
a long link nor an impatient caller lowers the limit for the others. An overloaded event loop makes
that wait longer too, so an answer close to its deadline also counts if the loop was late.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.errors import Overloaded

MIN_LIMIT = 8
"""The limit never falls below this number of calls."""
FAST_SHARE = 0.75
"""An answer is fast if the mobile took at most this share of its deadline."""
LAG_SHARE = 0.25
"""The event loop is late if a callback waits this share of a deadline; a call needs several."""
MIN_REFERENCE_S = 0.1
"""A shorter deadline counts as this one: an idle mobile may miss it, too."""
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

    def release(
        self,
        took_s: float,
        deadline_s: float,
        late: bool,
        waited_s: float = 0.0,
        lag_s: float = 0.0,
    ) -> None:
        """Release a slot and adjust the limit; ``late`` if the call's deadline passed.

        ``waited_s`` is the part of ``took_s`` in which the call waited for other tiers, ``lag_s``
        the lateness of the event loop.
        """
        half_used = self.in_flight > self.limit / 2
        self.in_flight -= 1
        reference_s = max(deadline_s, MIN_REFERENCE_S)
        at_deadline = late or took_s > FAST_SHARE * deadline_s
        slow = took_s - waited_s > FAST_SHARE * reference_s or (
            at_deadline and lag_s > LAG_SHARE * reference_s
        )
        if slow:
            if half_used and self._clock() - self._decreased_at >= MIN_DECREASE_INTERVAL_S:
                self._limit = max(self._min, self._limit * DECREASE)
                self._decreased_at = self._clock()
        elif half_used:
            self._limit = min(self._max, self._limit + 1 / self._limit)

"""How many calls the gateway has under way: as many as it gets done in time, and no more.

The bound is found as TCP finds its window (AIMD, Chiu and Jain 1989): every answer in good time
raises it a little, an answer that is late lowers it by a tenth. What is slow because a link is long
is not late, and lowers nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.errors import Overloaded

LEAST = 8
"""Below so many nothing is refused."""
GOOD_TIME = 0.75
"""The share of its deadline that an answer in good time takes at most."""
LOWERS_TO = 0.9
PAUSE_S = 0.1
"""Between two lowerings: what was let in before the first says nothing new."""
RETRY_S = 1.0


class AIMDLimiter:
    """Counts who is under way; for one event loop."""

    def __init__(self, most: int, now: Callable[[], float] = time.perf_counter) -> None:
        self._most = most
        self._least = min(LEAST, most)
        self._bound = float(most)
        self._now = now
        self._lowered = float("-inf")
        self.under_way = 0

    @property
    def bound(self) -> int:
        """How many may be under way now."""
        return int(self._bound)

    def enter(self) -> None:
        """Let one in; raises `Overloaded` where too many are."""
        if self.under_way >= self.bound:
            raise Overloaded(
                f"the mobile has {self.under_way} requests under way, as many as it gets done in "
                f"time; try again in {RETRY_S:.0f} s",
                limit=self.bound,
                retry_after_s=RETRY_S,
            )
        self.under_way += 1

    def forget(self) -> None:
        """One has ended that says nothing of the pace: wrong input, a caller that hung up."""
        self.under_way -= 1

    def leave(self, took_s: float, deadline_s: float, late: bool) -> None:
        """One has ended after ``took_s``; ``late``: its deadline passed."""
        crowded = self.under_way > self.bound / 2
        self.under_way -= 1
        if late or took_s > GOOD_TIME * deadline_s:
            if crowded and self._now() - self._lowered >= PAUSE_S:
                self._bound = max(self._least, self._bound * LOWERS_TO)
                self._lowered = self._now()
        elif crowded:
            self._bound = min(self._most, self._bound + 1 / self._bound)

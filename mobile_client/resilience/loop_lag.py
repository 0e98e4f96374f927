"""Lateness of the event loop: how much later than due it runs a periodic callback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

INTERVAL_S = 0.05
DECAY = 0.5
"""Share of an earlier lateness that still counts after each interval."""


class LoopLag:
    """Measures the lateness of the running event loop while ``is_needed`` returns True."""

    def __init__(
        self, is_needed: Callable[[], bool], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._is_needed = is_needed
        self._clock = clock
        self._lag_s = 0.0
        self._due: float | None = None

    def watch(self) -> None:
        """Begin to measure, unless the loop is being measured."""
        if self._due is None:
            self._lag_s = 0.0
            self._schedule()

    @property
    def seconds(self) -> float:
        """The largest recent lateness, or that of the callback which is overdue now."""
        overdue_s = 0.0 if self._due is None else self._clock() - self._due
        return max(self._lag_s, overdue_s)

    def _schedule(self) -> None:
        self._due = self._clock() + INTERVAL_S
        asyncio.get_running_loop().call_later(INTERVAL_S, self._measure)

    def _measure(self) -> None:
        assert self._due is not None
        self._lag_s = max(self._lag_s * DECAY, self._clock() - self._due)
        self._due = None
        if self._is_needed():
            self._schedule()

"""Admission control: accepts or refuses a request by queue length, expected wait and deadline.

Running averages make a decision take constant time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.errors import Overloaded
from shared.rounding import rounded_up, shown_ms

QUEUE_MS = 150.0
"""Longest expected wait during a burst, on a fast tier."""
BURST_TEXTS = 80
"""Texts that may arrive at once on any tier. 64 clients that each wait for their answer are no
overload; some of them send again while their previous text still counts as in progress."""
MIN_TEXTS_PER_WORKER = 24
"""Texts that keep a worker busy in overload: three batches of eight, which are the running one, the
next one, and one more to choose from."""
DECAY = 0.98
"""Factor by which each finished step lowers the weight of earlier ones: about fifty steps count."""
OVERLOAD_SHARE = 1 / 6
"""Share of the longest wait that is allowed in overload. With less, workers run out of texts while
the server reads requests that it refuses."""
REFUSALS = ("queue_full", "deadline", "queue_time")
"""Reasons for a refusal: `max_queue`, the request's deadline, the longest expected wait."""
OVERLOAD_COOLDOWN_S = 1.0
"""Overload ends when no request has been refused for this long."""


class Admission:
    """Refuses requests that would wait too long. Not thread-safe: the caller holds a lock.

    A request is refused, with the time after which to try again, if

    - ``max_queue`` requests are waiting;
    - its expected wait is longer than its deadline;
    - its expected wait is longer than ``max_queue_ms``. For `OVERLOAD_COOLDOWN_S` after a refusal
      for the first or the third reason the tier is overloaded, and the limit is `OVERLOAD_SHARE` of
      that, so that accepted requests are served soon.

    With ``max_queue_ms`` None the limit is `QUEUE_MS`, or the time for `BURST_TEXTS` texts if that
    is longer. In overload it is `OVERLOAD_SHARE` of `QUEUE_MS`, or the time one worker needs for
    `MIN_TEXTS_PER_WORKER` texts if that is longer.

    The expected wait is the measured time of a text on one worker × texts before it / ``workers``.
    Until a text has been measured, only the first limit applies.
    """

    def __init__(
        self,
        max_queue: int,
        max_queue_ms: float | None,
        workers: int,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._max_queue = max_queue
        self._max_queue_ms = max_queue_ms
        self._workers = workers
        self._now = now
        self._busy_ms = 0.0
        self._texts = 0.0
        self._refused_at = float("-inf")
        self.in_progress = 0
        """Texts that the workers are running."""
        self.refusals = dict.fromkeys(REFUSALS, 0)
        """Number of refused requests by reason."""

    def observe(self, busy_ms: float, texts: int) -> None:
        """Record that a worker was busy for ``busy_ms`` and finished ``texts`` texts."""
        self._busy_ms = self._busy_ms * DECAY + busy_ms
        self._texts = self._texts * DECAY + texts

    def wait_ms(self, waiting: int) -> float:
        """Return the expected wait of a new request behind ``waiting`` others."""
        if not waiting or not self._texts:
            return 0.0
        return (waiting + self.in_progress) * self._text_ms

    def congested(self, waiting: int) -> bool:
        """Return whether a new request would be refused even without a deadline."""
        if waiting >= self._max_queue:
            return True
        return self.wait_ms(waiting) > self._limit_ms(self._now())

    def check(self, waiting: int, deadline_ms: float) -> None:
        """Raise `Overloaded` if a new request behind ``waiting`` others must be refused."""
        now = self._now()
        if not waiting:
            return
        wait_ms = self.wait_ms(waiting)
        limit_ms = self._limit_ms(now)
        if waiting >= self._max_queue:
            reason, limit = f"the queue is full ({self._max_queue} waiting)", float(self._max_queue)
            self._refused_at, kind = now, "queue_full"
        elif wait_ms > deadline_ms:
            reason = f"the wait of about {shown_ms(wait_ms)} is longer than the deadline"
            limit, kind = deadline_ms, "deadline"
        elif wait_ms > limit_ms:
            reason, limit = f"the queue is {wait_ms:.0f} ms long", limit_ms
            self._refused_at, kind = now, "queue_time"
        else:
            return
        self.refusals[kind] += 1
        retry_s = rounded_up(max(wait_ms / 1e3, 0.1), 1)
        raise Overloaded(
            f"{reason}; try again in {retry_s:.1f} s", limit=limit, retry_after_s=retry_s
        )

    def _limit_ms(self, now: float) -> float:
        """Return the longest expected wait at which a request is accepted."""
        share = OVERLOAD_SHARE if self._is_overload(now) else 1.0
        if self._max_queue_ms is not None:
            return self._max_queue_ms * share
        busy = MIN_TEXTS_PER_WORKER * self._workers
        texts = busy if share < 1 else max(BURST_TEXTS, busy)
        return max(QUEUE_MS * share, texts * self._text_ms)

    @property
    def overloaded(self) -> bool:
        """True if the queue's length caused a refusal within `OVERLOAD_COOLDOWN_S`."""
        return self._is_overload(self._now())

    def _is_overload(self, now: float) -> bool:
        return now - self._refused_at < OVERLOAD_COOLDOWN_S

    @property
    def _text_ms(self) -> float:
        """Mean time per text with all workers busy."""
        return self._busy_ms / self._texts / self._workers if self._texts else 0.0

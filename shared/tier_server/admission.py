"""Who is let into a tier's queue: by its length, its age, and the caller's deadline.

All of it is a few numbers, kept as work ends: a decision costs the same however many wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.errors import Overloaded

QUEUE_MS = 150.0
"""How long a burst may last."""
BURST_TEXTS = 80
"""So many may come at once however slow the tier is: 64 callers that each wait for their answer are
no overload, and some who ask again at once are still counted among those in hand."""
MIN_TEXTS_PER_WORKER = 24
"""So many texts keep a worker busy in an overload: one batch of eight that runs, one that follows
it and one to choose from."""
DECAY = 0.98
"""What is kept of the past with every step of work: about the last fifty count."""
OVERLOAD_SHARE = 1 / 6
"""The share of a burst that the queue may last in an overload: with less, workers starve while
refusals are read."""
OVERLOAD_COOLDOWN_S = 1.0
"""An overload is over when nobody has been refused for so long."""


class Admission:
    """Refuses at once what would only wait to die; not thread-safe, its owner holds a lock.

    Three bounds, each with 429 and when to come back:

    - ``max_queue`` requests may wait;
    - nobody is let in whose expected wait is longer than its own deadline;
    - nor longer than ``max_queue_ms``, which is for bursts; until nobody has been refused for that
      in `OVERLOAD_COOLDOWN_S`, it is an overload, and only `OVERLOAD_SHARE` of it may wait: who is
      let in is served soon. None: `QUEUE_MS`, but on a slow tier as long as `BURST_TEXTS` texts
      take, and in an overload as long as `MIN_TEXTS_PER_WORKER` texts a worker do.

    The expected wait is the measured time of a text on one worker × those before / workers; before
    anything was measured only the first bound holds.
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
        self.under_way = 0
        """Texts that workers have in hand."""

    def learn(self, busy_ms: float, texts: int) -> None:
        """One worker was busy for so long, and so many texts left it."""
        self._busy_ms = self._busy_ms * DECAY + busy_ms
        self._texts = self._texts * DECAY + texts

    def wait_ms(self, waiting: int) -> float:
        """How long one that comes now is expected to wait."""
        if not waiting or not self._texts:
            return 0.0
        return (waiting + self.under_way) * self._text_ms

    def congested(self, waiting: int) -> bool:
        """Whether one more would be refused for the queue's sake."""
        if waiting >= self._max_queue:
            return True
        return self.wait_ms(waiting) > self._bound_ms(self._now())

    def check(self, waiting: int, deadline_ms: float) -> None:
        """Raise `Overloaded` where one more, behind ``waiting`` others, should not be let in."""
        now = self._now()
        if not waiting:
            return
        wait_ms = self.wait_ms(waiting)
        bound_ms = self._bound_ms(now)
        if waiting >= self._max_queue:
            why, limit = f"the queue is full ({self._max_queue} waiting)", float(self._max_queue)
            self._refused_at = now
        elif wait_ms > deadline_ms:
            why = f"the wait of about {wait_ms:.0f} ms is longer than the deadline"
            limit = deadline_ms
        elif wait_ms > bound_ms:
            why, limit = f"the queue is {wait_ms:.0f} ms long", bound_ms
            self._refused_at = now
        else:
            return
        retry_s = max(wait_ms / 1e3, 0.1)
        raise Overloaded(
            f"{why}; try again in {retry_s:.1f} s", limit=limit, retry_after_s=round(retry_s, 1)
        )

    def _bound_ms(self, now: float) -> float:
        """The longest expected wait at which one more is let in."""
        share = OVERLOAD_SHARE if self._is_overload(now) else 1.0
        if self._max_queue_ms is not None:
            return self._max_queue_ms * share
        busy = MIN_TEXTS_PER_WORKER * self._workers
        texts = busy if share < 1 else max(BURST_TEXTS, busy)
        return max(QUEUE_MS * share, texts * self._text_ms)

    @property
    def overloaded(self) -> bool:
        """Whether somebody was refused for the queue's sake in the last `OVERLOAD_COOLDOWN_S`."""
        return self._is_overload(self._now())

    def _is_overload(self, now: float) -> bool:
        return now - self._refused_at < OVERLOAD_COOLDOWN_S

    @property
    def _text_ms(self) -> float:
        """How long a text takes all workers."""
        return self._busy_ms / self._texts / self._workers if self._texts else 0.0

"""Circuit breaker for one tier: after repeated failures it gets no requests for a while.

This is our own code for two reasons. The dispatcher must know before an attempt whether it is
allowed, because the attempt is recorded before anything is sent, together with the end of the
previous one; asyncio libraries raise inside the call instead. And a half-open breaker must allow
exactly one attempt.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

State = Literal["closed", "open", "half-open"]
FAILURES = 3
"""Number of failures in a row that open the breaker."""
OPEN_S, MAX_OPEN_S = 5.0, 60.0
"""Seconds that the breaker stays open at first, and at most; each failed trial doubles the time."""


@dataclass
class CircuitBreaker:
    """Closed, open, or half-open while one trial is in flight. Used from one thread."""

    clock: Callable[[], float] = time.monotonic
    failures: int = field(default=0, init=False)
    last_unreachable: bool = field(default=False, init=False)
    """True if no connection could be made at the last failure."""
    _open_until: float | None = field(default=None, init=False)
    _open_s: float = field(default=OPEN_S, init=False)
    _trial: object | None = field(default=None, init=False)
    _unreachable_until: float = field(default=-math.inf, init=False)

    @property
    def state(self) -> State:
        """The present state."""
        if self._open_until is None:
            return "closed"
        return "half-open" if self._trial or self.clock() >= self._open_until else "open"

    @property
    def left_s(self) -> float:
        """Seconds until the breaker is half-open; 0 if it is closed."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self.clock())

    def allows_attempt(self) -> bool:
        """Return True if an attempt may begin: closed, or half-open without another trial."""
        if self._open_until is None:
            return True
        return self._trial is None and self.clock() >= self._open_until

    @property
    def available(self) -> bool:
        """True if a policy should plan with the tier.

        False while no attempt is allowed, and for `OPEN_S` after the tier was unreachable. A
        request that needs the tier may still try it until the breaker opens.
        """
        return self.allows_attempt() and self.clock() >= self._unreachable_until

    def begin_attempt(self) -> object:
        """Return the token of a new attempt, which is the trial if the breaker is half-open."""
        token = object()
        if self.allows_attempt() and self._open_until is not None:
            self._trial = token
        return token

    def record_success(self) -> None:
        """Close the breaker, because the tier answered or refused as a working tier does."""
        self.failures, self._open_until, self._trial, self._open_s = 0, None, None, OPEN_S
        self._unreachable_until = -math.inf

    def record_failure(self, token: object = None, *, unreachable: bool = False) -> None:
        """Count a failure of the tier; ``unreachable`` if no connection could be made."""
        self.failures += 1
        self.last_unreachable = unreachable
        if unreachable:
            self._unreachable_until = self.clock() + OPEN_S
        if self._trial is not None and token is self._trial:
            self._trial = None
            self._open_s = min(MAX_OPEN_S, 2 * self._open_s)
            self._open_until = self.clock() + self._open_s
        elif self.failures >= FAILURES and self._open_until is None:
            self._open_until = self.clock() + self._open_s

    def discard(self, token: object) -> None:
        """Ignore the outcome of an attempt that was cancelled or had too little time."""
        if token is self._trial:
            self._trial = None

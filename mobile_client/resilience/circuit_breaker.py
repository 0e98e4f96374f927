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
Readiness = Literal["ready", "not ready", "unreachable", "failing", "unknown"]
"""Latest knowledge of a tier. A ``failing`` tier answers that it is ready, but fails requests."""
FAILURES = 3
"""Number of failures in a row that open the breaker."""
OPEN_S, MAX_OPEN_S = 5.0, 60.0
"""Seconds that the breaker stays open at first, and at most; each failed trial doubles the time."""
SUSPECT_AFTER_S = 2.0
"""A tier that was heard of less than this many seconds ago is not suspected."""


@dataclass(frozen=True, slots=True, eq=False)
class AttemptToken:
    """One attempt; ``closings`` counts how often the breaker had closed when it began."""

    closings: int


@dataclass
class CircuitBreaker:
    """Closed, open, or half-open while one trial is in flight. Used from one thread.

    Probes of the tier's ``/readyz`` close the breaker before its time (`record_ready`).
    """

    clock: Callable[[], float] = time.monotonic
    failures: int = field(default=0, init=False)
    last_unreachable: bool = field(default=False, init=False)
    """True if the last failure, or the last that said why the tier is down, was no connection."""
    reached: bool | None = field(default=None, init=False)
    """True if the last exchange or probe had a ready tier; None before the first one."""
    heard_at: float = field(default=-math.inf, init=False)
    """Time of the last exchange or probe that counted."""
    failing_since: float | None = field(default=None, init=False)
    """Time of the first of the failures that no success has ended; None after a success."""
    suspected: bool = field(default=False, init=False)
    """True after a timeout that was too short to count, until an answer or a probe."""
    _open_until: float | None = field(default=None, init=False)
    _open_s: float = field(default=OPEN_S, init=False)
    _trial: object | None = field(default=None, init=False)
    _unreachable_until: float = field(default=-math.inf, init=False)
    _down: bool = field(default=False, init=False)
    """True if the last failure is one that ``/readyz`` would have shown."""
    _closed_by_probe: bool = field(default=False, init=False)
    """True if a probe has closed the breaker after other failures, until a success."""
    _closings: int = field(default=0, init=False)

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

    @property
    def needs_probe(self) -> bool:
        """True if an answer of ``/readyz`` would change what is known about the tier."""
        if self.suspected or self._down or self.reached is False:
            return True
        return self._open_until is not None and not self._closed_by_probe

    @property
    def readiness(self) -> Readiness:
        """Latest knowledge of the tier."""
        if self.reached is None:
            return "unknown"
        if not self.reached:
            return "unreachable" if self.last_unreachable else "not ready"
        return "ready" if self._open_until is None else "failing"

    def begin_attempt(self) -> AttemptToken:
        """Return the token of a new attempt, which is the trial if the breaker is half-open."""
        token = AttemptToken(self._closings)
        if self.allows_attempt() and self._open_until is not None:
            self._trial = token
        return token

    def record_success(self) -> None:
        """Close the breaker, because the tier answered or refused as a working tier does."""
        self._heard(reached=True)
        self._closed_by_probe = False
        self._close()

    def record_ready(self) -> None:
        """Record that the tier says it is ready, and close the breaker if that is news.

        It is news after failures that ``/readyz`` would have shown. A tier that fails requests in
        other ways gets them back at once only once, until one of them has succeeded: otherwise the
        breaker of a tier that is ready but fails would hardly ever rest.
        """
        self._heard(reached=True)
        if self._down:
            self._close()
        elif self._open_until is not None and not self._closed_by_probe:
            self._closed_by_probe = True
            self._close()

    def record_failure(
        self, token: object = None, *, unreachable: bool = False, not_ready: bool = False
    ) -> None:
        """Count a failure of the tier, unless its attempt began before the breaker last closed.

        ``unreachable``: no connection could be made. ``not_ready``: the tier said that it is not
        ready. Another failure, such as a connection that broke, says neither: what was known
        before still holds.
        """
        if isinstance(token, AttemptToken) and token.closings < self._closings:
            return
        self._down = unreachable or not_ready
        still_unreachable = self.last_unreachable and self.reached is False and not not_ready
        self._heard(reached=False if self._down else self.reached)
        self.failures += 1
        if self.failing_since is None:
            self.failing_since = self.clock()
        self.last_unreachable = unreachable or still_unreachable
        if unreachable:
            self._unreachable_until = self.clock() + OPEN_S
        if self._trial is not None and token is self._trial:
            self._trial = None
            self._open_s = min(MAX_OPEN_S, 2 * self._open_s)
            self._open_until = self.clock() + self._open_s
        elif self.failures >= FAILURES and self._open_until is None:
            self._open_until = self.clock() + self._open_s

    def record_not_ready(self, *, unreachable: bool, next_probe_s: float = 0.0) -> None:
        """Record that a probe failed, and let no request try the tier while probes go on.

        ``next_probe_s`` is the time until the next probe has ended.
        """
        self.record_failure(unreachable=unreachable, not_ready=not unreachable)
        if self._open_until is not None:
            rest_s = max(OPEN_S, next_probe_s)
            self._open_until = max(self._open_until, self.clock() + rest_s)

    def record_alive(self) -> None:
        """Record that the tier runs, but does not say whether it is ready.

        The breaker keeps its time, after which a request tries the tier: requests may work even so.
        """
        self._heard(reached=True)

    def suspect(self) -> None:
        """Ask for a probe, because an attempt ended unanswered in a way that does not count."""
        if self.clock() - self.heard_at >= SUSPECT_AFTER_S:
            self.suspected = True

    def discard(self, token: object) -> None:
        """Ignore the outcome of an attempt that was cancelled or had too little time."""
        if token is self._trial:
            self._trial = None

    def _heard(self, *, reached: bool | None) -> None:
        self.reached, self.heard_at = reached, self.clock()
        if reached:
            self.suspected = False

    def _close(self) -> None:
        if self._open_until is not None:
            self._closings += 1
        self.failures, self._open_until, self._trial, self._open_s = 0, None, None, OPEN_S
        self._down, self._unreachable_until = False, -math.inf
        self.failing_since = None

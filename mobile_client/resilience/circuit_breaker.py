"""A circuit breaker for each tier: one that fails again and again is left alone for a while.

Own code, because a request must know beforehand whether it may ask (its attempt before is booked as
the last one or not), and because exactly one trial may be under way: the libraries that fit asyncio
raise inside the call, when the attempt is in the ledger already.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

State = Literal["closed", "open", "half-open"]
FAILURES = 3
"""So many failures in a row open it."""
REST_S, MOST_REST_S = 5.0, 60.0
"""How long it stays open: the first time, and at most; each failed trial doubles it."""


@dataclass
class CircuitBreaker:
    """Closed, open, or half-open while one trial is under way. Used from one thread."""

    clock: Callable[[], float] = time.monotonic
    failures: int = field(default=0, init=False)
    gone: bool = field(default=False, init=False)
    """Whether the last failure was that nobody was there."""
    _until: float | None = field(default=None, init=False)
    _rest_s: float = field(default=REST_S, init=False)
    _trial: object | None = field(default=None, init=False)
    _doubted_until: float = field(default=-math.inf, init=False)

    @property
    def state(self) -> State:
        """As it is now."""
        if self._until is None:
            return "closed"
        return "half-open" if self._trial or self.clock() >= self._until else "open"

    @property
    def left_s(self) -> float:
        """How much longer it stays open, in seconds."""
        return 0.0 if self._until is None else max(0.0, self._until - self.clock())

    def lets_pass(self) -> bool:
        """Whether an attempt may begin now; half-open, only where no other trial is under way."""
        if self._until is None:
            return True
        return self._trial is None and self.clock() >= self._until

    @property
    def plannable(self) -> bool:
        """Whether a policy should reckon with the tier; not for `REST_S` after nobody was there.

        A request that goes there anyway still asks, until the breaker opens.
        """
        return self.lets_pass() and self.clock() >= self._doubted_until

    def begin(self) -> object:
        """An attempt begins: when half-open and alone, it is the trial. Its end needs the token."""
        token = object()
        if self.lets_pass() and self._until is not None:
            self._trial = token
        return token

    def succeeded(self) -> None:
        """The tier is there: it answered, or refused as one does that works."""
        self.failures, self._until, self._trial, self._rest_s = 0, None, None, REST_S
        self._doubted_until = -math.inf

    def failed(self, token: object = None, *, nobody_there: bool = False) -> None:
        """The attempt brought nothing, and another may fare no better."""
        self.failures += 1
        self.gone = nobody_there
        if nobody_there:
            self._doubted_until = self.clock() + REST_S
        if self._trial is not None and token is self._trial:
            self._trial = None
            self._rest_s = min(MOST_REST_S, 2 * self._rest_s)
            self._until = self.clock() + self._rest_s
        elif self.failures >= FAILURES and self._until is None:
            self._until = self.clock() + self._rest_s

    def given_up(self, token: object) -> None:
        """The attempt was broken off from here, or had too little time: it says nothing."""
        if token is self._trial:
            self._trial = None

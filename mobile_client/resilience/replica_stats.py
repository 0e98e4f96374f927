"""Measured delay, availability and load of one replica of a tier."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from mobile_client.resilience.circuit_breaker import AttemptToken, CircuitBreaker
from shared.domain import Delivery, Tier
from shared.errors import (
    BundleMismatch,
    DeadlineExceeded,
    NotAdmitted,
    NotReady,
    TierError,
    TierFailed,
    TierUnreachable,
)
from shared.tier_client import Exchange

SMOOTHING = 0.125
"""Weight of the newest delay in the mean, as TCP's for round trips (RFC 6298)."""
FAIR_TIMEOUT_MS = 2_000.0
"""A timeout after less time than this does not count as a failure of the tier. Callers choose the
deadlines, and a short one must not exclude the tier for others. The time suffices for connecting
and one exchange on the slowest link profile, and is shorter than the first attempt's share of the
default deadline."""
FAIR_MULTIPLE = 4.0
"""A timeout counts only after at least this multiple of the replica's mean delay."""
STALL_MS = 100.0
"""A timeout that is noticed later than this was missed by this process, which did not run."""
DELAY_EXPIRES_S = 60.0
"""A delay that has not been measured for this long is discarded, so that a tier that was too slow
is tried again: its link may have improved."""
MIN_ROUND_TRIPS, MAX_ROUND_TRIPS = 20, 200
"""Smallest number of answered and largest number of all recent round trips for a p95."""
BUSY_S, MAX_BUSY_S = 0.1, 1.0
"""Time for which a replica that has refused or failed a request is asked after the others: by
default, and at most if it is overloaded and says when to try again."""
UNSUITED_S = 10.0
"""The same after it has refused this mobile's bundle or credentials. Such a replica is idle, so
that it would be asked first."""


class RoundTrip(NamedTuple):
    """Milliseconds until an answer, or until the caller stopped waiting for one."""

    ms: float
    answered: bool


class MeanDelay:
    """Smoothed delay in milliseconds; None while none was measured for `DELAY_EXPIRES_S`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ms: float | None = None
        self._measured_at = 0.0

    @property
    def ms(self) -> float | None:
        """The mean."""
        if self._ms is not None and self._clock() - self._measured_at >= DELAY_EXPIRES_S:
            self._ms = None
        return self._ms

    def add(self, delay_ms: float) -> None:
        """Enter a measurement."""
        mean_ms = self.ms
        self._ms = delay_ms if mean_ms is None else mean_ms + SMOOTHING * (delay_ms - mean_ms)
        self._measured_at = self._clock()


class ReplicaStats:
    """Delays, failures and open requests of one replica of ``tier``. Used from one thread.

    ``on_delay`` is called after a measured delay, and ``on_failure`` after an exchange whose
    outcome is a reason to probe the replica.
    """

    def __init__(
        self,
        tier: Tier,
        clock: Callable[[], float] = time.monotonic,
        on_delay: Callable[[], None] = lambda: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.tier = tier
        self.breaker = CircuitBreaker(clock)
        self.delay = MeanDelay(clock)
        self.round_trips: deque[RoundTrip] = deque(maxlen=MAX_ROUND_TRIPS)
        self.chosen_at = 0.0
        """Number of the choice among replicas at which this one was last chosen."""
        self._clock = clock
        self._on_delay, self._on_failure = on_delay, on_failure
        self._running: set[AttemptToken] = set()
        self._busy_until = float("-inf")

    @property
    def outstanding(self) -> int:
        """Number of exchanges that have begun and not ended."""
        return len(self._running)

    @property
    def busy(self) -> bool:
        """True for a time after a refusal that another replica may not give: it is asked last."""
        return self._clock() < self._busy_until

    def begin(self) -> AttemptToken:
        """Count an exchange as outstanding, and return its token."""
        token = self.breaker.begin_attempt()
        self._running.add(token)
        return token

    def end(self, token: AttemptToken) -> None:
        """Stop counting the exchange; without a recorded outcome it is ignored. Idempotent."""
        self._running.discard(token)
        self.breaker.discard(token)

    def record_delay(self, delay_ms: float) -> None:
        """Enter the time from a request to its answer in the mean delay."""
        self.delay.add(delay_ms)
        self._on_delay()

    @property
    def fair_timeout_ms(self) -> float:
        """Time after which a missing answer is a failure of the replica."""
        return max(FAIR_TIMEOUT_MS, FAIR_MULTIPLE * (self.delay.ms or 0.0))

    def record_exchange(
        self, exchange: Exchange, token: object = None, timeout_ms: float | None = None
    ) -> None:
        """Record the delay or the failure of an exchange; ``token`` comes from `begin`.

        Only answers enter the mean delay. A timeout counts against the replica, and as a round trip
        of unknown length in the p95, only after a time that was fair to it, and only if this
        process noticed it in time: after a pause of this process the answer may be there unread.
        ``timeout_ms`` is the time that the exchange was given, with the wait for a connection of
        this process, which is not the replica's time.
        """
        given_ms = exchange.round_trip_ms if timeout_ms is None else timeout_ms - exchange.waited_ms
        stalled = exchange.round_trip_ms > given_ms + STALL_MS
        if exchange.answer is not None and not stalled:
            self.record_delay(exchange.round_trip_ms)
            self.round_trips.append(RoundTrip(exchange.round_trip_ms, answered=True))
        elif isinstance(exchange.error, BundleMismatch | NotAdmitted):
            self._busy_until = self._clock() + UNSUITED_S
        elif isinstance(exchange.error, TierError) and not _without_end(exchange):
            # it ended early, so that the replica has few outstanding exchanges
            wait_s = min(MAX_BUSY_S, exchange.error.retry_after_s or BUSY_S)
            self._busy_until = self._clock() + wait_s
        fair = not stalled and given_ms >= self.fair_timeout_ms
        self._update_breaker(exchange, token, fair)
        if self.breaker.needs_probe:
            self._on_failure()

    def record_cancelled(self, waited_ms: float) -> None:
        """Record that a hedged attempt had no answer after ``waited_ms``, when the other one won.

        Without it the p95 would fall with each hedge, because the slow answers would be missing. It
        is no failure, but a reason to probe a replica that nothing was heard of for a while.
        """
        self._record_unanswered(waited_ms)
        self.breaker.suspect()
        if self.breaker.needs_probe:
            self._on_failure()

    def _record_unanswered(self, waited_ms: float) -> None:
        # more of them would not change the p95, but displace the answered ones
        if 2 * sum(not one.answered for one in self.round_trips) <= len(self.round_trips):
            self.round_trips.append(RoundTrip(waited_ms, answered=False))

    def record_probe(self, error: TierError | None, next_probe_s: float = 0.0) -> None:
        """Record the result of a probe; ``error`` is None if the replica is ready.

        ``next_probe_s`` is the time until the next probe has ended, after a failure.
        """
        if error is None:
            self.breaker.record_ready()
        else:
            self.breaker.record_not_ready(
                unreachable=not isinstance(error, NotReady), next_probe_s=next_probe_s
            )

    def _update_breaker(self, exchange: Exchange, token: object, fair: bool) -> None:
        breaker, error = self.breaker, exchange.error
        if exchange.reused_connection_broke:  # the attempt on a fresh connection will tell
            breaker.discard(token)
            return
        late, arrived = isinstance(error, DeadlineExceeded), exchange.delivery is Delivery.ARRIVED
        if late and not fair:
            # a tier that reports the deadline itself works
            if not arrived:
                breaker.suspect()
            breaker.discard(token)
            return
        if late and not arrived:
            self._record_unanswered(exchange.round_trip_ms)
        unreachable = exchange.delivery is Delivery.NOT_SENT
        not_ready = isinstance(error, NotReady)
        if unreachable or late or not_ready or isinstance(error, TierUnreachable | TierFailed):
            breaker.record_failure(token, unreachable=unreachable, not_ready=not_ready)
        else:
            breaker.record_success()

    def p95_ms(self) -> float | None:
        """Return the p95 of the last round trips; None if too few were answered.

        It is the product-limit estimate (Kaplan and Meier 1958), so that a round trip whose end was
        not awaited counts as longer than the wait, not as a round trip of that length. If more
        than 5 % have no known end, it is the longest answered one.
        """
        round_trips = sorted(self.round_trips)
        answered_ms = [one.ms for one in round_trips if one.answered]
        if len(answered_ms) < MIN_ROUND_TRIPS:
            return None
        share_left = 1.0
        for number, one in enumerate(round_trips):
            if one.answered:
                share_left *= 1 - 1 / (len(round_trips) - number)
                if share_left <= 0.05 + 1e-9:
                    return one.ms
        return answered_ms[-1]


def _without_end(exchange: Exchange) -> bool:
    """Return whether the time passed without a response, or an idle connection broke."""
    late = isinstance(exchange.error, DeadlineExceeded)
    return exchange.reused_connection_broke or (late and exchange.delivery is not Delivery.ARRIVED)

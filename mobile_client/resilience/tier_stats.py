"""Measured delay and availability of each tier, for routing decisions."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mobile_client.resilience.circuit_breaker import CircuitBreaker
from shared.domain import Delivery, Tier
from shared.errors import DeadlineExceeded, NotReady, TierError, TierFailed, TierUnreachable
from shared.policies.conditions import Conditions
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices
from shared.tier_client import Exchange

SMOOTHING = 0.125
"""Weight of the newest delay in the mean, as TCP's for round trips (RFC 6298)."""
FAIR_TIMEOUT_MS = 2_000.0
"""A timeout after less time than this does not count as a failure of the tier. Callers choose the
deadlines, and a short one must not exclude the tier for others. The time suffices for connecting
and one exchange on the slowest link profile, and is shorter than the first attempt's share of the
default deadline."""
FAIR_MULTIPLE = 4.0
"""A timeout counts only after at least this multiple of the tier's mean delay."""
STALL_MS = 100.0
"""A timeout that is noticed later than this was missed by this process, which did not run."""
DELAY_EXPIRES_S = 60.0
"""A delay that has not been measured for this long is discarded, so that a tier that was too slow
is tried again: its link may have improved."""
MIN_ROUND_TRIPS, MAX_ROUND_TRIPS = 20, 200
"""Smallest number of answered and largest number of all recent round trips for a p95."""


class RoundTrip(NamedTuple):
    """Milliseconds until an answer, or until the caller stopped waiting for one."""

    ms: float
    answered: bool


class TierStats:
    """Maintains `conditions`: prices from ``live_prices``, delays and failures from exchanges.

    ``latency_price_lambda`` is the price of waiting one millisecond, in λ. A price in the price
    book replaces it, unless it is ``fixed``. ``certified`` is the cost model of a certificate,
    which replaces the current prices in decisions. Used from one thread.
    """

    def __init__(
        self,
        live_prices: LivePrices,
        latency_price_lambda: float,
        clock: Callable[[], float] = time.monotonic,
        certified: CostModel | None = None,
        fixed: bool = False,
    ) -> None:
        self._certified = certified
        self._live_prices = live_prices
        self._latency_price_lambda, self._fixed = latency_price_lambda, fixed
        self.conditions = Conditions(self._cost_model(), latency_price_lambda=self._waiting_price())
        self._clock = clock
        self._measured_at: dict[Tier, float] = {}
        self.breakers = {tier: CircuitBreaker(clock) for tier in (Tier.EDGE, Tier.CLOUD)}
        self.on_failure: Callable[[], None] = lambda: None
        """Called after an exchange whose outcome is a reason to probe the tier."""
        self._round_trips: dict[Tier, deque[RoundTrip]] = {
            tier: deque(maxlen=MAX_ROUND_TRIPS) for tier in self.breakers
        }

    def refresh(self, left_ms: float) -> None:
        """Update the conditions for a request that has ``left_ms`` until its deadline."""
        self._live_prices.refresh()
        self.conditions.cost_model = self._cost_model()
        self.conditions.latency_price_lambda = self._waiting_price()
        self.conditions.left_ms = left_ms
        self._forget_old_delays()
        self.conditions.up = {
            tier: False for tier, breaker in self.breakers.items() if not breaker.available
        }

    def _cost_model(self) -> CostModel:
        return self._certified or self._live_prices.cost_model

    def _waiting_price(self) -> float:
        in_book = self._live_prices.latency_price_lambda
        return self._latency_price_lambda if self._fixed or in_book is None else in_book

    @contextmanager
    def assume_all_available(self) -> Iterator[None]:
        """Treat every server as available, to find the tier that a policy would prefer."""
        up, self.conditions.up = self.conditions.up, {}
        try:
            yield
        finally:
            self.conditions.up = up

    def record_delay(self, tier: Tier, delay_ms: float) -> None:
        """Update the mean delay of ``tier``, the mobile included, from request to answer."""
        mean_ms = self.conditions.delay_ms.get(tier)
        if mean_ms is not None:
            delay_ms = mean_ms + SMOOTHING * (delay_ms - mean_ms)
        self.conditions.delay_ms[tier] = delay_ms
        self._measured_at[tier] = self._clock()

    def _forget_old_delays(self) -> None:
        now = self._clock()
        for tier, measured_at in list(self._measured_at.items()):
            if now - measured_at >= DELAY_EXPIRES_S:
                del self._measured_at[tier], self.conditions.delay_ms[tier]

    def fair_timeout_ms(self, tier: Tier) -> float:
        """Return the time after which a missing answer is a failure of the tier."""
        return max(FAIR_TIMEOUT_MS, FAIR_MULTIPLE * self.conditions.delay_ms.get(tier, 0.0))

    def record_exchange(
        self,
        tier: Tier,
        exchange: Exchange,
        token: object = None,
        timeout_ms: float | None = None,
    ) -> None:
        """Record the delay or the failure of an exchange; ``token`` comes from its breaker.

        Only answers enter the mean delay. A timeout counts against the tier, and as a round trip
        of unknown length in the p95, only after a time that was fair to the tier, and only if this
        process noticed it in time: after a pause of this process the answer may be there unread.
        ``timeout_ms`` is the time that the exchange was given, with the wait for a connection of
        this process, which is not the tier's time.
        """
        given_ms = exchange.round_trip_ms if timeout_ms is None else timeout_ms - exchange.waited_ms
        stalled = exchange.round_trip_ms > given_ms + STALL_MS
        if exchange.answer is not None and not stalled:
            self.record_delay(tier, exchange.round_trip_ms)
            self._round_trips[tier].append(RoundTrip(exchange.round_trip_ms, answered=True))
        fair = not stalled and given_ms >= self.fair_timeout_ms(tier)
        self._update_breaker(tier, exchange, token, fair)
        if self.breakers[tier].needs_probe:
            self.on_failure()

    def record_cancelled(self, tier: Tier, waited_ms: float) -> None:
        """Record that a hedged attempt had no answer after ``waited_ms``, when the other one won.

        Without it the p95 would fall with each hedge, because the slow answers would be missing. It
        is no failure, but a reason to probe a tier that nothing was heard of for a while.
        """
        self._record_unanswered(tier, waited_ms)
        self.breakers[tier].suspect()
        if self.breakers[tier].needs_probe:
            self.on_failure()

    def _record_unanswered(self, tier: Tier, waited_ms: float) -> None:
        round_trips = self._round_trips[tier]
        # more of them would not change the p95, but displace the answered ones
        if 2 * sum(not one.answered for one in round_trips) <= len(round_trips):
            round_trips.append(RoundTrip(waited_ms, answered=False))

    def record_probe(self, tier: Tier, error: TierError | None) -> None:
        """Record the result of a probe; ``error`` is None if the tier is ready."""
        breaker = self.breakers[tier]
        if error is None:
            breaker.record_ready()
        else:
            breaker.record_not_ready(unreachable=not isinstance(error, NotReady))

    def _update_breaker(self, tier: Tier, exchange: Exchange, token: object, fair: bool) -> None:
        breaker, error = self.breakers[tier], exchange.error
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
            self._record_unanswered(tier, exchange.round_trip_ms)
        unreachable = exchange.delivery is Delivery.NOT_SENT
        not_ready = isinstance(error, NotReady)
        if unreachable or late or not_ready or isinstance(error, TierUnreachable | TierFailed):
            breaker.record_failure(token, unreachable=unreachable, not_ready=not_ready)
        else:
            breaker.record_success()

    def p95_ms(self, tier: Tier) -> float | None:
        """Return the p95 of the tier's last round trips; None if too few were answered.

        It is the product-limit estimate (Kaplan and Meier 1958), so that a round trip whose end was
        not awaited counts as longer than the wait, not as a round trip of that length. If more
        than 5 % have no known end, it is the longest answered one.
        """
        round_trips = sorted(self._round_trips[tier])
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

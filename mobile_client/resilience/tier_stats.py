"""Measured delay and availability of each tier, for routing decisions."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from mobile_client.resilience.circuit_breaker import CircuitBreaker
from shared.domain import Delivery, Tier
from shared.errors import DeadlineExceeded, NotReady, TierFailed, TierUnreachable
from shared.policies.conditions import Conditions
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices
from shared.tier_client import Exchange

SMOOTHING = 0.125
"""Weight of the newest delay in the mean, as TCP's for round trips (RFC 6298)."""
FAIR_TIMEOUT_MS = 100.0
"""A timeout after less time than this does not count as a failure of the tier. Callers choose the
deadlines, and a short one must not exclude the tier for others."""
DELAY_EXPIRES_S = 60.0
"""A delay that has not been measured for this long is discarded, so that a tier that was too slow
is tried again: its link may have improved."""
MIN_ROUND_TRIPS, MAX_ROUND_TRIPS = 20, 200
"""Smallest and largest number of recent round trips that a p95 is computed from."""


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
        self._round_trips: dict[Tier, deque[float]] = {
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

    def record_exchange(self, tier: Tier, exchange: Exchange, token: object = None) -> None:
        """Record the delay or the failure of an exchange; ``token`` comes from its breaker."""
        self._update_breaker(self.breakers[tier], exchange, token)
        if exchange.answer is not None:
            self.record_delay(tier, exchange.round_trip_ms)
            self._round_trips[tier].append(exchange.round_trip_ms)
        elif isinstance(exchange.error, DeadlineExceeded):
            # the delay is at least that long: a tier that became slow must not look fast
            mean_ms = self.conditions.delay_ms.get(tier, 0.0)
            self.record_delay(tier, max(exchange.round_trip_ms, mean_ms))

    def _update_breaker(self, breaker: CircuitBreaker, exchange: Exchange, token: object) -> None:
        if exchange.reused_connection_broke:  # the attempt on a fresh connection will tell
            breaker.discard(token)
            return
        late = isinstance(exchange.error, DeadlineExceeded)
        if late and exchange.round_trip_ms < FAIR_TIMEOUT_MS:
            breaker.discard(token)
            return
        unreachable = exchange.delivery is Delivery.NOT_SENT
        failed = isinstance(exchange.error, TierUnreachable | NotReady | TierFailed)
        if unreachable or late or failed:
            breaker.record_failure(token, unreachable=unreachable)
        else:
            breaker.record_success()

    def p95_ms(self, tier: Tier) -> float | None:
        """Return the p95 of the tier's last answered round trips; None if there are too few."""
        times_ms = self._round_trips[tier]
        return float(np.percentile(times_ms, 95)) if len(times_ms) >= MIN_ROUND_TRIPS else None

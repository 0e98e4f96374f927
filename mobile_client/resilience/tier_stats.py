"""What the mobile has measured of each tier lately, for decisions: delay, and whether it is up."""

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
"""Weight of the newest delay in the mean, as TCP's for its round trips (RFC 6298)."""
FAIR_MS = 100.0
"""A tier that was given less time than this and was late has not failed: callers choose deadlines,
and a short one must not keep the tier from others."""
FORGET_S = 60.0
"""A delay that was not measured again for so long is forgotten: a tier that waiting made too dear
is then asked once more, because its link may be better by now."""
SEEN, KEPT = 20, 200
"""A p95 needs so many round trips, and forgets those before so many."""


class TierStats:
    """Keeps `conditions` true: prices from the live_prices, delays and failures from exchanges.

    ``latency_price_lambda`` is the price of waiting one millisecond, in λ; a live_prices that names
    one comes before it, unless it is ``fixed``. ``certified`` prices are decided at whatever the
    live_prices's are now: a promise speaks of them only. Used from one thread.
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
        self._ms_lambda, self._fixed = latency_price_lambda, fixed
        self.conditions = Conditions(self._cost_model(), latency_price_lambda=self._waiting_price())
        self._clock = clock
        self._measured_at: dict[Tier, float] = {}
        self.breakers = {tier: CircuitBreaker(clock) for tier in (Tier.EDGE, Tier.CLOUD)}
        self._round_trips: dict[Tier, deque[float]] = {
            tier: deque(maxlen=KEPT) for tier in self.breakers
        }

    def now(self, left_ms: float) -> None:
        """Bring the conditions up to date for a request that may take ``left_ms`` more."""
        self._live_prices.refresh()
        self.conditions.cost_model = self._cost_model()
        self.conditions.latency_price_lambda = self._waiting_price()
        self.conditions.left_ms = left_ms
        self._forget_old_delays()
        self.conditions.up = {
            tier: False for tier, breaker in self.breakers.items() if not breaker.plannable
        }

    def _cost_model(self) -> CostModel:
        return self._certified or self._live_prices.cost_model

    def _waiting_price(self) -> float:
        named = self._live_prices.latency_price_lambda
        return self._ms_lambda if self._fixed or named is None else named

    @contextmanager
    def all_up(self) -> Iterator[None]:
        """The conditions as if no server had failed: what a policy would have wanted."""
        up, self.conditions.up = self.conditions.up, {}
        try:
            yield
        finally:
            self.conditions.up = up

    def answered(self, tier: Tier, took_ms: float) -> None:
        """A tier answered after ``took_ms``, everything included; the mobile's own layers too."""
        known = self.conditions.delay_ms.get(tier)
        mean = took_ms if known is None else known + SMOOTHING * (took_ms - known)
        self.conditions.delay_ms[tier] = mean
        self._measured_at[tier] = self._clock()

    def _forget_old_delays(self) -> None:
        now = self._clock()
        for tier, measured_at in list(self._measured_at.items()):
            if now - measured_at >= FORGET_S:
                del self._measured_at[tier], self.conditions.delay_ms[tier]

    def exchanged(self, tier: Tier, exchange: Exchange, token: object = None) -> None:
        """Learn from an exchange: its delay, or that nobody was there; ``token``: its breaker's."""
        self._judge(self.breakers[tier], exchange, token)
        if exchange.answer is not None:
            self.answered(tier, exchange.round_trip_ms)
            self._round_trips[tier].append(exchange.round_trip_ms)
        elif isinstance(exchange.error, DeadlineExceeded):
            # at least that long: a slow tier must not keep the delay of its better days
            self.answered(tier, max(exchange.round_trip_ms, self.conditions.delay_ms.get(tier, 0)))

    def _judge(self, breaker: CircuitBreaker, exchange: Exchange, token: object) -> None:
        late = isinstance(exchange.error, DeadlineExceeded)
        if late and exchange.round_trip_ms < FAIR_MS:
            breaker.given_up(token)
            return
        gone = exchange.delivery is Delivery.NOT_SENT
        if gone or late or isinstance(exchange.error, TierUnreachable | NotReady | TierFailed):
            breaker.failed(token, nobody_there=gone)
        else:
            breaker.succeeded()

    def p95_ms(self, tier: Tier) -> float | None:
        """The p95 of the tier's last round trips that brought an answer; None: too few."""
        seen = self._round_trips[tier]
        return float(np.percentile(seen, 95)) if len(seen) >= SEEN else None

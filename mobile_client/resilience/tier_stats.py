"""Measured delay and availability of each tier and its replicas, for routing decisions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import get_args

from mobile_client.resilience.circuit_breaker import Readiness, State
from mobile_client.resilience.replica_stats import MeanDelay, ReplicaStats
from shared.domain import Tier
from shared.policies.conditions import Conditions
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices

SERVERS = (Tier.EDGE, Tier.CLOUD)
_BEST_FIRST: tuple[Readiness, ...] = ("ready", "unknown", "failing", "not ready", "unreachable")
assert set(_BEST_FIRST) == set(get_args(Readiness))


class TierStats:
    """Maintains `conditions`: prices from ``live_prices``, delays and failures from exchanges.

    ``latency_price_lambda`` is the price of waiting one millisecond, in λ. A price in the price
    book replaces it, unless it is ``fixed``. ``certified`` is the cost model of a certificate,
    which replaces the current prices in decisions. ``rng`` decides which of several idle replicas
    is asked first. Used from one thread.
    """

    def __init__(
        self,
        live_prices: LivePrices,
        latency_price_lambda: float,
        clock: Callable[[], float] = time.monotonic,
        certified: CostModel | None = None,
        fixed: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        self._certified = certified
        self._live_prices = live_prices
        self._latency_price_lambda, self._fixed = latency_price_lambda, fixed
        self.conditions = Conditions(self._cost_model(), latency_price_lambda=self._waiting_price())
        self._clock = clock
        self._mobile_delay = MeanDelay(clock)
        self._random = rng or random.Random()
        self._choices = 0
        self.on_failure: Callable[[], None] = lambda: None
        """Called after an exchange whose outcome is a reason to probe a replica."""
        self.replicas: dict[Tier, list[ReplicaStats]] = {tier: [] for tier in SERVERS}
        """Replicas of each server; at least one."""
        for tier in SERVERS:
            self.add_replica(tier)

    def add_replica(self, tier: Tier) -> ReplicaStats:
        """Add a replica, of which nothing is known."""
        replica = ReplicaStats(
            tier,
            self._clock,
            partial(self._update_delay, tier),
            lambda: self.on_failure(),
        )
        # clients that start together must not all ask the same replica first
        replica.chosen_at = self._choices - self._random.random()
        self.replicas[tier].append(replica)
        return replica

    def remove_replica(self, replica: ReplicaStats) -> None:
        """Remove a replica that gets no new exchanges; those that have begun go on."""
        self.replicas[replica.tier].remove(replica)

    def choose(self, tier: Tier, excluded: Collection[ReplicaStats] = ()) -> ReplicaStats | None:
        """Return the replica for the next exchange; None if none but the excluded may be asked.

        It is the one with the fewest outstanding exchanges, and of several the one that was not
        chosen for the longest time. Replicas that were unreachable or overloaded a moment ago come
        after the others.
        """
        replicas = self.replicas[tier]
        if len(replicas) == 1:
            only = replicas[0]
            return only if only.breaker.allows_attempt() and only not in excluded else None
        candidates = [
            one for one in replicas if one.breaker.allows_attempt() and one not in excluded
        ]
        if not candidates:
            return None
        chosen = min(candidates, key=_load)
        self._choices += 1
        chosen.chosen_at = self._choices
        return chosen

    def has_other(self, tier: Tier, excluded: Collection[ReplicaStats]) -> bool:
        """Return whether a replica besides the excluded ones may be asked."""
        replicas = self.replicas[tier]
        return len(replicas) > 1 and any(
            one.breaker.available and one not in excluded for one in replicas
        )

    def refresh(self, left_ms: float) -> None:
        """Update the conditions for a request that has ``left_ms`` until its deadline."""
        self._live_prices.refresh()
        self.conditions.cost_model = self._cost_model()
        self.conditions.latency_price_lambda = self._waiting_price()
        self.conditions.left_ms = left_ms
        self._set_delay(Tier.MOBILE, self._mobile_delay.ms)
        up: dict[Tier, bool] = {}
        for tier, replicas in self.replicas.items():
            self._update_delay(tier)
            if not any(one.breaker.available for one in replicas):
                up[tier] = False
        self.conditions.up = up

    def available(self, tier: Tier) -> bool:
        """Return whether a policy should plan with a server: one of its replicas is available."""
        return any(one.breaker.available for one in self.replicas[tier])

    def readiness(self, tier: Tier) -> Readiness:
        """Return the best of what is known of the replicas of a server."""
        known = {one.breaker.readiness for one in self.replicas[tier]}
        return next(state for state in _BEST_FIRST if state in known)

    def breaker_state(self, tier: Tier) -> State:
        """Return the state of a server's breakers: closed if one of them is, open if all are."""
        states = {one.breaker.state for one in self.replicas[tier]}
        return "closed" if "closed" in states else "half-open" if "half-open" in states else "open"

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
        """Enter the time from request to answer in the mean delay of the mobile or of a server."""
        if tier is Tier.MOBILE:
            self._mobile_delay.add(delay_ms)
            self._set_delay(tier, self._mobile_delay.ms)
        else:
            for replica in self.replicas[tier]:
                replica.record_delay(delay_ms)

    def _update_delay(self, tier: Tier) -> None:
        """Set the delay of a server in the conditions: the mean of its available replicas."""
        replicas = self.replicas[tier]
        if len(replicas) == 1:  # this is done for every request
            self._set_delay(tier, replicas[0].delay.ms)
            return
        usable = [one for one in replicas if one.breaker.available] or replicas
        known_ms = [one.delay.ms for one in usable if one.delay.ms is not None]
        self._set_delay(tier, sum(known_ms) / len(known_ms) if known_ms else None)

    def _set_delay(self, tier: Tier, delay_ms: float | None) -> None:
        if delay_ms is None:
            self.conditions.delay_ms.pop(tier, None)
        else:
            self.conditions.delay_ms[tier] = delay_ms


def _load(replica: ReplicaStats) -> tuple[bool, bool, int, float]:
    return (
        not replica.breaker.available,
        replica.busy,
        replica.outstanding,
        replica.chosen_at,
    )

"""Selects what a request may try next, by mode, cost ceiling, circuit breakers and load."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from mobile_client.resilience.replica_stats import ReplicaStats
from mobile_client.resilience.tier_stats import TierStats
from shared.domain import Tier
from shared.errors import InvalidInput, NotReady, TierError, TierUnreachable
from shared.pricing.live_prices import LivePrices
from shared.rounding import exact_text, minimum_text

ROUNDING_LAMBDA = 1e-9
"""Tolerance of the cost ceiling for rounding errors in sums of floats."""


@dataclass(slots=True)
class Selection:
    """Candidates in the requested order, and the reasons why other tiers are excluded.

    ``unavailable`` holds an error for each tier that its circuit breaker excludes;
    ``cost_capped`` is True if the cost ceiling excludes a tier.
    """

    candidates: list[Tier] = field(default_factory=list)
    unavailable: dict[Tier, TierError] = field(default_factory=dict)
    cost_capped: bool = False


@dataclass(frozen=True, slots=True)
class TierSelector:
    """Chooses candidates for the attempts of one request.

    ``layers`` is the number of layers that each tier runs at most, and ``allowed`` the tiers that
    the request's mode allows. With ``hedging`` a second server is asked if the first is slow.
    """

    tier_stats: TierStats
    live_prices: LivePrices
    layers: Mapping[Tier, int]
    allowed: frozenset[Tier] = frozenset(Tier)
    max_cost_lambda: float | None = None
    hedging: bool = False

    def select(self, tiers: Iterable[Tier], spent_lambda: float) -> Selection:
        """Return the candidates among ``tiers`` for a request that has cost ``spent_lambda``."""
        selection = Selection()
        ceiling_lambda = self.max_cost_lambda
        for tier in tiers:
            if tier not in self.allowed:
                continue
            if ceiling_lambda is not None and (
                spent_lambda + self.max_attempt_lambda(tier) > ceiling_lambda + ROUNDING_LAMBDA
            ):
                selection.cost_capped = True
                continue
            replicas = self.tier_stats.replicas.get(tier)
            if replicas is None or any(one.breaker.allows_attempt() for one in replicas):
                selection.candidates.append(tier)
            else:
                selection.unavailable[tier] = _skip_error(tier, replicas)
        return selection

    def choose(self, tier: Tier, excluded: Collection[ReplicaStats] = ()) -> ReplicaStats | None:
        """Return the replica of a server to ask; None for the mobile, or if there is none."""
        return None if tier is Tier.MOBILE else self.tier_stats.choose(tier, excluded)

    def has_other(self, tier: Tier, tried: Collection[ReplicaStats]) -> bool:
        """Return whether a server has an available replica that was not tried."""
        return tier is not Tier.MOBILE and self.tier_stats.has_other(tier, tried)

    def unavailable(self, tier: Tier) -> TierError | None:
        """Return an error if a policy should not plan with ``tier`` because it has failed.

        None if the tier is available, or if the mode excludes it anyway.
        """
        replicas = self.tier_stats.replicas.get(tier)
        if replicas is None or tier not in self.allowed or self.tier_stats.available(tier):
            return None
        return _skip_error(tier, replicas)

    def max_attempt_lambda(self, tier: Tier) -> float:
        """Return the λ of an attempt that runs all layers of ``tier``."""
        return self.live_prices.cost_model.attempt(tier, self.layers[tier])

    def hedge_after_ms(self, replica: ReplicaStats | None) -> float | None:
        """Return the milliseconds after which a second server is asked; None for never."""
        return replica.p95_ms() if self.hedging and replica is not None else None

    def ceiling_error(self, tiers: Iterable[Tier]) -> InvalidInput:
        """Return the error for a cost ceiling below the price of an attempt at each of ``tiers``.

        ``tiers`` are those that the request may use by its policy and ``fail_over``.
        """
        least_lambda, cheapest = min(
            (self.max_attempt_lambda(tier), tier) for tier in tiers if tier in self.allowed
        )
        return InvalidInput(
            f"max_cost_lambda: {exact_text(self.max_cost_lambda or 0)} λ pays for no attempt; give "
            f"at least {minimum_text(least_lambda)}, the price of all layers of the {cheapest}, "
            "the cheapest tier for this request",
            field="max_cost_lambda",
            limit=least_lambda,
        )


def _skip_error(tier: Tier, replicas: list[ReplicaStats]) -> TierError:
    breakers = [replica.breaker for replica in replicas]
    unreachable = all(breaker.last_unreachable for breaker in breakers)
    kind = TierUnreachable if unreachable else NotReady
    if len(breakers) > 1:
        return kind(
            f"all {len(breakers)} replicas of the {tier} have failed and get no requests for a "
            "while"
        )
    failures = breakers[0].failures
    times = f"{failures} times in a row" if failures > 1 else "just now"
    return kind(f"the {tier} has failed {times} and gets no requests for a while")

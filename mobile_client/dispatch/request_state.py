"""A request under way, and which tiers it may still turn to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from mobile_client.dispatch.attempts import Request
from mobile_client.dispatch.modes import allowed
from mobile_client.local.resume import HiddenState
from mobile_client.local.runtime import LocalAnswer, LocalRuntime
from mobile_client.resilience.circuit_breaker import CircuitBreaker
from shared.domain import Reason, RoutingDecision, Tier
from shared.errors import (
    DeadlineExceeded,
    DimeeError,
    InvalidInput,
    NotReady,
    TierError,
    TierUnreachable,
)
from shared.ledger.entry import LedgerEntry
from shared.policies import RoutingPolicy

Way = tuple[Tier, Reason]
GRACE_MS = 100.0
"""How long after its deadline a request may still be told what is at hand by then."""


@dataclass(slots=True)
class RequestState:
    """A request under way: what was tried, what is ``ahead``, and how long it may still take.

    ``in_hand`` is an answer that was too unsure to be the last word, ``failed`` who gave none,
    ``skipped`` who was not asked because a `CircuitBreaker` is open; ``capped``: somebody was not
    asked because of the ceiling, ``wanted``: somebody was not who would have taken over the answer;
    ``because``: why the mobile's answer had to do. ``state`` is how far the mobile came, as long as
    a tier may go on from there. ``wait_ms`` is how long the next attempt waits before it begins.
    """

    request: Request
    policy: RoutingPolicy
    deadline_ms: float
    left_ms: float
    ahead: list[Way] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    entries: list[LedgerEntry] = field(default_factory=list)
    errors: list[DimeeError] = field(default_factory=list)
    failed: set[Tier] = field(default_factory=set)
    skipped: dict[Tier, TierError] = field(default_factory=dict)
    retried: Counter[Tier] = field(default_factory=Counter)
    capped: bool = False
    wanted: bool = False
    because: str | None = None
    in_hand: LocalAnswer | None = None
    state: HiddenState | None = None
    wait_ms: float = 0.0

    @property
    def routing(self) -> RoutingDecision:
        """Where and how it is answered first."""
        return self.request.decided.routing

    @property
    def spent_lambda(self) -> float:
        """What its attempts have cost until now."""
        return sum(entry.cost_lambda or 0.0 for entry in self.entries)

    def spent_ms(self) -> float:
        """Milliseconds since the request arrived."""
        return (time.perf_counter() - self.started) * 1e3

    def check_time(self) -> None:
        """Raise `DeadlineExceeded` where an answer would come too late."""
        spent_ms = self.spent_ms()
        if spent_ms > self.deadline_ms + GRACE_MS:
            raise DeadlineExceeded(
                f"the deadline of {self.deadline_ms:.0f} ms passed, {spent_ms:.0f} ms after the "
                "request came; the mobile has more to do than it gets done: try again later"
            )


class TierSelector:
    """Which tiers a request may turn to now: by its mode, the breakers and its cost ceiling."""

    def __init__(self, runtime: LocalRuntime) -> None:
        self._runtime = runtime

    def worst_lambda(self, tier: Tier, routing: RoutingDecision) -> float:
        """The most that an attempt there can cost: all layers of the tier."""
        last = {Tier.MOBILE: routing.last_layer or self._runtime.mobile_layers}
        layers = last.get(tier) or self._runtime.resumption.last_layers[tier]
        return self._runtime.live_prices.cost_model.attempt(tier, layers)

    def open(
        self, course: RequestState, ways: Iterable[Way], more_lambda: float = 0.0
    ) -> list[Way]:
        """Those of ``ways`` that are open; why others are not is noted in the course.

        ``more_lambda`` is what will have been spent when the next one begins, beyond the entries.
        """
        spent = course.spent_lambda + more_lambda
        found = []
        for tier, reason in ways:
            if tier not in allowed(course.request.mode):
                continue
            paid = tier is Tier.MOBILE and course.in_hand is not None
            ceiling = course.request.max_cost_lambda
            worst = 0.0 if paid else self.worst_lambda(tier, course.routing)
            if ceiling is not None and spent + worst > ceiling + 1e-9:
                course.capped = True
                continue
            if not self.lets_pass(course, tier):
                continue
            found.append((tier, reason))
        return found

    def lets_pass(self, course: RequestState, tier: Tier) -> bool:
        """Whether the tier's breaker does."""
        breaker = self._runtime.tier_stats.breakers.get(tier)
        if breaker is None or breaker.lets_pass():
            return True
        _skip(course, tier, breaker)
        return False

    def wants(self, course: RequestState, tier: Tier | None) -> None:
        """Note that the policy would have gone to ``tier``, where that is why it does not."""
        breaker = self._runtime.tier_stats.breakers.get(tier) if tier else None
        if tier is None or breaker is None or breaker.plannable:
            return
        if tier in allowed(course.request.mode):
            _skip(course, tier, breaker)
            course.wanted = True

    def begin(self, course: RequestState, fail_over: Iterable[Tier]) -> None:
        """Fill ``ahead``: the routed tier, then the others; raises where nothing is open."""
        first = course.routing.tier
        # the mobile's own layers need nobody to fail over to
        others = [] if first is Tier.MOBILE else [tier for tier in fail_over if tier is not first]
        ways = [(first, Reason.ROUTE), *((tier, Reason.FAIL_OVER) for tier in others)]
        course.ahead = self.open(course, ways)
        if course.ahead and course.ahead[0][0] is first:
            return
        if course.capped and not course.ahead:
            course.ahead = self.open(course, [(Tier.MOBILE, Reason.ROUTE)])
        if not course.ahead:
            self._refuse(course)
        if not course.skipped:  # nobody failed: it is begun where it can be paid for
            course.ahead[0] = (course.ahead[0][0], Reason.ROUTE)

    def _refuse(self, course: RequestState) -> None:
        if course.skipped:
            raise next(reversed(course.skipped.values()))
        ceiling = course.request.max_cost_lambda
        least = min(
            self.worst_lambda(tier, course.routing) for tier in allowed(course.request.mode)
        )
        raise InvalidInput(
            f"max_cost_lambda: {ceiling:g} λ pays for no attempt; give at least {least:g}, which "
            "pays for all layers of the cheapest tier",
            field="max_cost_lambda",
            limit=least,
        )


def _skip(course: RequestState, tier: Tier, breaker: CircuitBreaker) -> None:
    if tier in course.skipped or tier in course.failed:
        return
    kind = TierUnreachable if breaker.gone else NotReady
    times = f"{breaker.failures} times in a row" if breaker.failures > 1 else "just now"
    course.skipped[tier] = kind(f"the {tier} has failed {times} and is left alone for a while")

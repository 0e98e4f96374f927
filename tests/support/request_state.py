"""Driver of a request's state without I/O, and the events of an attempt."""

from __future__ import annotations

from typing import Any

from mobile_client.dispatch.events import (
    Answered,
    Failed,
    MakeAttempt,
    Started,
)
from mobile_client.dispatch.request_state import (
    RequestState,
    Transition,
)
from mobile_client.dispatch.tier_selector import TierSelector
from mobile_client.local.runtime import TierAnswer
from mobile_client.options import Mode, allowed_tiers
from mobile_client.resilience.circuit_breaker import FAILURES
from mobile_client.resilience.tier_stats import TierStats
from shared.domain import Delivery, Tier
from shared.errors import (
    DimeeError,
    TierUnreachable,
)
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices
from tests.support.clock import Clock

COSTS = CostModel.paper(6)
LAYERS = {Tier.MOBILE: 2, Tier.EDGE: 3, Tier.CLOUD: 6}
MOBILE, EDGE, CLOUD = Tier
EDGE_LAMBDA = COSTS.attempt(EDGE, 3)
CLOUD_LAMBDA = COSTS.all_cloud
CHEAP_LAMBDA = COSTS.attempt(MOBILE, 2) + 0.1
"""A ceiling that pays for the mobile's own layers only."""
DEADLINE_MS = 1_000.0


class Driver:
    """A request state with a breaker for each server, and the rows that it went through."""

    def __init__(
        self,
        routed: Tier,
        *,
        mode: Mode = "auto",
        ceiling: float | None = None,
        open_breakers: tuple[Tier, ...] = (),
        hedging: bool = False,
        **settings: Any,
    ) -> None:
        prices = LivePrices(COSTS)
        self.stats = TierStats(prices, 0.0, Clock())
        for tier in open_breakers:
            for _ in range(FAILURES):
                self.stats.replicas[tier][0].breaker.record_failure(unreachable=True)
        selector = TierSelector(self.stats, prices, LAYERS, allowed_tiers(mode), ceiling, hedging)
        settings = {"fail_over": (EDGE, CLOUD, MOBILE), "retries": 2} | settings
        self.state = RequestState(routed, DEADLINE_MS, selector, **settings)

    def send(self, event: Any, row: Transition, spent_ms: float = 10.0) -> Any:
        """Handle the event, which must apply this row of the table."""
        action = self.state.handle(event, spent_ms)
        assert self.state.transition is row
        return action

    def start(self, row: Transition = Transition.ROUTE, **event: Any) -> Any:
        return self.send(Started(**event), row)

    def attempt(self, row: Transition = Transition.ROUTE) -> MakeAttempt:
        action = self.start(row)
        assert isinstance(action, MakeAttempt)
        return action


def answer(confidence: float = 0.6) -> TierAnswer:
    return TierAnswer("a", 0, {"a": confidence}, confidence, False, 2, False, 1.0, 2.0)


def answered(tier: Tier, result: TierAnswer, **event: Any) -> Answered:
    return Answered(tier, result, COSTS.attempt(tier, LAYERS[tier]), **event)


def failed(
    tier: Tier, error: DimeeError, delivery: Delivery = Delivery.UNKNOWN, **event: Any
) -> Failed:
    return Failed(tier, error, delivery, 0.0, **event)


def gone(tier: Tier) -> Failed:
    return failed(tier, TierUnreachable(f"the {tier} is gone"), Delivery.NOT_SENT)

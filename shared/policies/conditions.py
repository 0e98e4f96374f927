"""Current conditions of a decision: prices, delays, available tiers and remaining time."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.domain import Tier
from shared.pricing.cost_model import CostModel


@dataclass
class Conditions:
    """Prices, and the mobile's knowledge of each tier.

    ``delay_ms`` is the expected delay by tier, ``up`` whether a tier is available (default: yes).
    ``latency_price_lambda`` is the price of waiting one millisecond, in λ. ``left_ms`` is the time
    until the deadline; a tier with a longer expected delay cannot answer.
    """

    cost_model: CostModel
    delay_ms: dict[Tier, float] = field(default_factory=dict)
    up: dict[Tier, bool] = field(default_factory=dict)
    latency_price_lambda: float = 0.0
    left_ms: float | None = None

    def can_answer(self, tier: Tier) -> bool:
        """Return whether the tier is available and can answer before the deadline."""
        if not self.up.get(tier, True):
            return False
        return self.left_ms is None or self.delay_ms.get(tier, 0.0) <= self.left_ms

    def cost_lambda(self, tier: Tier, layer: float) -> float:
        """Return the λ of an answer of ``tier`` after ``layer`` layers, waiting included.

        ``layer`` may be a mean number of layers.
        """
        model = self.cost_model
        if tier is Tier.MOBILE:
            cost = model.mobile_layer * layer
        elif tier is Tier.EDGE:
            cost = model.offload_edge + model.edge_layer * layer
        else:
            cost = model.all_cloud
        return cost + self.waiting_lambda(tier)

    def waiting_lambda(self, tier: Tier) -> float:
        """Return the λ of waiting for an answer of ``tier``; 0 if its delay is unknown."""
        return self.latency_price_lambda * self.delay_ms.get(tier, 0.0)

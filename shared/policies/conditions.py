"""What the mobile knows of now: prices, delays, who is up, how long there is left."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.domain import Tier
from shared.pricing.cost_model import CostModel


@dataclass
class Conditions:
    """What the mobile knows of now: prices, and of each tier its delay in ms and whether it is up.

    ``latency_price_lambda`` is the price of waiting one millisecond, in λ. ``left_ms`` is what
    remains of the deadline: a tier whose expected delay is longer is not asked.
    """

    cost_model: CostModel
    delay_ms: dict[Tier, float] = field(default_factory=dict)
    up: dict[Tier, bool] = field(default_factory=dict)
    latency_price_lambda: float = 0.0
    left_ms: float | None = None

    def possible(self, tier: Tier) -> bool:
        """Whether the tier can still answer in time."""
        if not self.up.get(tier, True):
            return False
        return self.left_ms is None or self.delay_ms.get(tier, 0.0) <= self.left_ms

    def cost(self, tier: Tier, layer: float) -> float:
        """λ of an answer of ``tier`` after ``layer`` layers (a mean may lie between two).

        The price of waiting for it is included.
        """
        model = self.cost_model
        if tier is Tier.MOBILE:
            paid = model.mobile_layer * layer
        elif tier is Tier.EDGE:
            paid = model.offload_edge + model.edge_layer * layer
        else:
            paid = model.all_cloud
        return paid + self.waiting(tier)

    def waiting(self, tier: Tier) -> float:
        """λ of waiting for an answer of ``tier``; 0 where its delay is not known."""
        return self.latency_price_lambda * self.delay_ms.get(tier, 0.0)

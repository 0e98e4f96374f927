"""The policy ``value``: the action with the highest expected worth, planned anew after each answer.

Cascade routing (Dekoninck et al. 2025): worth = P(right) − Λ · cost, where Λ is what one λ is worth
in probability of a right answer. Before any layer the success heads guess; after an answer its
confidence takes their place. What a dearer tier would get wrong as well stays where it is: the gain
is fitted, not the doubt.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from shared.cost import CostModel
from shared.domain import Outcome, RoutingDecision, Tier
from shared.errors import BundleError
from shared.heads import EXTRA, TIERS, Floats, SuccessHeads, answer_facts, raw_features
from shared.policies.base import TextFeatures


@dataclass
class Conditions:
    """What the phone knows of now: prices, and of each tier its delay in ms and whether it is up.

    ``ms_lambda`` is the price of waiting one millisecond, in λ. ``left_ms`` is what remains of the
    deadline: a tier whose expected delay is longer is not asked.
    """

    cost_model: CostModel
    delay_ms: dict[Tier, float] = field(default_factory=dict)
    up: dict[Tier, bool] = field(default_factory=dict)
    ms_lambda: float = 0.0
    left_ms: float | None = None

    def possible(self, tier: Tier) -> bool:
        """Whether the tier can still answer in time."""
        if not self.up.get(tier, True):
            return False
        return self.left_ms is None or self.delay_ms.get(tier, 0.0) <= self.left_ms

    def cost(self, tier: Tier, layer: float) -> float:
        """λ of an answer of ``tier`` after ``layer`` layers (a mean may lie between two)."""
        model = self.cost_model
        if tier is Tier.MOBILE:
            paid = model.mobile_layer * layer
        elif tier is Tier.EDGE:
            paid = model.offload_edge + model.edge_layer * layer
        else:
            paid = model.all_cloud
        return paid + self.ms_lambda * self.delay_ms.get(tier, 0.0)


class Value:
    """Routes and escalates by expected worth. ``price`` is Λ; the bundle's where it is None."""

    name = "value"
    phone_layers: int | None = None
    learns = False

    def __init__(
        self, heads: SuccessHeads | None, cost_model: CostModel, price: float | None = None
    ) -> None:
        if heads is None:
            raise BundleError(
                "bundle: it has no success heads for the policy value; export it again"
            )
        self.heads = heads
        self.price = float(heads.price) if price is None else price
        self.conditions = Conditions(cost_model)
        self._alpha = float(heads.alpha)

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Start where the worth of the best plan is highest."""
        features_F, _, expected_K = self._read(features)
        lead_T = self.heads.lead(features_F)
        worth = [self._worth(t, expected_K, float(lead_T[t])) for t in range(len(TIERS))]
        best = int(np.argmax(worth))
        return RoutingDecision(
            TIERS[best],
            self.name,
            alpha=self._alpha,
            worths=tuple(float(value) for value in worth),
            expected=tuple(float(q) for q in expected_K[: len(TIERS)]),
        )

    def escalate(
        self, features: TextFeatures, decision: RoutingDecision, outcome: Outcome, sure: bool
    ) -> Tier | None:
        """The tier whose gain over this answer is worth its price, if any."""
        features_F, label0, _ = self._read(features)
        tier = TIERS.index(outcome.tier)
        margin, length = float(features_F[-EXTRA]), float(features_F[-EXTRA + 3])
        facts_G = answer_facts(outcome.confidence, outcome.label == label0, margin, length)
        best, best_worth = None, 0.0
        for target in range(tier + 1, len(TIERS)):
            if not self.conditions.possible(TIERS[target]):
                continue
            layer = float(self.heads.layers_T2[target, 1])
            cost = self.conditions.cost(TIERS[target], layer)
            worth = self.heads.gain(tier, target, facts_G) - self.price * cost
            if worth > best_worth:
                best, best_worth = TIERS[target], worth
        return best

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        """Nothing to learn from single answers."""

    def _read(self, features: TextFeatures) -> tuple[Floats, int, Floats]:
        heads = self.heads
        features_F, label0 = raw_features(
            heads.exit0_HC,
            heads.exit0_C,
            features.embedding_H,
            features.tokens,
            features.rare_pieces,
        )
        return features_F, label0, heads.expect(features_F)

    def _worth(self, tier: int, expected_K: Floats, lead: float) -> float:
        """Worth of starting at ``tier``, against an answer of the cloud for nothing.

        The better of two plans: stay there whatever comes, or go on with what is not sure. In the
        second, what is sure differs from the cloud's answers as it did on validation.
        """
        where, heads, cloud = TIERS[tier], self.heads, len(TIERS) - 1
        if not self.conditions.possible(where):
            return -np.inf
        if where is Tier.CLOUD:
            return -self.price * self.conditions.cost(where, float(heads.layers_T2[tier, 0]))
        sure = float(expected_K[len(TIERS) + tier])
        cost_sure, cost_not = (self.conditions.cost(where, n) for n in heads.layers_T2[tier])
        paid = self.price * (sure * cost_sure + (1 - sure) * cost_not)
        # at best as good as the cloud: a lead is noise more often than not, and must not be bought
        plans = [min(0.0, lead)]
        kept = sure * min(0.0, float(heads.right_T2[tier, 0] - heads.next_TT2[tier, cloud, 0]))
        for target in range(tier + 1, len(TIERS)):
            if self.conditions.possible(TIERS[target]):
                gap = float(heads.next_TT2[tier, target, 1] - heads.next_TT2[tier, cloud, 1])
                gap = min(0.0, gap)
                layer = float(heads.layers_T2[target, 1])
                cost = self.price * self.conditions.cost(TIERS[target], layer)
                plans.append(kept + (1 - sure) * (gap - cost))
        return max(plans) - paid

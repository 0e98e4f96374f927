"""Cascade routing: take the action of the highest expected value, and plan again after each answer.

Cascade routing (Dekoninck et al. 2025): worth = P(right) − Λ · cost, where Λ is what one λ is worth
in probability of a right answer. Before any layer the correctness heads guess; after an answer its
confidence takes their place. What a dearer tier would get wrong as well stays where it is: the gain
is fitted, not the doubt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.bundle.correctness_heads import (
    EXTRA,
    TIERS,
    CorrectnessHeads,
    answer_facts,
    raw_features,
)
from shared.domain import Expectation, Outcome, RoutingDecision, Tier
from shared.errors import BundleError
from shared.policies.base import TextFeatures
from shared.policies.conditions import Conditions
from shared.pricing.cost_model import CostModel

Floats = NDArray[np.float64]
Number = float | Floats
STATES = 2
"""An answer's states S: sure (0), and not sure (1)."""


@dataclass(frozen=True, slots=True)
class GoingOn:
    """Tiers that answers of a tier go on to, by state S (sure, not sure) and tier T (`TIERS`).

    ``share_ST`` is the share that goes on to each tier; the rest stays. ``gain_ST`` is the mean
    gain in probability of a right answer of those that go; 0 where none goes.
    """

    share_ST: Floats
    gain_ST: Floats

    def shares(self, sure: float) -> Floats:
        """Return the share of answers that go on to each tier, ``sure`` of them being sure."""
        result: Floats = np.array([sure, 1 - sure]) @ self.share_ST
        return result

    def gain(self, sure: float) -> float:
        """Return what going on adds to the probability of a right answer, over all answers."""
        return float(np.array([sure, 1 - sure]) @ (self.share_ST * self.gain_ST).sum(1))


class CascadeRouting:
    """Routes and escalates by expected worth.

    ``price`` is Λ, what one λ is worth, and ``alpha`` the threshold of exits; the bundle's where
    they are None.
    """

    name = "cascade-routing"
    policy_layers: int | None = None
    learns = False
    uses_conditions = True

    def __init__(
        self,
        heads: CorrectnessHeads | None,
        cost_model: CostModel,
        price: float | None = None,
        alpha: float | None = None,
    ) -> None:
        if heads is None:
            raise BundleError(
                "bundle: it has no correctness heads for the policy cascade-routing; export it "
                "again"
            )
        self.heads = heads
        self.price = float(heads.price) if price is None else price
        self.alpha = float(heads.alpha) if alpha is None else alpha
        self.conditions = Conditions(cost_model)
        # plain floats: reading them from arrays takes longer than the arithmetic
        self._layers: list[list[float]] = heads.layers_T2.tolist()
        cloud = len(TIERS) - 1
        self._kept = [
            min(0.0, float(row)) for row in heads.right_T2[:, 0] - heads.next_TT2[:, cloud, 0]
        ]
        gaps_TU = heads.next_TT2[:, :, 1] - heads.next_TT2[:, cloud, 1][:, None]
        self._gaps: list[list[float]] = np.minimum(0.0, gaps_TU).tolist()

    def use_conditions(self, conditions: Conditions) -> None:
        """Decide by ``conditions`` from now on."""
        self.conditions = conditions

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Start where the worth of the best plan is highest."""
        return self.plan(self.expect(features))

    def expect(self, features: TextFeatures) -> Expectation:
        """What the correctness heads say of a text: the one matrix product."""
        heads = self.heads
        features_F, label = raw_features(
            heads.exit0_HC,
            heads.exit0_C,
            features.embedding_H,
            features.tokens,
            features.rare_pieces,
            features.pair_P if heads.reads_pairs else None,
        )
        return Expectation(
            expected=tuple(heads.expect(features_F).tolist()),
            lead=tuple(heads.lead(features_F).tolist()),
            margin=float(features_F[-EXTRA]),
            length=float(features_F[-EXTRA + 3]),
            label=label,
        )

    def plan(self, expectation: Expectation) -> RoutingDecision:
        """The decision at the conditions of now; where nothing is possible, the mobile."""
        sure = (*expectation.expected[len(TIERS) :], 1.0)
        expected_values = [
            float(self.worth(tier, sure[tier], expectation.lead[tier]))
            for tier in range(len(TIERS))
        ]
        # of equals the dearer one: where nothing is worth more, the cloud is right most often
        best = max(range(len(TIERS)), key=lambda tier: (expected_values[tier], tier))
        if not math.isfinite(expected_values[best]):
            best = 0
        return RoutingDecision(
            TIERS[best],
            self.name,
            alpha=self.alpha,
            expected_values=tuple(
                worth if math.isfinite(worth) else None for worth in expected_values
            ),
            expectation=expectation,
            delay_ms=tuple(self.conditions.delay_ms.get(tier) for tier in TIERS),
            latency_price_lambda=self.conditions.latency_price_lambda,
        )

    def escalate(
        self, features: TextFeatures, decision: RoutingDecision, outcome: Outcome, sure: bool
    ) -> Tier | None:
        """The tier whose gain over this answer is worth its price, if any."""
        return self.replan(decision.expectation or self.expect(features), outcome)

    def replan(self, expectation: Expectation, outcome: Outcome) -> Tier | None:
        """As `escalate`, for a text of which no more than the expectation is known."""
        tier = TIERS.index(outcome.tier)
        agrees = outcome.label == expectation.label
        facts_G = answer_facts(outcome.confidence, agrees, expectation.margin, expectation.length)
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

    def worth(self, tier: int, sure: Number, lead: Number, going_on: bool = True) -> Number:
        """Return the worth of starting at ``tier``, against an answer of the cloud for nothing.

        ``sure`` is the probability that the tier's answer is sure, ``lead`` how much likelier it is
        right than the cloud's (both are not read for the cloud); arrays give the worth of many
        texts. The worth is that of the better of two plans: decide after the answer whether to go
        on, or go on with all that is not sure. In the second, what is sure differs from the cloud's
        answers as it did on validation. Without ``going_on`` the first answer stays.
        """
        where = TIERS[tier]
        if not self.conditions.possible(where):
            return -math.inf
        if where is Tier.CLOUD:
            return -self.price * self.conditions.cost(where, self._layers[tier][0])
        cost_sure, cost_not = (self.conditions.cost(where, layer) for layer in self._layers[tier])
        paid = self.price * (sure * cost_sure + (1 - sure) * cost_not)
        # at best as good as the cloud: a lead is noise more often than not, and must not be bought
        stays = np.minimum(0.0, lead)
        if not going_on:
            return stays - paid
        plans = self._plans(tier, sure, stays)
        best = plans[0][1]
        for _, found in plans[1:]:
            best = np.maximum(best, found)
        return best - paid

    def going_on(self, tier: int) -> GoingOn:
        """Return where typical answers of ``tier`` go on to, each decided by its own gain.

        A typical answer goes to the tier whose gain less Λ times its cost is the largest and
        positive, out of those that are possible now; `worth` values going on by the same choices.
        """
        gains_SQU = self.heads.gains_TSQU[tier]
        best_SQ = self._best_gains(tier)
        left_SQ = best_SQ > 0
        share_ST, gain_ST = np.zeros((STATES, len(TIERS))), np.zeros((STATES, len(TIERS)))
        for target in range(tier + 1, len(TIERS)):
            if not self.conditions.possible(TIERS[target]):
                continue
            # of equals the first, as in `replan`
            goes_SQ = left_SQ & (gains_SQU[:, :, target] - self._price_of(target) == best_SQ)
            left_SQ = left_SQ & ~goes_SQ
            share_ST[:, target] = goes_SQ.mean(1)
            total_S = (gains_SQU[:, :, target] * goes_SQ).sum(1)
            gain_ST[:, target] = total_S / np.maximum(1, goes_SQ.sum(1))
        return GoingOn(share_ST, gain_ST)

    def valued_plan(self, tier: int, expectation: Expectation) -> Tier | None:
        """Return the tier that takes all that is not sure, where `worth` is that of this plan.

        None where it is that of deciding after the answer. In both cases `escalate` decides after
        the answer, so that costs follow `going_on`: the plan says what the worth was taken from.
        """
        if TIERS[tier] is Tier.CLOUD:
            return None
        sure, lead = expectation.expected[len(TIERS) + tier], expectation.lead[tier]
        # of equals the first
        to, _ = max(self._plans(tier, sure, min(0.0, lead)), key=lambda plan: float(plan[1]))
        return None if to is None else TIERS[to]

    def _plans(self, tier: int, sure: Number, stays: Number) -> list[tuple[int | None, Number]]:
        """Worth of each plan before the first answer is paid, and its target.

        The target is None for the plan that decides after the answer, which comes first; else all
        that is not sure goes on to it.
        """
        later_sure, later_not = self._gain_of_going_on(tier)
        decided = np.minimum(0.0, stays + sure * later_sure + (1 - sure) * later_not)
        plans: list[tuple[int | None, Number]] = [(None, decided)]
        kept = sure * self._kept[tier]
        for target in range(tier + 1, len(TIERS)):
            if self.conditions.possible(TIERS[target]):
                gap = self._gaps[tier][target]
                plans.append((target, kept + (1 - sure) * (gap - self._price_of(target))))
        return plans

    def _gain_of_going_on(self, tier: int) -> tuple[float, float]:
        """Mean worth of the best escalation after an answer of ``tier``, sure and not.

        Zero where no other tier is worth its price.
        """
        sure, not_sure = self._best_gains(tier).mean(1).tolist()
        return sure, not_sure

    def _best_gains(self, tier: int) -> Floats:
        """``best_SQ``: worth of the best escalation after each typical answer, 0 if none pays."""
        best_SQ: Floats = np.zeros(1)
        for target in range(tier + 1, len(TIERS)):
            if self.conditions.possible(TIERS[target]):
                net_SQ = self.heads.gains_TSQU[tier, :, :, target] - self._price_of(target)
                best_SQ = np.maximum(best_SQ, net_SQ)
        return np.broadcast_to(best_SQ, self.heads.gains_TSQU.shape[1:3])

    def _price_of(self, target: int) -> float:
        """Return what going on to ``target`` costs, in probability of a right answer."""
        return self.price * self.conditions.cost(TIERS[target], self._layers[target][1])

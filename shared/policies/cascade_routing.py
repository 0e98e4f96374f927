"""Cascade routing: chooses the tier with the highest expected value, and again after each answer.

Cascade routing (Dekoninck et al. 2025) maximises P(right) − Λ · cost. Λ (``cost_weight``) is the
probability of a right answer that one λ is worth. Before any layer runs, the correctness heads
estimate P(right); after an answer its confidence replaces them. The heads are fitted to the gain of
another tier's answer, so that a text which the other tier would get wrong as well is not escalated.

Shape suffixes: T and U tiers, S states of an answer (`STATES`), Q typical answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.bundle.correctness_heads import (
    EXTRA,
    MIN_HEAD_EXAMPLES,
    TIERS,
    CorrectnessHeads,
    answer_facts,
    raw_features,
)
from shared.domain import Expectation, Outcome, RoutingDecision, Tier
from shared.errors import InvalidInput
from shared.policies.base import RoutingPolicy, TextFeatures
from shared.policies.conditions import Conditions
from shared.pricing.cost_model import CostModel

Floats = NDArray[np.float64]
Number = float | Floats
STATES = 2
"""States S of an answer: confident (0; its confidence reaches α) and not confident (1)."""


@dataclass(frozen=True, slots=True)
class TypicalEscalations:
    """Tiers to which typical answers of one tier are escalated.

    ``share_ST`` is the share of answers in each state that are escalated to each tier; the others
    stay. ``gain_ST`` is the mean gain in probability of a right answer over the escalated answers;
    0 if there are none.
    """

    share_ST: Floats
    gain_ST: Floats

    def shares(self, confident: float) -> Floats:
        """Return the share of answers that go to each tier; ``confident`` of them reach α."""
        result: Floats = np.array([confident, 1 - confident]) @ self.share_ST
        return result

    def gain(self, confident: float) -> float:
        """Return the gain in probability of a right answer, averaged over all answers."""
        gain_S = (self.share_ST * self.gain_ST).sum(1)
        return float(np.array([confident, 1 - confident]) @ gain_S)


class CascadeRouting:
    """Routing policy that routes and escalates by expected value.

    ``cost_weight`` is Λ and ``alpha`` the threshold of the exits; the default is the bundle's.
    """

    name = "cascade-routing"
    policy_layers: int | None = None
    learns = False
    uses_conditions = True

    def __init__(
        self,
        heads: CorrectnessHeads | None,
        cost_model: CostModel,
        cost_weight: float | None = None,
        alpha: float | None = None,
    ) -> None:
        if heads is None:
            raise InvalidInput(
                f"policy: {self.name} cannot run, because this bundle has no correctness heads; "
                "use another policy, such as dimee-fixed, or train and export with at least "
                f"{MIN_HEAD_EXAMPLES} validation examples, on which the heads are fitted",
                field="policy",
            )
        self.heads = heads
        self.cost_weight = float(heads.cost_weight) if cost_weight is None else cost_weight
        self.alpha = float(heads.alpha) if alpha is None else alpha
        self.conditions = Conditions(cost_model)
        # plain floats: reading single numbers from arrays is slower than the arithmetic
        self._layers: list[list[float]] = heads.layers_T2.tolist()
        cloud = len(TIERS) - 1
        self._confident_loss = [
            min(0.0, float(row)) for row in heads.right_T2[:, 0] - heads.next_TT2[:, cloud, 0]
        ]
        loss_TU = heads.next_TT2[:, :, 1] - heads.next_TT2[:, cloud, 1][:, None]
        self._escalated_loss: list[list[float]] = np.minimum(0.0, loss_TU).tolist()

    def use_conditions(self, conditions: Conditions) -> None:
        """Decide by ``conditions`` from now on."""
        self.conditions = conditions

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Return the tier with the highest expected value."""
        return self.plan(self.expect(features))

    def expect(self, features: TextFeatures) -> Expectation:
        """Return the correctness heads' prediction for a text."""
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
        """Return the decision in the current conditions; the mobile if no tier can answer."""
        confident = (*expectation.expected[len(TIERS) :], 1.0)
        values = [
            float(self.expected_value(tier, confident[tier], expectation.lead[tier]))
            for tier in range(len(TIERS))
        ]
        # in a tie take the higher tier, which is right more often
        best = max(range(len(TIERS)), key=lambda tier: (values[tier], tier))
        if not math.isfinite(values[best]):
            best = 0
        return RoutingDecision(
            TIERS[best],
            self.name,
            alpha=self.alpha,
            expected_values=tuple(value if math.isfinite(value) else None for value in values),
            expectation=expectation,
            delay_ms=tuple(self.conditions.delay_ms.get(tier) for tier in TIERS),
            latency_price_lambda=self.conditions.latency_price_lambda,
        )

    def escalate(
        self,
        features: TextFeatures,
        decision: RoutingDecision,
        outcome: Outcome,
        meets_threshold: bool,
    ) -> Tier | None:
        """Return the tier whose gain exceeds its cost by most; None if no gain does."""
        return self.replan(decision.expectation or self.expect(features), outcome)

    def replan(self, expectation: Expectation, outcome: Outcome) -> Tier | None:
        """Return the same as `escalate`, from the expectation instead of the text's features."""
        tier = TIERS.index(outcome.tier)
        agrees = outcome.label == expectation.label
        facts_G = answer_facts(outcome.confidence, agrees, expectation.margin, expectation.length)
        best, best_value = None, 0.0
        for target in range(tier + 1, len(TIERS)):
            if not self.conditions.can_answer(TIERS[target]):
                continue
            layer = float(self.heads.layers_T2[target, 1])
            cost_lambda = self.conditions.cost_lambda(TIERS[target], layer)
            value = self.heads.gain(tier, target, facts_G) - self.cost_weight * cost_lambda
            if value > best_value:
                best, best_value = TIERS[target], value
        return best

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        """Ignore the outcome: the heads are fitted in the lab."""

    def expected_value(
        self, tier: int, confident: Number, lead: Number, may_escalate: bool = True
    ) -> Number:
        """Return the expected value of starting at ``tier``, relative to a free cloud answer.

        ``confident`` is the probability that the tier's answer reaches α, ``lead`` the difference
        of its and the cloud's probability of being right. Both are ignored for the cloud. Arrays
        give the values of many texts. The value is that of the better of two plans: decide after
        the answer whether to escalate, or escalate every answer that is not confident. In the
        second plan, confident answers differ from the cloud's as they did on validation data.
        Without ``may_escalate`` the first answer stays.
        """
        place = TIERS[tier]
        if not self.conditions.can_answer(place):
            return -math.inf
        if place is Tier.CLOUD:
            cost_lambda = self.conditions.cost_lambda(place, self._layers[tier][0])
            return -self.cost_weight * cost_lambda
        cost_confident, cost_not = (
            self.conditions.cost_lambda(place, layer) for layer in self._layers[tier]
        )
        cost = self.cost_weight * (confident * cost_confident + (1 - confident) * cost_not)
        # a positive lead over the cloud is usually noise, so it must not attract texts
        stays = np.minimum(0.0, lead)
        if not may_escalate:
            return stays - cost
        plans = self._plans(tier, confident, stays)
        best = plans[0][1]
        for _, value in plans[1:]:
            best = np.maximum(best, value)
        return best - cost

    def typical_escalations(self, tier: int) -> TypicalEscalations:
        """Return the shares and gains of typical answers of ``tier`` that are escalated.

        A typical answer goes to the available tier with the largest positive difference of gain
        and Λ times cost. `expected_value` values escalation by the same choices.
        """
        gains_SQU = self.heads.gains_TSQU[tier]
        best_SQ = self._best_gains(tier)
        remaining_SQ = best_SQ > 0
        share_ST, gain_ST = np.zeros((STATES, len(TIERS))), np.zeros((STATES, len(TIERS)))
        for target in range(tier + 1, len(TIERS)):
            if not self.conditions.can_answer(TIERS[target]):
                continue
            # in a tie take the first tier, as `replan` does
            goes_SQ = remaining_SQ & (
                gains_SQU[:, :, target] - self._weighted_cost(target) == best_SQ
            )
            remaining_SQ = remaining_SQ & ~goes_SQ
            share_ST[:, target] = goes_SQ.mean(1)
            total_S = (gains_SQU[:, :, target] * goes_SQ).sum(1)
            gain_ST[:, target] = total_S / np.maximum(1, goes_SQ.sum(1))
        return TypicalEscalations(share_ST, gain_ST)

    def threshold_plan_target(self, tier: int, expectation: Expectation) -> Tier | None:
        """Return the target of the plan that escalates every answer that is not confident.

        Return None if the plan that decides after the answer has the higher value. `escalate`
        decides after the answer in both cases, so costs follow `typical_escalations`.
        """
        if TIERS[tier] is Tier.CLOUD:
            return None
        confident, lead = expectation.expected[len(TIERS) + tier], expectation.lead[tier]
        # in a tie take the first plan
        plans = self._plans(tier, confident, min(0.0, lead))
        target, _ = max(plans, key=lambda plan: float(plan[1]))
        return None if target is None else TIERS[target]

    def _plans(
        self, tier: int, confident: Number, stays: Number
    ) -> list[tuple[int | None, Number]]:
        """Return (target, value) of each plan, without the cost of the first answer.

        The first plan, with the target None, decides after the answer. Every other plan escalates
        all answers that are not confident to its target.
        """
        gain_confident, gain_not = self._mean_best_gains(tier)
        decide_later = np.minimum(
            0.0, stays + confident * gain_confident + (1 - confident) * gain_not
        )
        plans: list[tuple[int | None, Number]] = [(None, decide_later)]
        loss_confident = confident * self._confident_loss[tier]
        for target in range(tier + 1, len(TIERS)):
            if self.conditions.can_answer(TIERS[target]):
                value = self._escalated_loss[tier][target] - self._weighted_cost(target)
                plans.append((target, loss_confident + (1 - confident) * value))
        return plans

    def _mean_best_gains(self, tier: int) -> tuple[float, float]:
        """Return the mean of `_best_gains` for confident answers and for the others."""
        confident, not_confident = self._best_gains(tier).mean(1).tolist()
        return confident, not_confident

    def _best_gains(self, tier: int) -> Floats:
        """Return ``best_SQ``: the net gain of the best escalation of each typical answer.

        0 where no escalation gains more than it costs.
        """
        best_SQ: Floats = np.zeros(1)
        for target in range(tier + 1, len(TIERS)):
            if self.conditions.can_answer(TIERS[target]):
                net_SQ = self.heads.gains_TSQU[tier, :, :, target] - self._weighted_cost(target)
                best_SQ = np.maximum(best_SQ, net_SQ)
        return np.broadcast_to(best_SQ, self.heads.gains_TSQU.shape[1:3])

    def _weighted_cost(self, target: int) -> float:
        """Return Λ times the cost of escalating to ``target``, in probability."""
        cost_lambda = self.conditions.cost_lambda(TIERS[target], self._layers[target][1])
        return self.cost_weight * cost_lambda


def as_cascade_routing(policy: RoutingPolicy) -> CascadeRouting:
    """Return ``policy`` with its own type; raise `TypeError` if it is not cascade routing."""
    if not isinstance(policy, CascadeRouting):
        raise TypeError(f"the policy {policy.name} is not {CascadeRouting.name}")
    return policy

"""Bandit baselines of the paper: AdaEE chooses the threshold, I-SplitEE the splitting layer.

Both learn with UCB1 (Auer et al. 2002) from the reward of eq. 2, r = C − μ · cost / all-cloud cost,
where C is the confidence of the exit that answered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from shared.domain import Outcome, RoutingDecision, Tier
from shared.policies.base import EscalateBelowThreshold, TextFeatures
from shared.pricing.cost_model import CostModel

THRESHOLDS = 10


def thresholds(classes: int) -> list[float]:
    """Return the paper's set S: ten equidistant values of α in [1/C, 1]."""
    return [float(alpha) for alpha in np.linspace(1 / classes, 1, THRESHOLDS)]


class Ucb1:
    """The UCB1 bandit: plays each arm once, then the arm with the highest mean + √(2 ln t / n).

    For rewards in [0, 1] the expected regret after T plays is at most
    8 Σ (ln T / Δ_i) + (1 + π²/3) Σ Δ_i over the arms that are not the best (theorem 1).
    """

    def __init__(self, arms: int) -> None:
        self.plays = [0] * arms
        self.means = [0.0] * arms

    def choose(self) -> int:
        """Return the arm to play next; in a tie the first one."""
        for arm, plays in enumerate(self.plays):
            if plays == 0:
                return arm
        bonus = 2 * math.log(sum(self.plays))
        values = [m + math.sqrt(bonus / n) for m, n in zip(self.means, self.plays, strict=True)]
        return values.index(max(values))

    def update(self, arm: int, reward: float) -> None:
        """Add the reward of one play."""
        self.plays[arm] += 1
        self.means[arm] += (reward - self.means[arm]) / self.plays[arm]


class _Bandit(EscalateBelowThreshold):
    """Bandit policy whose arms are routing decisions and whose reward is eq. 2."""

    learns = True

    def __init__(
        self, decisions: Sequence[RoutingDecision], cost_model: CostModel, mu: float
    ) -> None:
        self.decisions = list(decisions)
        self.bandit = Ucb1(len(self.decisions))
        self._arm_of = {decision: arm for arm, decision in enumerate(self.decisions)}
        self._cost_model = cost_model
        self._mu = mu

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Return the decision with the highest upper confidence bound."""
        return self.decisions[self.bandit.choose()]

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        """Update the arm of ``decision`` with the reward of ``outcome``."""
        share = outcome.cost_lambda / self._cost_model.all_cloud
        self.bandit.update(self._arm_of[decision], outcome.confidence - self._mu * share)


class AdaEE(_Bandit):
    """Learn the threshold α: texts below it at all of the mobile's exits go to the cloud."""

    name = "adaee"
    policy_layers: int | None = None

    def __init__(self, classes: int, cost_model: CostModel, mu: float) -> None:
        base = RoutingDecision(Tier.MOBILE, self.name, escalate_to=Tier.CLOUD)
        arms = [replace(base, alpha=alpha) for alpha in thresholds(classes)]
        super().__init__(arms, cost_model, mu)


class ISplitEE(_Bandit):
    """Learn the splitting layer i: run 1..i on the mobile, answer there if C_i ≥ α, else offload.

    At i = l the mobile answers, because no layers are left to offload.
    """

    name = "i-splitee"

    def __init__(self, cost_model: CostModel, mu: float) -> None:
        layers = cost_model.layers
        self.policy_layers: int | None = layers
        super().__init__(
            [
                RoutingDecision(
                    Tier.MOBILE,
                    self.name,
                    first_exit=layer,
                    last_layer=layer,
                    escalate_to=Tier.CLOUD if layer < layers else None,
                )
                for layer in range(1, layers + 1)
            ],
            cost_model,
            mu,
        )

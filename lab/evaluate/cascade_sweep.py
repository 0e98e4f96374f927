"""Vectorised ``cascade-routing`` over many samples, for choosing Λ and α.

Its decisions equal those of `shared.policies.cascade_routing.CascadeRouting`; a test compares the
two.

Shape suffixes: N samples, T, U tiers, K heads, F features, G facts of an answer.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lab.evaluate.fit_heads import answers_of, features_of
from lab.evaluate.pools import Pools
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import Trace, simulate
from shared.bundle.correctness_heads import TIERS, CorrectnessHeads
from shared.domain import Tier
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.conditions import Conditions
from shared.policies.static import SingleTier
from shared.pricing.cost_model import CostModel

Part = Literal["both", "heads", "escalation"]
"""Parts of the policy, for ablations: both, the first placement alone, or escalation alone."""
CLOUD = len(TIERS) - 1


class CascadeSweep:
    """Answers of every tier, expectations and gains of N samples, for one set of heads."""

    def __init__(self, heads: CorrectnessHeads, samples: Samples, pools: Pools) -> None:
        facts = pools.facts
        self._heads, self._samples = heads, samples
        runs = [simulate(SingleTier(tier), samples, facts, pools.edge_layers) for tier in TIERS]
        features_NF, label0_N = features_of((heads.exit0_HC, heads.exit0_C), samples)
        x_NF = heads.scaled(features_NF)
        logits_NK = np.clip(x_NF @ heads.weight_FK + heads.bias_K, -30, 30)
        self._expected_NK = 1.0 / (1.0 + np.exp(-logits_NK))
        self._lead_NT = x_NF @ heads.diff_FT + heads.diff_T
        self._exit_NT = np.stack([run.exit_N for run in runs], 1)
        self._answer_NT = np.stack([run.answer_N for run in runs], 1)
        self._gain_NTU = np.zeros((len(samples), len(TIERS), len(TIERS)))
        for t, run in enumerate(runs[:CLOUD]):
            facts_NG = answers_of(samples, run, features_NF, label0_N)
            for u in range(t + 1, len(TIERS)):
                self._gain_NTU[:, t, u] = heads.gains(t, u, facts_NG)

    def run(self, price: float, cost_model: CostModel, part: Part = "both") -> Trace:
        """Return the answers and costs of all samples at this Λ and these prices."""
        count = len(self._samples)
        rows_N = np.arange(count)
        tier_N = self.first_tiers(price, cost_model, part)
        cost_TL = np.array(
            [
                [cost_model.attempt(tier, layer) for layer in range(1, cost_model.layers + 1)]
                for tier in TIERS
            ]
        )
        cost_N = cost_TL[tier_N, self._exit_NT[rows_N, tier_N] - 1]
        if part != "heads":
            for t in range(CLOUD):
                target_N = self._escalation_targets(t, price, cost_model)
                escalated_N = (tier_N == t) & (target_N > t)
                tier_N = np.where(escalated_N, target_N, tier_N)
                attempt_N = cost_TL[tier_N, self._exit_NT[rows_N, tier_N] - 1]
                cost_N = np.where(escalated_N, cost_N + attempt_N, cost_N)
        tiers_N: NDArray[np.object_] = np.array(TIERS, dtype=object)[tier_N]
        return Trace(
            tiers_N, self._exit_NT[rows_N, tier_N], self._answer_NT[rows_N, tier_N], cost_N
        )

    def first_tiers(self, price: float, cost_model: CostModel, part: Part) -> NDArray[np.int64]:
        """Return the index in `TIERS` of the tier that each sample starts at."""
        count = len(self._samples)
        if part == "escalation":
            return np.full(count, TIERS.index(Tier.EDGE) if price else CLOUD)
        policy = CascadeRouting(self._heads, cost_model, price)
        confident_NT = np.concatenate([self._expected_NK[:, len(TIERS) :], np.ones((count, 1))], 1)
        expected_values = [
            policy.expected_value(
                t, confident_NT[:, t], self._lead_NT[:, t], may_escalate=part == "both"
            )
            for t in range(len(TIERS))
        ]
        value_NT = np.stack([np.broadcast_to(value, count) for value in expected_values], 1)
        # like the policy, the more expensive of equal tiers
        start_N: NDArray[np.int64] = CLOUD - value_NT[:, ::-1].argmax(1)
        return start_N

    def _escalation_targets(
        self, tier: int, price: float, cost_model: CostModel
    ) -> NDArray[np.int64]:
        """Return the tier with the best expected gain less its cost after an answer of ``tier``."""
        conditions = Conditions(cost_model)
        best_N = np.full(len(self._samples), tier)
        value_N = np.zeros(len(self._samples))
        for target in range(tier + 1, len(TIERS)):
            layer = float(self._heads.layers_T2[target, 1])
            new_N = self._gain_NTU[:, tier, target] - price * conditions.cost_lambda(
                TIERS[target], layer
            )
            best_N = np.where(new_N > value_N, target, best_N)
            value_N = np.maximum(new_N, value_N)
        return best_N

"""Expected escalations: their costs equal the simulation, and their values are consistent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lab.evaluate.fit_heads import fit_heads
from lab.evaluate.pools import Pools, make_pools
from lab.evaluate.simulate import simulate
from mobile_client.insight.replay import expected_cost_lambda
from shared.bundle.correctness_heads import CorrectnessHeads
from shared.domain import RoutingDecision, Tier
from shared.policies.base import TextFeatures
from shared.policies.cascade_routing import CascadeRouting
from tests.support.toy_samples import COSTS, toy

EMBEDDING_CLASSIFIER = (np.array([[0.5, -0.5], [0.1, -0.1]]), np.zeros(2))


@pytest.fixture(scope="module")
def pools() -> Pools:
    return make_pools(toy(600, 1), COSTS, 2, 3, 0.1, alpha=0.9)


@pytest.fixture(scope="module")
def heads(pools: Pools) -> CorrectnessHeads:
    return fit_heads(EMBEDDING_CLASSIFIER, toy(600, 1), pools)


class StartsAt(CascadeRouting):
    """`CascadeRouting` that starts every text at one tier and escalates normally."""

    def __init__(self, tier: Tier, heads: CorrectnessHeads, price: float) -> None:
        super().__init__(heads, COSTS, price)
        self._tier = tier

    def route(self, features: TextFeatures) -> RoutingDecision:
        return replace(super().route(features), tier=self._tier)


@pytest.mark.parametrize("price", [0.001, 0.005, 0.01])
@pytest.mark.parametrize("tier", [Tier.MOBILE, Tier.EDGE])
def test_expected_cost_equals_the_mean_simulated_cost(
    tier: Tier, price: float, heads: CorrectnessHeads, pools: Pools
) -> None:
    """The λ that `dimee explain` shows for a tier, on average over texts."""
    test = toy(1000, 7)
    policy = StartsAt(tier, heads, price)
    trace = simulate(policy, test, pools.facts, edge_layers=3)
    expectations = [policy.expect(test.features(i)) for i in range(len(test))]
    expected = np.mean([expected_cost_lambda(policy, tier, one) for one in expectations])
    assert expected == pytest.approx(trace.cost_N.mean(), rel=0.1)
    index = list(Tier).index(tier)
    going_on = policy.typical_escalations(index)
    right = np.mean(
        [one.expected[index] + going_on.gain(one.expected[3 + index]) for one in expectations]
    )
    assert right == pytest.approx(np.mean(trace.answer_N == test.labels_N), abs=0.03)


@pytest.mark.parametrize("price", [0.001, 0.02, 0.05])
def test_value_of_escalation_is_its_gain_less_its_cost(
    heads: CorrectnessHeads, price: float
) -> None:
    """The value is the gain of the escalated texts less the price of their attempts."""
    policy = CascadeRouting(heads, COSTS, price)
    for tier in range(2):
        found = policy.typical_escalations(tier)
        assert (found.share_ST >= 0).all()
        assert (found.share_ST[:, : tier + 1] == 0).all()
        assert (found.share_ST.sum(1) <= 1 + 1e-12).all()
        cost_T = [
            price * policy.conditions.cost_lambda(where, float(layers))
            for where, layers in zip(Tier, heads.layers_T2[:, 1], strict=True)
        ]
        value_S = (found.share_ST * (found.gain_ST - cost_T)).sum(1)
        np.testing.assert_allclose(value_S, policy._mean_best_gains(tier), atol=1e-12)
    policy.conditions.up = {Tier.CLOUD: False}
    assert (policy.typical_escalations(1).share_ST == 0).all(), (
        "no text escalates to an unavailable tier"
    )


def test_expected_value_is_that_of_the_better_plan(heads: CorrectnessHeads) -> None:
    """Deciding after each answer is compared with escalating every answer below α."""
    policy, test = CascadeRouting(heads, COSTS, 0.05), toy(200, 8)
    plans = {True: 0, False: 0}
    for i in range(len(test)):
        expectation = policy.expect(test.features(i))
        for tier in range(2):
            confident, lead = expectation.expected[3 + tier], expectation.lead[tier]
            later_sure, later_not = policy._mean_best_gains(tier)
            cost_sure, cost_not = (
                policy.conditions.cost_lambda(list(Tier)[tier], float(n))
                for n in heads.layers_T2[tier]
            )
            decided = min(
                0.0, min(0.0, lead) + confident * later_sure + (1 - confident) * later_not
            )
            decided -= policy.cost_weight * (confident * cost_sure + (1 - confident) * cost_not)
            everything = policy.threshold_plan_target(tier, expectation) is not None
            assert (
                float(policy.expected_value(tier, confident, lead)) > decided + 1e-12
            ) is everything
            plans[everything] += 1
    assert min(plans.values()) > 0, "both plans must win for some texts"

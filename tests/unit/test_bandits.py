"""UCB1 by hand and against its theorem; the rewards of AdaEE and I-SplitEE against eq. 2."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shared.domain import Outcome, Tier
from shared.policies import TextFeatures
from shared.policies.bandits import AdaEE, ISplitEE, Ucb1, thresholds
from shared.pricing.cost_model import CostModel

ANY = TextFeatures(np.zeros(2, np.float32), tokens=5)
PAPER = CostModel.paper(12)  # λm = 1.5, oc + γ = 18
MU = 0.1


def test_ucb1_matches_hand_computed_values() -> None:
    """Two arms with rewards 1, 0, then 0.5 for the first and 1 for the second.

    t = 2: 1 + √(2 ln 2 / 1) = 2.18 against 0 + 1.18: arm 0, which pays 0.5 (mean 0.75).
    t = 3: 0.75 + √(2 ln 3 / 2) = 1.798 against √(2 ln 3) = 1.482: arm 0, pays 0.5 (mean 0.667).
    t = 4: 0.667 + √(2 ln 4 / 3) = 1.628 against √(2 ln 4) = 1.665: arm 1, pays 1 (mean 0.5).
    t = 5: 0.667 + √(2 ln 5 / 3) = 1.702 against 0.5 + √(2 ln 5 / 2) = 1.769: arm 1, pays 1.
    t = 6: 0.667 + √(2 ln 6 / 3) = 1.760 against 0.667 + 1.093: equal, so the first.
    """
    bandit = Ucb1(2)
    chosen = []
    for reward in (1.0, 0.0, 0.5, 0.5, 1.0, 1.0):
        arm = bandit.choose()
        chosen.append(arm)
        bandit.update(arm, reward)
    assert chosen == [0, 1, 0, 0, 1, 1]
    assert bandit.plays == [3, 3]
    assert bandit.means == pytest.approx([2 / 3, 2 / 3])


def test_ucb1_plays_each_arm_once_and_breaks_ties_by_order() -> None:
    bandit = Ucb1(4)
    for arm in range(4):
        assert bandit.choose() == arm
        bandit.update(arm, 0.5)
    assert bandit.choose() == 0


def test_ucb1_regret_is_within_the_bound() -> None:
    """Ten Bernoulli arms, 20,000 plays, five seeds: theorem 1's bound, and the best arm leads.

    Σ 1/Δ = 33.845 and Σ Δ = 3.75: 8 · 9.9035 · 33.845 + 4.2899 · 3.75 = 2,697.6.
    """
    mean_A = np.array([0.9, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    plays = 20_000
    gaps = [0.9 - mean for mean in mean_A[1:]]
    bound = 8 * sum(math.log(plays) / gap for gap in gaps) + (1 + math.pi**2 / 3) * sum(gaps)
    regrets = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        order = rng.permutation(10)
        pays = rng.random(plays)
        bandit = Ucb1(10)
        for pay in pays:
            arm = bandit.choose()
            bandit.update(arm, float(pay < mean_A[order[arm]]))
        played = np.array(bandit.plays)
        regrets.append(float((played * (0.9 - mean_A[order])).sum()))
        assert order[played.argmax()] == 0
    uniform = plays * (0.9 - mean_A).mean()
    assert 0 < np.mean(regrets) <= bound < uniform
    assert bound == pytest.approx(2697.6, abs=0.1)


def test_thresholds_are_the_papers_ten() -> None:
    assert thresholds(2) == pytest.approx([0.5 + i / 18 for i in range(10)])
    assert thresholds(3)[0] == pytest.approx(1 / 3)
    assert thresholds(3)[-1] == 1.0


def test_adaee_reward_is_eq_2() -> None:
    """μ = 0.1, all-cloud 18 λ: exit 2 at 0.95 pays 0.95 − 0.1·3/18; escalated 0.9 − 0.1·21/18."""
    policy = AdaEE(2, PAPER, MU)
    assert (policy.policy_layers, policy.learns) == (None, True)
    first = policy.route(ANY)
    assert (first.tier, first.alpha, first.escalate_to) == (Tier.MOBILE, 0.5, Tier.CLOUD)
    assert (first.first_exit, first.last_layer) == (1, None)
    policy.learn(first, Outcome(Tier.MOBILE, 2, 0.95, 3.0))
    second = policy.route(ANY)
    assert second.alpha == pytest.approx(0.5 + 1 / 18)
    policy.learn(second, Outcome(Tier.CLOUD, 12, 0.9, 3.0 + 18.0))
    assert policy.bandit.means[:2] == pytest.approx([0.95 - 0.3 / 18, 0.9 - 2.1 / 18])
    assert policy.bandit.plays == [1, 1] + [0] * 8


def test_i_splitee_reward_is_eq_2_and_last_layer_does_not_escalate() -> None:
    """Arm i runs i layers and uses exit i only; at i = l no layers are left to offload."""
    policy = ISplitEE(PAPER, MU)
    assert (policy.policy_layers, policy.learns) == (12, True)
    for layer in range(1, 13):
        decision = policy.route(ANY)
        assert (decision.tier, decision.alpha) == (Tier.MOBILE, None)
        assert decision.first_exit == decision.last_layer == layer
        assert decision.escalate_to == (Tier.CLOUD if layer < 12 else None)
        confident = layer % 2 == 0 or layer == 12
        cost = 1.5 * layer + (0 if confident else 18.0)
        tier, exit_layer = (Tier.MOBILE, layer) if confident else (Tier.CLOUD, 12)
        policy.learn(decision, Outcome(tier, exit_layer, 0.8, cost))
    assert policy.bandit.means == pytest.approx(
        [0.8 - 0.1 * (1.5 * i + (0 if i % 2 == 0 else 18)) / 18 for i in range(1, 13)]
    )


def test_late_outcome_updates_the_arm_of_its_decision() -> None:
    policy = AdaEE(2, PAPER, MU)
    fourth, first = policy.decisions[3], policy.decisions[0]
    policy.learn(fourth, Outcome(Tier.MOBILE, 1, 0.7, 0.0))
    policy.learn(first, Outcome(Tier.MOBILE, 1, 0.6, 0.0))
    assert (policy.bandit.means[3], policy.bandit.means[0]) == (0.7, 0.6)

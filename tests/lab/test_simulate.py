"""Simulation on cached samples: answers and costs by hand, baselines, oracles, sweeps."""

from __future__ import annotations

import numpy as np
import pytest

from lab.evaluate import baselines
from lab.evaluate.methods import (
    BASELINE_ROWS,
    PAPER_METHODS,
    TIER_ROWS,
    EvaluationData,
    Scorer,
    traces,
)
from lab.evaluate.pools import make_pools
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import simulate
from lab.evaluate.sweeps import by_alpha, by_cloud_fee, by_layers, by_price, drift, router_auroc
from shared.domain import RoutingDecision, Tier
from shared.policies import POLICY_NAMES, PolicyFacts, TextFeatures, make_policy
from shared.policies.base import StatelessPolicy
from tests.support.toy_samples import COSTS, toy

FACTS = PolicyFacts(
    centroids_DH=np.array([[0, 0], [4, 0], [0, 8]], np.float32),
    counts_D=np.array([3, 1, 1]),
    alpha=0.9,
    mu=0.1,
    classes=2,
    mobile_layers=2,
    cost_model=COSTS,
)
CONFIDENT_AT_3 = np.array([0.6, 0.7, 0.95, 0.8], np.float32)


@pytest.mark.parametrize(
    ("decision", "tier", "exit_layer", "cost"),
    [
        (RoutingDecision(Tier.MOBILE, ""), Tier.MOBILE, 2, 4),  # below α, answered anyway
        (RoutingDecision(Tier.MOBILE, "", alpha=0.6), Tier.MOBILE, 1, 2),
        (RoutingDecision(Tier.MOBILE, "", alpha=0.6, first_exit=2), Tier.MOBILE, 2, 4),
        (RoutingDecision(Tier.MOBILE, "", last_layer=4), Tier.MOBILE, 3, 6),
        (RoutingDecision(Tier.MOBILE, "", first_exit=4, last_layer=4), Tier.MOBILE, 4, 8),
        (RoutingDecision(Tier.MOBILE, "", escalate_to=Tier.CLOUD), Tier.CLOUD, 4, 4 + 8),
        (RoutingDecision(Tier.MOBILE, "", escalate_to=Tier.EDGE), Tier.EDGE, 3, 4 + 3.5),
        (RoutingDecision(Tier.EDGE, ""), Tier.EDGE, 3, 3.5),
        (RoutingDecision(Tier.CLOUD, ""), Tier.CLOUD, 4, 8),
    ],
)
def test_outcome_of_a_decision(
    decision: RoutingDecision, tier: Tier, exit_layer: int, cost: float
) -> None:
    probabilities_NEC = np.stack([CONFIDENT_AT_3, 1 - CONFIDENT_AT_3], -1)[None]
    sample = Samples(
        probabilities_NEC, np.zeros((1, 2), np.float32), np.array([5]), np.array([0]), "d", "m"
    )
    trace = simulate(FixedDecision(decision), sample, FACTS, edge_layers=3)
    assert (trace.tier_N[0], trace.exit_N[0]) == (tier, exit_layer)
    assert trace.cost_N[0] == pytest.approx(cost)


class FixedDecision(StatelessPolicy):
    def __init__(self, decision: RoutingDecision) -> None:
        self.name, self._decision = "once", decision

    def route(self, features: TextFeatures) -> RoutingDecision:
        return self._decision


@pytest.fixture(scope="module")
def data() -> EvaluationData:
    validation, test = toy(600, 1), toy(400, 2)
    return EvaluationData(
        "accuracy", validation, test, make_pools(validation, COSTS, 2, 3, 0.1, alpha=0.9)
    )


def test_every_method_and_row_has_a_trace(data: EvaluationData) -> None:
    assert set(PAPER_METHODS) | set(TIER_ROWS) | {"cascade-routing"} == set(POLICY_NAMES)
    scorer = Scorer(data)
    for name in (*PAPER_METHODS, *TIER_ROWS, *BASELINE_ROWS):
        row = scorer.row(traces(name, data))
        low, high = row["accuracy_interval"]
        assert low <= row["accuracy"] <= high
        assert sum(row["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert scorer.row(traces("cloud", data))["against_cloud_interval"] == [0.0, 0.0]
    assert scorer.row(traces("bert", data))["cost_lambda"] == 8


def test_traces_have_the_order_of_the_samples(
    data: EvaluationData,
) -> None:
    policy = make_policy("dimee-fixed", data.facts)
    in_order = simulate(policy, data.test, data.facts, 3)
    order_N = np.random.default_rng(0).permutation(len(data.test))
    shuffled = simulate(policy, data.test, data.facts, 3, order_N)
    np.testing.assert_array_equal(in_order.exit_N, shuffled.exit_N)
    first, *others = traces("adaee", data)
    assert all((first.exit_N != other.exit_N).any() for other in others), (
        "its result depends on the order"
    )


def test_routers_find_a_difficulty_that_the_features_show(data: EvaluationData) -> None:
    """With clusters at distance 4 and noise 0.5, every router is close to the oracle."""
    truth = np.array(baselines.true_difficulty(data.test, data.pools))
    fixed = traces("dimee-fixed", data)[0].tier_N
    assert np.mean(fixed == truth) > 0.95
    for route in (baselines.by_length, baselines.by_neighbours):
        found = np.array(route(data.validation, data.test, data.pools))
        assert np.mean(found == truth) > 0.95
    scored = router_auroc(data)["mobile_below_alpha"]
    for name in ("length", "nearest centroid", "nearest neighbours", "logistic regression"):
        assert scored[name] > 0.95, name


def test_cheapest_right_oracle_is_right_if_any_tier_is(data: EvaluationData) -> None:
    trace = traces("cheapest-right", data)[0]
    by_tier = [traces(tier, data)[0] for tier in TIER_ROWS]
    labels_N = data.test.labels_N
    any_N = np.any([run.answer_N == labels_N for run in by_tier], 0)
    np.testing.assert_array_equal(trace.answer_N == labels_N, any_N)
    cheapest_N = np.min([run.cost_N for run in by_tier], 0)
    np.testing.assert_allclose(trace.cost_N[~any_N], cheapest_N[~any_N])


def test_random_same_mix_has_the_shares_of_dimee_fixed(data: EvaluationData) -> None:
    shares = traces("dimee-fixed", data)[0].shares
    drawn = [run.shares for run in traces("random-same-mix", data)]
    for tier, share in shares.items():
        assert np.mean([one[tier] for one in drawn]) == pytest.approx(share, abs=0.05)


def test_price_of_a_mobile_layer_changes_only_the_mobile_tier(data: EvaluationData) -> None:
    """Figure 3's sweep of λm."""
    rows = by_price(data)["mobile_layer"]
    mobile = [rows[factor]["methods"]["mobile"]["cost_lambda"] for factor in ("0.25", "1.0", "4.0")]
    assert mobile[0] < mobile[1] < mobile[2]
    cloud = {rows[factor]["methods"]["cloud"]["cost_lambda"] for factor in rows}
    assert cloud == {8.0}


def test_sign_of_the_saving_depends_on_gamma(data: EvaluationData) -> None:
    sweep = by_cloud_fee(data)
    changes = [sweep[gamma]["methods"]["mobile"]["cost_change"] for gamma in ("1.0", "30.0")]
    assert changes[0] > 0 > changes[1]


def test_higher_alpha_never_enlarges_the_easy_pool(data: EvaluationData) -> None:
    rows = by_alpha(data, Scorer(data))
    easy = [rows[alpha]["pools"]["easy"] for alpha in rows]
    assert easy == sorted(easy, reverse=True)
    assert {(row["m"], row["n"]) for row in by_layers(data, Scorer(data))} == {
        (1, 2), (1, 3), (2, 3),
    }  # fmt: skip


def test_drift_by_hand() -> None:
    """One pool of 4 at 0 and one of 2 at 10; a sample at 5 − ε moves the first by a fifth of it."""
    validation = toy(50, 3)
    pools = make_pools(validation, COSTS, 2, 3, 0.1, alpha=0.9)
    centroids_DH = np.array([[0, 0], [10, 0], [np.nan, np.nan]], np.float32)
    object.__setattr__(pools, "centroids_DH", centroids_DH)
    object.__setattr__(pools, "counts_D", np.array([4, 2, 0]))
    test = toy(1, 4)
    test.embedding_NH[0] = (4, 0)
    moved = drift(EvaluationData("accuracy", validation, test, pools))
    assert moved["moved"] == {"1": [pytest.approx(0.08), 0.0, None]}

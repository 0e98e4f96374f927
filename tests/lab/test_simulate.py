"""Policies over cached samples: answers and bills worked by hand, rivals, oracles."""

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
SURE_AT_3 = np.array([0.6, 0.7, 0.95, 0.8], np.float32)


@pytest.mark.parametrize(
    ("decision", "tier", "exit_layer", "cost"),
    [
        (RoutingDecision(Tier.MOBILE, ""), Tier.MOBILE, 2, 4),  # not sure, answered all the same
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
def test_what_comes_of_a_decision(
    decision: RoutingDecision, tier: Tier, exit_layer: int, cost: float
) -> None:
    probabilities_NEC = np.stack([SURE_AT_3, 1 - SURE_AT_3], -1)[None]
    sample = Samples(
        probabilities_NEC, np.zeros((1, 2), np.float32), np.array([5]), np.array([0]), "d", "m"
    )
    trace = simulate(_Once(decision), sample, FACTS, edge_layers=3)
    assert (trace.tier_N[0], trace.exit_N[0]) == (tier, exit_layer)
    assert trace.cost_N[0] == pytest.approx(cost)


class _Once(StatelessPolicy):
    def __init__(self, decision: RoutingDecision) -> None:
        self.name, self._decision = "once", decision

    def route(self, features: TextFeatures) -> RoutingDecision:
        return self._decision


@pytest.fixture(scope="module")
def judged() -> EvaluationData:
    validation, test = toy(600, 1), toy(400, 2)
    return EvaluationData(
        "sst2", validation, test, make_pools(validation, COSTS, 2, 3, 0.1, alpha=0.9)
    )


def test_every_method_and_row_has_a_trace(judged: EvaluationData) -> None:
    assert set(PAPER_METHODS) | set(TIER_ROWS) | {"cascade-routing"} == set(POLICY_NAMES)
    scorer = Scorer(judged)
    for name in (*PAPER_METHODS, *TIER_ROWS, *BASELINE_ROWS):
        row = scorer.row(traces(name, judged))
        low, high = row["accuracy_interval"]
        assert low <= row["accuracy"] <= high
        assert sum(row["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert scorer.row(traces("cloud", judged))["against_cloud_interval"] == [0.0, 0.0]
    assert scorer.row(traces("bert", judged))["cost_lambda"] == 8


def test_traces_are_in_the_samples_order_whatever_the_order_they_came_in(
    judged: EvaluationData,
) -> None:
    policy = make_policy("dimee-fixed", judged.facts)
    straight = simulate(policy, judged.test, judged.facts, 3)
    order_N = np.random.default_rng(0).permutation(len(judged.test))
    shuffled = simulate(policy, judged.test, judged.facts, 3, order_N)
    np.testing.assert_array_equal(straight.exit_N, shuffled.exit_N)
    first, *others = traces("adaee", judged)
    assert all((first.exit_N != other.exit_N).any() for other in others), "order matters to it"


def test_where_difficulty_shows_the_routers_find_it(judged: EvaluationData) -> None:
    """Clusters 4 apart with noise 0.5: every router must be nearly the oracle."""
    truth = np.array(baselines.true_difficulty(judged.test, judged.pools))
    fixed = traces("dimee-fixed", judged)[0].tier_N
    assert np.mean(fixed == truth) > 0.95
    for rival in (baselines.by_length, baselines.by_neighbours):
        found = np.array(rival(judged.validation, judged.test, judged.pools))
        assert np.mean(found == truth) > 0.95
    scored = router_auroc(judged)["mobile_below_alpha"]
    for name in ("length", "nearest centroid", "nearest neighbours", "logistic regression"):
        assert scored[name] > 0.95, name


def test_the_cheapest_right_oracle_is_right_wherever_any_tier_is(judged: EvaluationData) -> None:
    trace = traces("cheapest-right", judged)[0]
    by_tier = [traces(tier, judged)[0] for tier in TIER_ROWS]
    labels_N = judged.test.labels_N
    any_N = np.any([run.answer_N == labels_N for run in by_tier], 0)
    np.testing.assert_array_equal(trace.answer_N == labels_N, any_N)
    cheapest_N = np.min([run.cost_N for run in by_tier], 0)
    np.testing.assert_allclose(trace.cost_N[~any_N], cheapest_N[~any_N])


def test_random_at_the_same_mix_has_that_mix(judged: EvaluationData) -> None:
    mix = traces("dimee-fixed", judged)[0].shares
    drawn = [run.shares for run in traces("random-same-mix", judged)]
    for tier, share in mix.items():
        assert np.mean([one[tier] for one in drawn]) == pytest.approx(share, abs=0.05)


def test_an_oracle_on_prices_moves_when_a_price_does(judged: EvaluationData) -> None:
    """Figure 3's sweep: a dearer mobile layer makes `mobile` dearer, and no tier else."""
    rows = by_price(judged)["mobile_layer"]
    mobile = [rows[factor]["methods"]["mobile"]["cost_lambda"] for factor in ("0.25", "1.0", "4.0")]
    assert mobile[0] < mobile[1] < mobile[2]
    cloud = {rows[factor]["methods"]["cloud"]["cost_lambda"] for factor in rows}
    assert cloud == {8.0}


def test_the_sign_of_the_saving_hangs_on_gamma(judged: EvaluationData) -> None:
    sweep = by_cloud_fee(judged)
    saved = [sweep[gamma]["methods"]["mobile"]["cost_change"] for gamma in ("1.0", "30.0")]
    assert saved[0] > 0 > saved[1]


def test_higher_alpha_never_moves_a_sample_to_an_easier_pool(judged: EvaluationData) -> None:
    rows = by_alpha(judged, Scorer(judged))
    easy = [rows[alpha]["pools"]["easy"] for alpha in rows]
    assert easy == sorted(easy, reverse=True)
    assert {(row["m"], row["n"]) for row in by_layers(judged, Scorer(judged))} == {
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
    moved = drift(EvaluationData("sst2", validation, test, pools))
    assert moved["moved"] == {"1": [pytest.approx(0.08), 0.0, None]}

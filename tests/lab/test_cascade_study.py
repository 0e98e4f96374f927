"""Cascade routing: fitting, cross-fitting, default setting, and the study."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.data.examples import Example
from lab.evaluate.cascade_study import cascade_study, pair_auroc
from lab.evaluate.cascade_sweep import CascadeSweep
from lab.evaluate.choose_lambda import (
    DEFAULT_LIMIT,
    FOLDS,
    CrossFitted,
    DropLimit,
    Setting,
    ValidatedSetting,
    all_cloud_accuracy,
    assign_folds,
    cascade_trace,
    fit_default_heads,
    standard_error,
)
from lab.evaluate.fit_heads import fit_embedding_classifier, fit_heads
from lab.evaluate.groups import groups_of
from lab.evaluate.methods import PAPER_METHODS, EvaluationData, Scorer
from lab.evaluate.pools import Pools, make_pools
from lab.evaluate.samples import Samples
from shared.bundle.correctness_heads import CorrectnessHeads
from shared.bundle.pair_features import PAIR_FEATURES
from shared.domain import Tier
from shared.errors import BundleError, InvalidInput
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.cost_model import CostModel
from tests.support.toy_samples import COSTS, toy

EMBEDDING_CLASSIFIER = (np.array([[0.5, -0.5], [0.1, -0.1]]), np.zeros(2))


@pytest.fixture(scope="module")
def validation() -> Samples:
    return toy(600, 1)


@pytest.fixture(scope="module")
def pools(validation: Samples) -> Pools:
    return make_pools(validation, COSTS, 2, 3, 0.1, alpha=0.9)


@pytest.fixture(scope="module")
def heads(validation: Samples, pools: Pools) -> CorrectnessHeads:
    return fit_heads(EMBEDDING_CLASSIFIER, validation, pools)


@pytest.fixture(scope="module")
def fitted(validation: Samples, pools: Pools) -> CrossFitted:
    return CrossFitted(EMBEDDING_CLASSIFIER, validation, pools)


def test_cascade_saves_where_features_show_the_difficulty(
    validation: Samples, pools: Pools
) -> None:
    made, chosen = fit_default_heads(EMBEDDING_CLASSIFIER, validation, pools, DropLimit())
    assert chosen.drop <= 0 < -chosen.cost_change
    test = toy(2000, 2)
    trace = cascade_trace(made, float(made.cost_weight), test, pools)
    right = np.mean(trace.answer_N == test.labels_N)
    assert right >= all_cloud_accuracy(test) - 0.02
    assert trace.cost_N.mean() < 0.75 * COSTS.all_cloud


def test_higher_price_never_raises_the_cost(heads: CorrectnessHeads, pools: Pools) -> None:
    test = toy(400, 3)
    costs = [
        cascade_trace(heads, price, test, pools).cost_N.mean() for price in (0.001, 0.01, 0.05, 0.5)
    ]
    assert costs == sorted(costs, reverse=True)


def test_heads_equal_those_read_from_a_file(heads: CorrectnessHeads) -> None:
    loaded = CorrectnessHeads.from_arrays(dict(heads.to_arrays()))
    assert loaded is not None
    np.testing.assert_array_equal(loaded.weight_FK, heads.weight_FK)
    assert CorrectnessHeads.from_arrays({"centroids": np.zeros(3)}) is None
    broken = dict(heads.to_arrays())
    del broken["heads_price"]
    with pytest.raises(BundleError, match="router lacks 'heads_price'"):
        CorrectnessHeads.from_arrays(broken)
    with pytest.raises(BundleError, match="not finite"):
        CorrectnessHeads.from_arrays(heads.to_arrays() | {"heads_bias_K": np.full(5, np.nan)})


def test_policy_without_heads_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no correctness heads"):
        CascadeRouting(None, COSTS)


def test_doubled_cloud_fee_changes_the_next_decision(heads: CorrectnessHeads, pools: Pools) -> None:
    """The same policy object uses the current prices."""
    policy = CascadeRouting(heads, COSTS, cost_weight=0.02)
    test = toy(300, 5)
    before = [policy.route(test.features(i)).tier for i in range(len(test))]
    assert Tier.CLOUD in before
    policy.conditions.cost_model = replace(COSTS, cloud_fee=2 * COSTS.cloud_fee + COSTS.layers)
    after = [policy.route(test.features(i)).tier for i in range(len(test))]
    assert after.count(Tier.CLOUD) < before.count(Tier.CLOUD)


def test_unavailable_and_too_slow_tiers_are_not_chosen(heads: CorrectnessHeads) -> None:
    test = toy(200, 6)
    policy = CascadeRouting(heads, COSTS, cost_weight=0.02)
    policy.conditions.up[Tier.EDGE] = False
    policy.conditions.left_ms = 100
    policy.conditions.delay_ms[Tier.CLOUD] = 150
    assert {policy.route(test.features(i)).tier for i in range(len(test))} == {Tier.MOBILE}


@settings(max_examples=60, deadline=None)
@given(
    price=st.floats(0.0005, 0.1),
    factor=st.floats(1.0, 20.0),
    index=st.integers(0, 199),
    changed=st.sampled_from(list(Tier)),
)
def test_tier_is_not_chosen_because_it_became_more_expensive(
    price: float, factor: float, index: int, changed: Tier
) -> None:
    """A tier that was not chosen is not chosen after its own price has risen."""
    features = PROPERTY_TEST.features(index)
    policy = CascadeRouting(PROPERTY_HEADS, COSTS, price)
    before = policy.route(features).tier
    name = {Tier.MOBILE: "mobile_layer", Tier.EDGE: "offload_edge", Tier.CLOUD: "cloud_fee"}[
        changed
    ]
    prices: dict[str, float] = {name: getattr(COSTS, name) * factor}
    policy.conditions.cost_model = replace(COSTS, **prices)
    after = policy.route(features).tier
    if changed is Tier.MOBILE and before is not Tier.MOBILE:
        assert after is not Tier.MOBILE
    if changed is Tier.CLOUD and before is not Tier.CLOUD:
        assert after is not Tier.CLOUD


PROPERTY_TEST = toy(200, 8)
PROPERTY_HEADS = fit_heads(
    EMBEDDING_CLASSIFIER, toy(400, 9), make_pools(toy(400, 9), COSTS, 2, 3, 0.1, alpha=0.9)
)


def test_cross_fitting_measures_each_example_once(fitted: CrossFitted) -> None:
    run = fitted.run(Setting(0.01, 0.9), COSTS)
    assert (run["cost"] > 0).all()
    cheap = fitted.choose(0.0)
    assert fitted.run(cheap, COSTS)["cost"].mean() <= run["cost"].mean()


def test_embedding_classifier_of_two_and_three_classes() -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 3):
        labels_N = rng.integers(0, classes, 300)
        x_NH = np.eye(3)[labels_N] + rng.normal(0, 0.1, (300, 3))
        weight_HC, bias_C = fit_embedding_classifier(x_NH.astype(np.float32), labels_N)
        assert weight_HC.shape == (3, classes)
        assert np.mean((x_NH @ weight_HC + bias_C).argmax(1) == labels_N) > 0.98


def test_study_has_every_part(validation: Samples, pools: Pools) -> None:
    data = EvaluationData("accuracy", validation, toy(300, 2), pools)
    model = CostModel.paper(4)
    data = replace(data, pools=replace(pools, cost_model=model))
    study = cascade_study(data, Scorer(data), EMBEDDING_CLASSIFIER)
    assert set(study) == {
        "chosen", "frontier", "auroc", "comparisons", "ablation", "pair_features"
    }  # fmt: skip
    assert set(study["comparisons"]) == {"3.0", "5.0", "9.0", "15.0", "20.0", "30.0"}
    assert set(study["comparisons"]["15.0"]) == set(PAPER_METHODS)
    assert study["pair_features"] is None
    assert set(study["chosen"]) == {"0.0", "0.3", "0.5", "default"}


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("price", [0.0, 0.002, 0.01, 0.02])
def test_sweep_and_policy_decide_alike(price: float, pairs: bool, pools: Pools) -> None:
    validation, test = toy(500, 11), toy(300, 12)
    if pairs:
        validation, test = with_pairs(validation), with_pairs(test)
    heads = fit_heads(EMBEDDING_CLASSIFIER, validation, pools)
    assert heads.reads_pairs is pairs
    swept = CascadeSweep(heads, test, pools).run(price, COSTS)
    live = cascade_trace(heads, price, test, pools)
    assert swept.tier_N.tolist() == live.tier_N.tolist()
    np.testing.assert_array_equal(swept.exit_N, live.exit_N)
    np.testing.assert_array_equal(swept.answer_N, live.answer_N)
    np.testing.assert_allclose(swept.cost_N, live.cost_N)
    if price:
        assert len(set(swept.tier_N)) > 1, "all texts at one tier would test nothing"


def test_heads_of_answers_start_every_text_at_one_tier(pools: Pools) -> None:
    """They use the confidence of answers alone, which is unknown before the first answer."""
    heads = fit_heads(EMBEDDING_CLASSIFIER, toy(500, 11), pools, "answers")
    policy = CascadeRouting(heads, COSTS, cost_weight=0.01)
    test = toy(200, 12)
    assert len({policy.route(test.features(i)).tier for i in range(len(test))}) == 1
    swept = CascadeSweep(heads, test, pools).run(0.01, COSTS)
    live = cascade_trace(heads, 0.01, test, pools)
    assert swept.tier_N.tolist() == live.tier_N.tolist()
    assert len(set(live.tier_N)) > 1, "nothing was escalated"


def test_unknown_features_count_as_their_mean(pools: Pools) -> None:
    heads = fit_heads(EMBEDDING_CLASSIFIER, with_pairs(toy(500, 11)), pools)
    unknown_F = np.full(len(heads.mean_F), np.nan)
    np.testing.assert_array_equal(heads.expect(unknown_F), heads.expect(heads.mean_F))
    np.testing.assert_array_equal(heads.lead(unknown_F), heads.lead(heads.mean_F))


def test_too_few_groups_are_refused(pools: Pools) -> None:
    few = replace(toy(500, 11), group_N=np.arange(500) % (FOLDS - 1))
    with pytest.raises(InvalidInput, match="form fewer than 5 groups"):
        CrossFitted(EMBEDDING_CLASSIFIER, few, pools)


def with_pairs(samples: Samples) -> Samples:
    """Return the samples with features of pairs, the first of which shows the difficulty."""
    rng = np.random.default_rng(len(samples))
    pair_NP = rng.normal(0, 1, (len(samples), len(PAIR_FEATURES)))
    pair_NP[:, 0] = samples.embedding_NH[:, 0]
    return replace(samples, pair_NP=pair_NP)


def test_pair_features_add_what_the_embedding_lacks(pools: Pools) -> None:
    """The embedding is noise; the first feature of the pair shows the difficulty."""

    def with_noise(samples: Samples) -> Samples:
        noise_NH = np.random.default_rng(1).normal(0, 1, samples.embedding_NH.shape)
        return replace(
            with_pairs(samples),
            embedding_NH=noise_NH.astype(np.float32),
            tokens_N=np.full(len(samples), 9),
        )

    data = EvaluationData("f1", with_noise(toy(600, 1)), with_noise(toy(600, 2)), pools)
    found = pair_auroc(data, EMBEDDING_CLASSIFIER)
    assert found is not None
    assert found["before"]["edge_confident"] < 0.7 < 0.9 < found["after"]["edge_confident"]


def test_limit_includes_its_margin_and_the_longer_half() -> None:
    tokens_N = np.arange(100)
    loss_N = np.where(tokens_N >= 90, 2.0, 0.0)  # 0.2 points on average, all in long texts
    samples = replace(toy(100, 1), tokens_N=tokens_N)
    measured = ValidatedSetting.of(Setting(0.01, 0.9), loss_N, samples, -50.0)
    error = float(loss_N.std()) / 10
    assert (measured.drop, measured.long_drop, measured.drop_error) == pytest.approx(
        (0.2, 0.4, error)
    )
    assert measured.meets(DropLimit(0.21))
    assert not measured.meets(DropLimit(0.19))
    assert not measured.meets(DropLimit(0.21, standard_errors=1.0))
    assert measured.meets(DropLimit(0.21 + error, standard_errors=1.0))
    assert not measured.meets(DropLimit(0.39, longer_half=True))
    assert measured.meets(DropLimit(0.41, longer_half=True))


def test_groups_stay_in_one_fold_and_folds_are_even() -> None:
    group_N = np.random.default_rng(3).integers(0, 60, 500)
    fold_N = assign_folds(replace(toy(500, 1), group_N=group_N))
    for group in range(60):
        assert len(set(fold_N[group_N == group])) == 1
    assert np.ptp(np.bincount(fold_N)) < 30
    assert sorted(set(assign_folds(toy(500, 1)))) == list(range(FOLDS))


def test_standard_error_counts_a_group_as_one_draw() -> None:
    """Four copies of each loss have the error of one copy."""
    loss_N = np.random.default_rng(1).normal(0, 1, 100)
    alone = standard_error(loss_N, None)
    copied = standard_error(np.tile(loss_N, 4), np.tile(np.arange(100), 4))
    assert alone == pytest.approx(loss_N.std() / 10)
    assert copied == pytest.approx(alone)


def test_groups_of_phrases_sentences_and_pairs() -> None:
    sentence = "one two three four five six seven eight nine ten"
    rows = [
        Example("three four", None, 0),
        Example(sentence, None, 0),
        Example(f"zero {sentence[4:]}", None, 1),  # shares eight consecutive words with it
        Example("quite another text", None, 1),
        Example("another", None, 1),
    ]
    group_N = groups_of(rows)
    assert group_N[0] == group_N[1] == group_N[2]
    assert group_N[3] == group_N[4] != group_N[0]
    first = "a b c d e f g h 1 1 1 1"
    second = "q r s t u v w x 2 2 2 2"
    both = "a b c d e f g h q r s t u v w x"  # shares eight words with each of them
    joined = [Example(text, None, 0) for text in (first, second, both)]
    assert len(set(groups_of(joined).tolist())) == 1
    pairs = [Example("a", "b", 0), Example("b", "c", 0), Example("d", "e", 1)]
    assert groups_of(pairs).tolist() == [0, 0, 1]


def test_all_cloud_meets_every_limit(fitted: CrossFitted) -> None:
    strict = replace(DEFAULT_LIMIT, max_drop=0.0, standard_errors=50.0)
    assert fitted.choose_within(strict).setting.price == 0.0

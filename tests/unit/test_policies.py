"""The paper's policies match hand-computed examples."""

from __future__ import annotations

import numpy as np
import pytest

from shared.bundle.loading import Bundle
from shared.domain import Difficulty, Tier
from shared.errors import BundleError, InvalidInput
from shared.policies import POLICY_NAMES, PolicyFacts, TextFeatures, make_policy
from shared.policies.centroids import DimeeAdaptive, DimeeFixed
from shared.policies.static import Random

CENTROIDS = np.array([[0, 0], [4, 0], [0, 8]], np.float32)
COUNTS = np.array([3, 1, 1])


def at(*point: float) -> TextFeatures:
    """Return the features of a text whose mean word embedding is this point."""
    return TextFeatures(np.array(point, np.float32), tokens=5)


def test_fixed_chooses_the_nearest_centroid_without_moving_it() -> None:
    policy = DimeeFixed(CENTROIDS, COUNTS)
    for point, tier, difficulty in (
        ((1, 0), Tier.MOBILE, Difficulty.EASY),
        ((3, 1), Tier.EDGE, Difficulty.MODERATE),
        ((1, 7), Tier.CLOUD, Difficulty.HARD),
    ):
        decision = policy.route(at(*point))
        assert (decision.tier, decision.difficulty) == (tier, difficulty)
    assert decision.distances == pytest.approx((50**0.5, 58**0.5, 2**0.5))
    np.testing.assert_array_equal(policy.centroids_DH, CENTROIDS)


def test_tie_goes_to_the_easier_pool() -> None:
    assert DimeeFixed(CENTROIDS, COUNTS).route(at(2, 0)).tier is Tier.MOBILE


def test_adaptive_moves_the_chosen_centroid_as_a_running_mean() -> None:
    """Algorithm 2 by hand: (3·(0,0) + (1,2)) / 4, then (4·(0.25,0.5) + (0.25,1.5)) / 5."""
    policy = DimeeAdaptive(CENTROIDS, COUNTS)
    policy.route(at(1, 2))
    np.testing.assert_allclose(policy.centroids_DH[0], [0.25, 0.5])
    policy.route(at(0.25, 1.5))
    np.testing.assert_allclose(policy.centroids_DH[0], [0.25, 0.7])
    np.testing.assert_array_equal(policy.counts_D, [5, 1, 1])
    np.testing.assert_array_equal(policy.centroids_DH[1:], CENTROIDS[1:])
    np.testing.assert_array_equal(COUNTS, [3, 1, 1])


def test_adaptive_decides_before_it_updates() -> None:
    """With one sample in the moderate pool, a point at (2.1, 0) pulls it to (3.05, 0)."""
    policy = DimeeAdaptive(CENTROIDS, COUNTS)
    assert policy.route(at(2.1, 0)).tier is Tier.EDGE
    np.testing.assert_allclose(policy.centroids_DH[1], [3.05, 0], rtol=1e-6)
    assert policy.route(at(1.6, 0)).tier is Tier.EDGE
    assert DimeeFixed(CENTROIDS, COUNTS).route(at(1.6, 0)).tier is Tier.MOBILE


def test_empty_pool_is_never_chosen() -> None:
    centroids = CENTROIDS.copy()
    centroids[1] = np.nan
    policy = DimeeAdaptive(centroids, np.array([3, 0, 1]))
    assert policy.route(at(4, 0)).tier is Tier.MOBILE


def test_all_empty_pools_are_rejected() -> None:
    with pytest.raises(BundleError, match="every pool of the router is empty"):
        DimeeFixed(CENTROIDS, np.zeros(3, np.int64))


def test_random_is_seeded_and_uses_every_tier() -> None:
    point = at(0, 0)
    first = [Random(7).route(point).tier for _ in range(1)]
    one, other = Random(7), Random(7)
    tiers = [one.route(point).tier for _ in range(300)]
    assert tiers == [other.route(point).tier for _ in range(300)]
    assert tiers[:1] == first
    assert all(70 < tiers.count(tier) < 130 for tier in Tier)


def test_random_follows_given_shares() -> None:
    policy = Random(7, shares=(0.8, 0.2, 0.0))
    tiers = [policy.route(at(0, 0)).tier for _ in range(1000)]
    assert tiers.count(Tier.CLOUD) == 0
    assert 760 < tiers.count(Tier.MOBILE) < 840


def test_bert_and_early_exit_always_choose_the_mobile(bundle: Bundle) -> None:
    """``bert`` uses exit l only, ``early-exit`` every exit; neither leaves the mobile."""
    facts = PolicyFacts.of(bundle)
    layers = bundle.manifest.layers
    for name, first_exit in (("bert", layers), ("early-exit", 1)):
        policy = make_policy(name, facts)
        decision = policy.route(at(0, 0))
        assert (decision.tier, decision.escalate_to) == (Tier.MOBILE, None)
        assert (decision.first_exit, decision.last_layer) == (first_exit, layers)
        assert (decision.alpha, policy.policy_layers, policy.learns) == (None, layers, False)


def test_registry_builds_every_policy_by_name(bundle: Bundle) -> None:
    facts = PolicyFacts.of(bundle)
    features = TextFeatures(np.zeros(bundle.manifest.hidden_size, np.float32), tokens=5)
    for name in POLICY_NAMES:
        policy = make_policy(name, facts)
        assert policy.name == policy.route(features).policy == name


def test_policy_facts_come_from_the_bundle(bundle: Bundle) -> None:
    manifest = bundle.manifest
    facts = PolicyFacts.of(bundle)
    assert (facts.alpha, facts.mu, facts.classes) == (manifest.alpha, manifest.mu, 2)
    assert facts.mobile_layers == manifest.mobile_layers
    assert PolicyFacts.of(bundle, 1).mobile_layers == 1


def test_unknown_policy_error_lists_the_names(bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match="dimee-adaptive"):
        make_policy("nearest", PolicyFacts.of(bundle))

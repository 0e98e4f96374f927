"""The paper's policies against examples worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from shared.bundle import Bundle
from shared.domain import Difficulty, Tier
from shared.errors import BundleError, InvalidInput
from shared.policies import POLICY_NAMES, make_policy
from shared.policies.centroids import DimeeAdaptive, DimeeFixed
from shared.policies.simple import Random

CENTROIDS = np.array([[0, 0], [4, 0], [0, 8]], np.float32)
COUNTS = np.array([3, 1, 1])


def test_fixed_takes_the_nearest_centroid_and_keeps_it() -> None:
    policy = DimeeFixed(CENTROIDS, COUNTS)
    for point, tier, difficulty in (
        ((1, 0), Tier.MOBILE, Difficulty.EASY),
        ((3, 1), Tier.EDGE, Difficulty.MODERATE),
        ((1, 7), Tier.CLOUD, Difficulty.HARD),
    ):
        decision = policy.route(np.array(point, np.float32))
        assert (decision.tier, decision.difficulty) == (tier, difficulty)
    assert decision.distances == pytest.approx((50**0.5, 58**0.5, 2**0.5))
    np.testing.assert_array_equal(policy.centroids_DH, CENTROIDS)


def test_a_tie_goes_to_the_easier_pool() -> None:
    assert DimeeFixed(CENTROIDS, COUNTS).route(np.array([2, 0], np.float32)).tier is Tier.MOBILE


def test_adaptive_moves_the_chosen_centroid_as_a_running_mean() -> None:
    """Algorithm 2 by hand: (3·(0,0) + (1,2)) / 4, then (4·(0.25,0.5) + (0.25,1.5)) / 5."""
    policy = DimeeAdaptive(CENTROIDS, COUNTS)
    policy.route(np.array([1, 2], np.float32))
    np.testing.assert_allclose(policy.centroids_DH[0], [0.25, 0.5])
    policy.route(np.array([0.25, 1.5], np.float32))
    np.testing.assert_allclose(policy.centroids_DH[0], [0.25, 0.7])
    np.testing.assert_array_equal(policy.counts_D, [5, 1, 1])
    np.testing.assert_array_equal(policy.centroids_DH[1:], CENTROIDS[1:])
    np.testing.assert_array_equal(COUNTS, [3, 1, 1])


def test_adaptive_decides_before_it_learns_and_order_matters() -> None:
    """With one sample in the moderate pool, a point at (2.1, 0) pulls it to (3.05, 0)."""
    policy = DimeeAdaptive(CENTROIDS, COUNTS)
    assert policy.route(np.array([2.1, 0], np.float32)).tier is Tier.EDGE
    np.testing.assert_allclose(policy.centroids_DH[1], [3.05, 0], rtol=1e-6)
    assert policy.route(np.array([1.6, 0], np.float32)).tier is Tier.EDGE
    assert DimeeFixed(CENTROIDS, COUNTS).route(np.array([1.6, 0], np.float32)).tier is Tier.MOBILE


def test_an_empty_pool_is_never_chosen() -> None:
    centroids = CENTROIDS.copy()
    centroids[1] = np.nan
    policy = DimeeAdaptive(centroids, np.array([3, 0, 1]))
    assert policy.route(np.array([4, 0], np.float32)).tier is Tier.MOBILE


def test_pools_that_are_all_empty_are_refused() -> None:
    with pytest.raises(BundleError, match="every pool is empty"):
        DimeeFixed(CENTROIDS, np.zeros(3, np.int64))


def test_random_is_seeded_and_uses_every_tier() -> None:
    point = np.zeros(2, np.float32)
    first = [Random(7).route(point).tier for _ in range(1)]
    one, other = Random(7), Random(7)
    tiers = [one.route(point).tier for _ in range(300)]
    assert tiers == [other.route(point).tier for _ in range(300)]
    assert tiers[:1] == first
    assert all(70 < tiers.count(tier) < 130 for tier in Tier)


def test_every_name_makes_a_policy_of_that_name(bundle: Bundle) -> None:
    assert [make_policy(name, bundle).name for name in POLICY_NAMES] == list(POLICY_NAMES)


def test_an_unknown_name_is_refused_with_the_known_ones(bundle: Bundle) -> None:
    with pytest.raises(InvalidInput, match="dimee-adaptive"):
        make_policy("nearest", bundle)

"""Algorithm 1 and eqs. 2 and 3 against examples worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lab.evaluate.pools import make_pools
from lab.evaluate.reward import assign_pools, best, candidates, costs, rewards
from lab.evaluate.samples import Samples
from shared.errors import InvalidInput
from shared.pricing.cost_model import CostModel

MODEL = CostModel(
    mobile_layer=1, edge_layer=0.5, offload_edge=2, offload_cloud=3, cloud_fee=7, layers=4
)
# four exits and four samples, with m = 1 and n = 3
CONFIDENCE_EN = np.array(
    [[0.9, 0.6, 0.6, 0.5], [0.8, 0.7, 0.6, 0.6], [0.7, 0.9, 0.7, 0.7], [1.0, 1.0, 0.9, 0.8]],
    np.float32,
)


def test_algorithm_1() -> None:
    assignment = assign_pools(CONFIDENCE_EN, 0.9, mobile_layers=1, edge_layers=3)
    assert assignment.pool_N.tolist() == [0, 1, 2, 2]
    assert assignment.exit_N.tolist() == [1, 3, 4, 4]


def test_confidence_equal_to_alpha_exits() -> None:
    assert assign_pools(np.array([[0.75], [0.9]], np.float32), 0.75, 1, 2).pool_N.tolist() == [0]


def test_eq_2() -> None:
    """μ = 0.5, all-cloud 10: easy 0.9 − 0.5·1/10, moderate 0.9 − 0.5·3.5/10, hard C − 0.5."""
    assignment = assign_pools(CONFIDENCE_EN, 0.9, 1, 3)
    assert costs(assignment, MODEL).tolist() == [1, 3.5, 10, 10]
    reward = rewards(CONFIDENCE_EN, assignment, MODEL, mu=0.5)
    np.testing.assert_allclose(reward, [0.85, 0.725, 0.4, 0.3], atol=1e-6)


def test_eq_3_over_ten_equidistant_alphas() -> None:
    options = candidates(CONFIDENCE_EN, 2, MODEL, 0.5, 1, 3)
    assert [option.alpha for option in options] == pytest.approx(
        [0.5 + i * 0.5 / 9 for i in range(10)]
    )
    at_lowest = options[0]
    assert at_lowest.pool_sizes == (4, 0, 0)
    assert at_lowest.expected_reward == pytest.approx((0.9 + 0.6 + 0.6 + 0.5) / 4 - 0.05)
    assert best(options).expected_reward == max(option.expected_reward for option in options)


EMBEDDING_NH = np.array([[1, 0], [3, 0], [5, 2], [7, 4]], np.float32)


def _samples(labels: list[int]) -> Samples:
    other_NE = 1 - CONFIDENCE_EN.T
    probabilities_NEC = np.stack([CONFIDENCE_EN.T, other_NE], -1)
    return Samples(
        probabilities_NEC, EMBEDDING_NH, np.full(4, 9), np.array(labels), "data", "model"
    )


def test_centroids_are_the_means_of_their_pools() -> None:
    pools = make_pools(_samples([0, 1, 0, 1]), MODEL, 1, 3, mu=100.0)
    assignment = assign_pools(CONFIDENCE_EN, pools.alpha, 1, 3)
    for pool in range(3):
        members = EMBEDDING_NH[assignment.pool_N == pool]
        assert pools.counts_D[pool] == len(members)
        if len(members):
            np.testing.assert_allclose(pools.centroids_DH[pool], members.mean(0))
        else:
            assert np.isnan(pools.centroids_DH[pool]).all()
    assert pools.empty, "at this μ everything stays on the mobile"


def test_missing_class_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no example of class 1"):
        make_pools(_samples([0, 0, 0, 0]), MODEL, 1, 3, 0.1)


def test_wrong_layers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="1 <= m < n <= 4"):
        make_pools(_samples([0, 1, 0, 1]), MODEL, 3, 3, 0.1)

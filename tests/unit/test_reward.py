"""Eqs. 2 and 3 and the placement of Algorithm 1, against an example worked out by hand.

m = 1, n = 2, l = 3; λm = 2, λe = 1, oe = 3, oc = 5, γ = 5, so all-cloud costs 10; μ = 0.1.
An answer costs 2 at exit 1 on the phone, 3 + 2·1 = 5 at exit 2 on the edge, 10 in the cloud.
"""

from __future__ import annotations

import numpy as np
import pytest

from lab.reward import Candidate, best, candidates, costs, place, rewards
from shared.cost import CostModel

COSTS = CostModel(
    mobile_layer=2, edge_layer=1, offload_edge=3, offload_cloud=5, cloud_fee=5, layers=3
)
MU = 0.1
CONFIDENCE_EN = np.array([[0.90, 0.6, 0.60], [0.95, 0.8, 0.70], [0.99, 0.9, 0.75]], np.float32)


def test_algorithm_1_places_each_sample_at_its_first_confident_exit() -> None:
    placement = place(CONFIDENCE_EN, 0.8, mobile_layers=1, edge_layers=2)
    assert placement.pool_N.tolist() == [0, 1, 2]  # easy, moderate (0.8 is enough), hard
    assert placement.exit_N.tolist() == [1, 2, 3]


def test_a_sample_that_is_confident_only_beyond_the_edge_is_hard() -> None:
    confidence_EN = np.array([[0.5], [0.5], [0.99], [0.6]], np.float32)
    placement = place(confidence_EN, 0.9, mobile_layers=1, edge_layers=2)
    assert placement.pool_N.tolist() == [2]
    assert placement.exit_N.tolist() == [4]  # the cloud answers at its last layer


def test_a_confident_early_exit_counts_even_if_later_ones_doubt() -> None:
    confidence_EN = np.array([[0.95], [0.6], [0.6]], np.float32)
    assert place(confidence_EN, 0.9, 2, 3).exit_N.tolist() == [1]


def test_an_offloaded_sample_pays_the_edge_from_its_first_layer() -> None:
    placement = place(CONFIDENCE_EN, 0.8, 1, 2)
    assert costs(placement, COSTS).tolist() == [2, 5, 10]


def test_eq_2() -> None:
    placement = place(CONFIDENCE_EN, 0.8, 1, 2)
    # 0.90 − 0.1·2/10, 0.80 − 0.1·5/10, 0.75 − 0.1·10/10
    assert rewards(CONFIDENCE_EN, placement, COSTS, MU) == pytest.approx([0.88, 0.75, 0.65])


def test_eq_3_over_the_ten_candidates() -> None:
    options = candidates(CONFIDENCE_EN, 2, COSTS, MU, mobile_layers=1, edge_layers=2)
    assert [option.alpha for option in options] == pytest.approx(np.linspace(0.5, 1, 10).tolist())
    by_hand = [
        (0.88 + 0.58 + 0.58) / 3,  # 0.5000 all leave at exit 1
        (0.88 + 0.58 + 0.58) / 3,  # 0.5556
        (0.88 + 0.75 + 0.65) / 3,  # 0.6111 the second and third at exit 2 of the edge
        (0.88 + 0.75 + 0.65) / 3,  # 0.6667
        (0.88 + 0.75 + 0.65) / 3,  # 0.7222 the third in the cloud
        (0.88 + 0.75 + 0.65) / 3,  # 0.7778
        (0.88 + 0.80 + 0.65) / 3,  # 0.8333 the second in the cloud too
        (0.88 + 0.80 + 0.65) / 3,  # 0.8889
        (0.90 + 0.80 + 0.65) / 3,  # 0.9444 the first at exit 2 of the edge
        (0.89 + 0.80 + 0.65) / 3,  # 1.0000 all in the cloud
    ]
    assert [option.expected_reward for option in options] == pytest.approx(by_hand)
    assert [option.pool_sizes for option in options] == [
        *[(3, 0, 0)] * 2,
        *[(1, 2, 0)] * 2,
        *[(1, 1, 1)] * 2,
        *[(1, 0, 2)] * 2,
        (0, 1, 2),
        (0, 0, 3),
    ]
    assert best(options).alpha == pytest.approx(0.5 + 8 / 18)


def test_three_classes_start_at_a_third() -> None:
    options = candidates(CONFIDENCE_EN, 3, COSTS, MU, 1, 2)
    assert options[0].alpha == pytest.approx(1 / 3)
    assert len(options) == 10


def test_of_equal_rewards_the_highest_alpha_wins() -> None:
    assert best([Candidate(a, 0.7, (1, 1, 1)) for a in (0.5, 0.9, 0.8)]).alpha == 0.9


def test_a_dear_cost_sends_everything_to_the_cheapest_exit() -> None:
    options = candidates(CONFIDENCE_EN, 2, COSTS, 10.0, 1, 2)
    assert best(options).pool_sizes == (3, 0, 0)

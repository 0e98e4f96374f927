"""The paper's reward of an exit threshold (eqs. 2 and 3) and the threshold that maximises it.

Shape suffixes: E exits, N samples, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.domain import Difficulty, Tier
from shared.pricing.cost_model import CostModel

CANDIDATES = 10


@dataclass(frozen=True)
class PoolAssignment:
    """Pools of Algorithm 1 at one α.

    ``pool_N`` is 0 for easy, 1 for moderate, 2 for hard; ``exit_N`` is the layer (1-based) that
    answers each sample.
    """

    pool_N: NDArray[np.int64]
    exit_N: NDArray[np.int64]


DIFFICULTIES = (Difficulty.EASY, Difficulty.MODERATE, Difficulty.HARD)


def assign_pools(
    confidence_EN: NDArray[np.float32], alpha: float, mobile_layers: int, edge_layers: int
) -> PoolAssignment:
    """Run Algorithm 1: easy if C_i ≥ α at some i ≤ m, moderate if at some i ≤ n, else hard."""
    layers, count = confidence_EN.shape
    confident_EN = confidence_EN >= alpha
    first_N = np.where(confident_EN.any(0), confident_EN.argmax(0) + 1, layers + 1)
    pool_N = np.full(count, 2)
    pool_N[first_N <= edge_layers] = 1
    pool_N[first_N <= mobile_layers] = 0
    return PoolAssignment(pool_N, np.where(pool_N == 2, layers, first_N))


def rewards(
    confidence_EN: NDArray[np.float32], assignment: PoolAssignment, cost_model: CostModel, mu: float
) -> NDArray[np.float64]:
    """Return eq. 2 for each sample: r = C_i − μ · cost / all-cloud cost, at its answering exit.

    The paper's costs are in λ and its confidences in [0, 1]; ``mu`` is the confidence that one
    answer of the cloud may cost.
    """
    count = confidence_EN.shape[1]
    confidence_N = confidence_EN[assignment.exit_N - 1, np.arange(count)].astype(np.float64)
    return confidence_N - mu * costs(assignment, cost_model) / cost_model.all_cloud


def costs(assignment: PoolAssignment, cost_model: CostModel) -> NDArray[np.float64]:
    """Return the λ of each sample at the tier of its pool; offloading restarts from the text."""
    tiers = (Tier.MOBILE, Tier.EDGE, Tier.CLOUD)
    table = np.array(
        [
            [cost_model.attempt(tier, layer) for layer in range(1, cost_model.layers + 1)]
            for tier in tiers
        ]
    )
    result: NDArray[np.float64] = table[assignment.pool_N, assignment.exit_N - 1]
    return result


@dataclass(frozen=True)
class Candidate:
    """One α with its expected reward (eq. 3) and the sizes of its pools."""

    alpha: float
    expected_reward: float
    pool_sizes: tuple[int, int, int]


def candidates(
    confidence_EN: NDArray[np.float32],
    classes: int,
    cost_model: CostModel,
    mu: float,
    mobile_layers: int,
    edge_layers: int,
) -> list[Candidate]:
    """Return eq. 3 for the paper's ten equidistant values of α in [1/C, 1]."""
    result = []
    for alpha in np.linspace(1 / classes, 1, CANDIDATES):
        assignment = assign_pools(confidence_EN, float(alpha), mobile_layers, edge_layers)
        easy, moderate, hard = (int((assignment.pool_N == pool).sum()) for pool in range(3))
        reward_N = rewards(confidence_EN, assignment, cost_model, mu)
        result.append(Candidate(float(alpha), float(reward_N.mean()), (easy, moderate, hard)))
    return result


def best(options: list[Candidate]) -> Candidate:
    """Return the candidate with the highest expected reward; of equal ones the highest α."""
    return max(options, key=lambda option: (option.expected_reward, option.alpha))

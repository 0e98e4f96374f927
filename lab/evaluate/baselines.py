"""Baseline routers to compare the paper's with; the lab alone uses them.

The text's length, nearest neighbours, a logistic regression, and two oracles.
Shape suffixes: N samples, H hidden size, E exits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lab.evaluate.pools import Pools
from lab.evaluate.reward import DIFFICULTIES, assign_pools
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import TIERS, ExitOutputs, first_answer
from shared.domain import RoutingDecision, Tier
from shared.policies import PolicyFacts, TextFeatures
from shared.policies.base import StatelessPolicy

NEIGHBOURS = 15


class FixedDecisions(StatelessPolicy):
    """Policy that replays given decisions, one for each sample in order."""

    def __init__(self, name: str, tiers: Sequence[Tier]) -> None:
        self.name = name
        self._decisions = iter([RoutingDecision(tier, name) for tier in tiers])

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Return the next decision."""
        return next(self._decisions)


def pools_of(samples: Samples, pools: Pools) -> NDArray[np.int64]:
    """Return Algorithm 1's pool of each sample: 0 easy, 1 moderate, 2 hard."""
    return assign_pools(
        samples.confidence_NE.T, pools.alpha, pools.mobile_layers, pools.edge_layers
    ).pool_N


def by_length(validation: Samples, test: Samples, pools: Pools) -> list[Tier]:
    """Route to the nearest of three centroids, like the paper, of the log of the length."""
    pool_N = pools_of(validation, pools)
    log_N, test_log_N = np.log(validation.tokens_N), np.log(test.tokens_N)
    centroid_D = np.array([log_N[pool_N == d].mean() if (pool_N == d).any() else np.inf
                           for d in range(3)])  # fmt: skip
    nearest_N = np.abs(test_log_N[:, None] - centroid_D).argmin(1)
    return _tiers(nearest_N)


def by_neighbours(validation: Samples, test: Samples, pools: Pools) -> list[Tier]:
    """Route to the tier of the most common pool among the 15 nearest validation samples."""
    model = KNeighborsClassifier(min(NEIGHBOURS, len(validation)))
    model.fit(validation.embedding_NH, pools_of(validation, pools))
    return _tiers(model.predict(test.embedding_NH))


def true_difficulty(test: Samples, pools: Pools) -> list[Tier]:
    """Oracle: route to the tier of the pool that Algorithm 1 assigns, which needs the exits."""
    return _tiers(pools_of(test, pools))


def cheapest_right(test: Samples, facts: PolicyFacts, edge_layers: int) -> list[Tier]:
    """Oracle: route to the cheapest tier with a right answer, or else to the cheapest tier."""
    confidence_NE, answers_NE = test.confidence_NE, test.answers_NE
    chosen = []
    for i, label in enumerate(test.labels_N):
        exits = ExitOutputs(confidence_NE[i], answers_NE[i], test.margin_NE[i])
        options = []
        for tier in TIERS:
            outcome, _ = first_answer(RoutingDecision(tier, ""), exits, facts, edge_layers)
            wrong = outcome.label != label
            options.append((wrong, outcome.cost_lambda, TIERS.index(tier)))
        chosen.append(TIERS[min(options)[2]])
    return chosen


def _tiers(pool_N: NDArray[np.int64]) -> list[Tier]:
    return [DIFFICULTIES[int(pool)].tier for pool in pool_N]


def scores(
    validation: Samples, test: Samples, pools: Pools, target_N: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """Return each router's score, before any layer runs, that the mobile does not suffice.

    A higher score means a harder text. ``target_N`` holds the truth for the validation samples;
    the neighbours and the logistic regression learn from it. A router that is undefined for these
    pools is absent.
    """
    result = {"length": test.tokens_N.astype(np.float64)}
    if not pools.empty:
        gap_ND = test.embedding_NH[:, None] - pools.centroids_DH.astype(np.float64)
        distance_ND = np.linalg.norm(gap_ND, axis=2)
        result["nearest centroid"] = distance_ND[:, 0] - distance_ND[:, 1:].min(1)
    if target_N.any() and not target_N.all():
        near = KNeighborsClassifier(min(50, len(validation)))
        near.fit(validation.embedding_NH, target_N)
        result["nearest neighbours"] = near.predict_proba(test.embedding_NH)[:, 1]
        logistic = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        logistic.fit(validation.embedding_NH, target_N)
        result["logistic regression"] = logistic.predict_proba(test.embedding_NH)[:, 1]
    return result

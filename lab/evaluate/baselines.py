"""Routers of the lab only: without them nobody can judge the paper's.

A router that knows the length, nearest neighbours, a logistic regression, and two oracles. Shape
suffixes: N samples, H hidden size, E exits.
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
from lab.evaluate.reward import DIFFICULTIES, place
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import TIERS, first_answer
from shared.domain import RoutingDecision, Tier
from shared.policies import PolicyFacts, TextFeatures
from shared.policies.base import StatelessPolicy

NEIGHBOURS = 15


class Scripted(StatelessPolicy):
    """Decisions that were made beforehand, one for each sample in order."""

    def __init__(self, name: str, tiers: Sequence[Tier]) -> None:
        self.name = name
        self._decisions = iter([RoutingDecision(tier, name) for tier in tiers])

    def route(self, features: TextFeatures) -> RoutingDecision:
        """The next decision."""
        return next(self._decisions)


def pools_of(samples: Samples, pools: Pools) -> NDArray[np.int64]:
    """Algorithm 1's pool of each sample: 0 easy, 1 moderate, 2 hard."""
    placed = place(samples.confidence_NE.T, pools.alpha, pools.mobile_layers, pools.edge_layers)
    return placed.pool_N


def by_length(validation: Samples, test: Samples, pools: Pools) -> list[Tier]:
    """The nearest of three centroids, as the paper's, of the logarithm of the length alone."""
    pool_N = pools_of(validation, pools)
    log_N, asked_N = np.log(validation.tokens_N), np.log(test.tokens_N)
    centroid_D = np.array([log_N[pool_N == d].mean() if (pool_N == d).any() else np.inf
                           for d in range(3)])  # fmt: skip
    nearest_N = np.abs(asked_N[:, None] - centroid_D).argmin(1)
    return _tiers(nearest_N)


def by_neighbours(validation: Samples, test: Samples, pools: Pools) -> list[Tier]:
    """The commonest pool of the 15 nearest validation samples."""
    model = KNeighborsClassifier(min(NEIGHBOURS, len(validation)))
    model.fit(validation.embedding_NH, pools_of(validation, pools))
    return _tiers(model.predict(test.embedding_NH))


def true_difficulty(test: Samples, pools: Pools) -> list[Tier]:
    """Oracle: the pool that Algorithm 1 would put the sample in, could it see the exits."""
    return _tiers(pools_of(test, pools))


def cheapest_right(test: Samples, facts: PolicyFacts, edge_layers: int) -> list[Tier]:
    """Oracle: the cheapest tier whose answer is right; the cheapest of all where none is."""
    confidence_NE, answers_NE = test.confidence_NE, test.answers_NE
    chosen = []
    for i, label in enumerate(test.labels_N):
        options = []
        for tier in TIERS:
            outcome, _ = first_answer(
                RoutingDecision(tier, ""), confidence_NE[i], answers_NE[i], facts, edge_layers
            )
            wrong = outcome.label != label
            options.append((wrong, outcome.cost_lambda, TIERS.index(tier)))
        chosen.append(TIERS[min(options)[2]])
    return chosen


def _tiers(pool_N: NDArray[np.int64]) -> list[Tier]:
    return [DIFFICULTIES[int(pool)].tier for pool in pool_N]


def scores(
    validation: Samples, test: Samples, pools: Pools, target_N: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """How strongly each router says, before any layer, that the mobile will not do.

    Higher is harder. ``target_N`` tells it of each validation sample: only the two that learn a
    direction (neighbours, logistic) read it. A router that the pools leave undefined is absent.
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

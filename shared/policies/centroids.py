"""The paper's policies: the nearest of three centroids, fixed or adaptive (Algorithm 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.bundle.correctness_heads import NEW_ROUTER
from shared.domain import Difficulty, RoutingDecision
from shared.errors import BundleError
from shared.policies.base import StatelessPolicy, TextFeatures

DIFFICULTIES = (Difficulty.EASY, Difficulty.MODERATE, Difficulty.HARD)


class DimeeFixed(StatelessPolicy):
    """Choose the pool with the nearest centroid, by Euclidean distance.

    The centroids stay those of the validation pools. An empty pool has no centroid (a row of NaN
    and a count of 0) and is never chosen. ``alpha`` replaces the bundle's α of the exits.
    """

    name = "dimee-fixed"

    def __init__(
        self,
        centroids_DH: NDArray[np.float32],
        counts_D: NDArray[np.int64],
        alpha: float | None = None,
    ) -> None:
        if centroids_DH.shape[:1] != (3,) or counts_D.shape != (3,):
            raise BundleError(f"bundle: the router needs 3 centroids and counts; {NEW_ROUTER}")
        if not (counts_D > 0).any():
            raise BundleError(f"bundle: every pool of the router is empty; {NEW_ROUTER}")
        # float64: a running mean over thousands of samples needs the precision
        self.centroids_DH = centroids_DH.astype(np.float64)
        self.counts_D = counts_D.copy()
        self.alpha = alpha

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Return the tier of the nearest pool; in a tie that of the easier one."""
        embedding_H = features.embedding_H
        difference_DH = self.centroids_DH - embedding_H
        distance_D = np.sqrt((difference_DH * difference_DH).sum(1))
        distance_D[self.counts_D == 0] = np.inf
        nearest = int(distance_D.argmin())
        self._update(nearest, embedding_H)
        difficulty = DIFFICULTIES[nearest]
        return RoutingDecision(
            difficulty.tier,
            self.name,
            difficulty,
            tuple(float(d) for d in distance_D),
            alpha=self.alpha,
        )

    def _update(self, nearest: int, embedding_H: NDArray[np.float32]) -> None:
        """Leave the centroids unchanged; the adaptive variant moves the nearest one."""


class DimeeAdaptive(DimeeFixed):
    """Algorithm 2: every text moves the centroid of its pool, which is a running mean.

    c ← (N·c + x) / (N + 1), N ← N + 1. N starts at the size of the validation pool.
    """

    name = "dimee-adaptive"

    def _update(self, nearest: int, embedding_H: NDArray[np.float32]) -> None:
        self.counts_D[nearest] += 1
        step_H = (embedding_H - self.centroids_DH[nearest]) / self.counts_D[nearest]
        self.centroids_DH[nearest] += step_H

"""Algorithm 1 on the validation part: α by expected reward, pools and their centroids.

Shape suffixes: E exits, N samples, D difficulties (easy, moderate, hard), H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lab.evaluate.reward import DIFFICULTIES, Candidate, assign_pools, best, candidates
from lab.evaluate.samples import Samples
from shared.bundle.correctness_heads import CorrectnessHeads
from shared.errors import InvalidInput
from shared.policies import PolicyFacts
from shared.pricing.cost_model import CostModel


@dataclass(frozen=True)
class Pools:
    """Result of Algorithm 1 and eqs. 2, 3 on the validation part."""

    alpha: float
    mu: float
    classes: int
    mobile_layers: int
    edge_layers: int
    cost_model: CostModel
    candidates: list[Candidate]
    centroids_DH: NDArray[np.float32]
    counts_D: NDArray[np.int64]
    heads: CorrectnessHeads | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Number of samples of each difficulty."""
        return {
            name.value: int(count) for name, count in zip(DIFFICULTIES, self.counts_D, strict=True)
        }

    @property
    def empty(self) -> list[str]:
        """Pools without samples; no text is routed to their tier."""
        return [name for name, count in self.sizes.items() if count == 0]

    @property
    def unused_tiers(self) -> list[str]:
        """Tiers of the empty pools."""
        return [pool.tier.value for pool in DIFFICULTIES if self.sizes[pool.value] == 0]

    @property
    def facts(self) -> PolicyFacts:
        """Facts from which policies are made."""
        return PolicyFacts(
            self.centroids_DH,
            self.counts_D,
            self.alpha,
            self.mu,
            self.classes,
            self.mobile_layers,
            self.cost_model,
            self.heads,
        )


def make_pools(
    samples: Samples,
    cost_model: CostModel,
    mobile_layers: int,
    edge_layers: int,
    mu: float,
    alpha: float | None = None,
) -> Pools:
    """Choose α unless it is given, form the pools and average their embeddings.

    An empty pool has the centroid NaN and the count 0 (`Pools.empty`). Raises `InvalidInput` unless
    1 <= m < n <= l, or if all samples are of one class.
    """
    _, layers, classes = samples.probabilities_NEC.shape
    present = set(samples.labels_N.tolist())
    if not 1 <= mobile_layers < edge_layers <= layers:
        raise InvalidInput(
            f"layers: m = {mobile_layers} and n = {edge_layers} must hold 1 <= m < n <= {layers}"
        )
    if len(present) < 2:
        absent = min(set(range(classes)) - present)
        raise InvalidInput(
            f"data: the validation part has no example of class {absent}; use more data"
        )
    confidence_EN = samples.confidence_NE.T
    options = candidates(confidence_EN, classes, cost_model, mu, mobile_layers, edge_layers)
    chosen = best(options).alpha if alpha is None else alpha
    pool_N = assign_pools(confidence_EN, chosen, mobile_layers, edge_layers).pool_N
    counts_D = np.bincount(pool_N, minlength=len(DIFFICULTIES))
    embedding_NH = samples.embedding_NH
    centroids_DH = np.full((len(DIFFICULTIES), embedding_NH.shape[1]), np.nan, np.float32)
    for pool in np.flatnonzero(counts_D):
        centroids_DH[pool] = embedding_NH[pool_N == pool].mean(0, dtype=np.float64)
    return Pools(
        chosen, mu, classes, mobile_layers, edge_layers, cost_model, options, centroids_DH, counts_D
    )


def with_alpha(pools: Pools, alpha: float) -> Pools:
    """Return the pools with another α of the exits and unchanged centroids and counts."""
    return replace(pools, alpha=alpha)

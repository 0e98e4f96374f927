"""Made-up samples whose embedding shows the difficulty, and prices for them."""

from __future__ import annotations

import numpy as np

from lab.evaluate.samples import Samples
from shared.pricing.cost_model import CostModel

COSTS = CostModel(
    mobile_layer=2, edge_layer=1, offload_edge=0.5, offload_cloud=1, cloud_fee=7, layers=4
)


def toy(count: int, seed: int) -> Samples:
    """Return samples whose first axis is the difficulty (0, 4 or 8) with noise."""
    rng = np.random.default_rng(seed)
    pool_N = rng.integers(0, 3, count)
    labels_N = rng.integers(0, 2, count)
    confident_from_N = np.array([1, 3, 4])[pool_N]
    confidence_NE = np.where(
        np.arange(1, 5) >= confident_from_N[:, None],
        rng.uniform(0.97, 1.0, (count, 4)),
        rng.uniform(0.5, 0.8, (count, 4)),
    )
    right_NE = rng.random((count, 4)) < confidence_NE
    of_one_NE = np.where(right_NE == (labels_N[:, None] == 1), confidence_NE, 1 - confidence_NE)
    probabilities_NEC = np.stack([1 - of_one_NE, of_one_NE], -1).astype(np.float32)
    embedding_NH = np.stack([4.0 * pool_N, np.zeros(count)], 1) + rng.normal(0, 0.5, (count, 2))
    tokens_N = 5 + pool_N * 3 + rng.integers(0, 2, count)
    return Samples(probabilities_NEC, embedding_NH.astype(np.float32), tokens_N, labels_N, "d", "m")

"""Policies that do not look at the text: one tier for all, or any tier at random."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from shared.domain import RoutingDecision, Tier

_TIERS = tuple(Tier)


class Always:
    """Everything goes to one tier; the policy is named after it."""

    def __init__(self, tier: Tier) -> None:
        self.name = tier.value
        self._decision = RoutingDecision(tier, self.name)

    def route(self, embedding_H: NDArray[np.float32]) -> RoutingDecision:
        """Choose the one tier."""
        return self._decision


class Random:
    """Each tier with probability 1/3, from a seed."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def route(self, embedding_H: NDArray[np.float32]) -> RoutingDecision:
        """Choose a tier uniformly."""
        return RoutingDecision(self._random.choice(_TIERS), self.name)

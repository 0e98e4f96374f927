"""The interface of a routing policy. The same objects run on the phone and in the lab."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.domain import RoutingDecision


class RoutingPolicy(Protocol):
    """Decides from what the phone knows before it runs any layer.

    A policy may keep state between calls; its owner calls it from one thread, in arrival order.
    """

    @property
    def name(self) -> str:
        """The name by which people choose it."""
        ...

    def route(self, embedding_H: NDArray[np.float32]) -> RoutingDecision:
        """Choose the tier for a text with this mean word embedding."""
        ...

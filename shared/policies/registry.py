"""Policies by name."""

from __future__ import annotations

from shared.bundle import Bundle
from shared.domain import Tier
from shared.errors import InvalidInput
from shared.policies.base import RoutingPolicy
from shared.policies.centroids import DimeeAdaptive, DimeeFixed
from shared.policies.simple import Always, Random

POLICY_NAMES = ("dimee-fixed", "dimee-adaptive", "random", "mobile", "edge", "cloud")


def make_policy(name: str, bundle: Bundle, seed: int = 0) -> RoutingPolicy:
    """Make a fresh policy; raises `InvalidInput` with the known names for any other.

    ``seed`` matters to ``random`` only.
    """
    if name == DimeeFixed.name:
        return DimeeFixed(*bundle.router())
    if name == DimeeAdaptive.name:
        return DimeeAdaptive(*bundle.router())
    if name == Random.name:
        return Random(seed)
    if name in tuple(Tier):
        return Always(Tier(name))
    raise InvalidInput(
        f"policy: {name!r} is not known; choose one of {', '.join(POLICY_NAMES)}", field="policy"
    )

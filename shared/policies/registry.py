"""Policies by name."""

from __future__ import annotations

from collections.abc import Callable

from shared.domain import Tier
from shared.errors import InvalidInput
from shared.policies.bandits import AdaEE, ISplitEE
from shared.policies.base import PolicyFacts, RoutingPolicy
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.centroids import DimeeAdaptive, DimeeFixed
from shared.policies.static import Always, Random, WholeOnMobile

_MAKERS: dict[str, Callable[[PolicyFacts, int], RoutingPolicy]] = {
    CascadeRouting.name: lambda facts, seed: CascadeRouting(facts.heads, facts.cost_model),
    DimeeFixed.name: lambda facts, seed: DimeeFixed(facts.centroids_DH, facts.counts_D),
    DimeeAdaptive.name: lambda facts, seed: DimeeAdaptive(facts.centroids_DH, facts.counts_D),
    Random.name: lambda facts, seed: Random(seed),
    Tier.MOBILE.value: lambda facts, seed: Always(Tier.MOBILE),
    Tier.EDGE.value: lambda facts, seed: Always(Tier.EDGE),
    Tier.CLOUD.value: lambda facts, seed: Always(Tier.CLOUD),
    "bert": lambda facts, seed: WholeOnMobile(facts.cost_model.layers, early_exit=False),
    "early-exit": lambda facts, seed: WholeOnMobile(facts.cost_model.layers, early_exit=True),
    AdaEE.name: lambda facts, seed: AdaEE(facts.classes, facts.cost_model, facts.mu),
    ISplitEE.name: lambda facts, seed: ISplitEE(facts.cost_model, facts.mu),
}
POLICY_NAMES = tuple(_MAKERS)


def make_policy(name: str, facts: PolicyFacts, seed: int = 0) -> RoutingPolicy:
    """Make a fresh policy; raises `InvalidInput` with the known names for any other.

    ``seed`` matters to ``random`` only.
    """
    if name not in _MAKERS:
        raise InvalidInput(
            f"policy: {name!r} is not known; choose one of {', '.join(POLICY_NAMES)}",
            field="policy",
        )
    return _MAKERS[name](facts, seed)

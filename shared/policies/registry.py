"""Registry of the policies by name."""

from __future__ import annotations

from collections.abc import Callable

from shared.domain import Tier
from shared.errors import InvalidInput
from shared.policies.bandits import AdaEE, ISplitEE
from shared.policies.base import PolicyFacts, RoutingPolicy
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.centroids import DimeeAdaptive, DimeeFixed
from shared.policies.static import AllLayersOnMobile, Random, SingleTier

_FACTORIES: dict[str, Callable[[PolicyFacts, int], RoutingPolicy]] = {
    CascadeRouting.name: lambda facts, seed: CascadeRouting(facts.heads, facts.cost_model),
    DimeeFixed.name: lambda facts, seed: DimeeFixed(facts.centroids_DH, facts.counts_D),
    DimeeAdaptive.name: lambda facts, seed: DimeeAdaptive(facts.centroids_DH, facts.counts_D),
    Random.name: lambda facts, seed: Random(seed),
    Tier.MOBILE.value: lambda facts, seed: SingleTier(Tier.MOBILE),
    Tier.EDGE.value: lambda facts, seed: SingleTier(Tier.EDGE),
    Tier.CLOUD.value: lambda facts, seed: SingleTier(Tier.CLOUD),
    "bert": lambda facts, seed: AllLayersOnMobile(facts.cost_model.layers, early_exit=False),
    "early-exit": lambda facts, seed: AllLayersOnMobile(facts.cost_model.layers, early_exit=True),
    AdaEE.name: lambda facts, seed: AdaEE(facts.classes, facts.cost_model, facts.mu),
    ISplitEE.name: lambda facts, seed: ISplitEE(facts.cost_model, facts.mu),
}
POLICY_NAMES = tuple(_FACTORIES)


def make_policy(name: str, facts: PolicyFacts, seed: int = 0) -> RoutingPolicy:
    """Return a new policy; raises `InvalidInput`, which lists the names, for an unknown one.

    Only the policy ``random`` uses ``seed``.
    """
    if name not in _FACTORIES:
        raise InvalidInput(
            f"policy: {name!r} is not known; choose one of {', '.join(POLICY_NAMES)}",
            field="policy",
        )
    return _FACTORIES[name](facts, seed)

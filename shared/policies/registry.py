"""Policies by name: the built-in ones, those of installed packages, and ``module:Class``."""

from __future__ import annotations

from collections.abc import Callable

from shared.domain import Tier
from shared.errors import InvalidInput
from shared.policies.bandits import AdaEE, ISplitEE
from shared.policies.base import PolicyFacts, RoutingPolicy
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.centroids import DimeeAdaptive, DimeeFixed
from shared.policies.checked import CheckedPolicy
from shared.policies.loading import (
    build,
    find_installed,
    import_path,
    installed_names,
    is_path,
    parameters,
)
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
"""Names of the built-in policies."""


def make_policy(name: str, facts: PolicyFacts, seed: int = 0) -> RoutingPolicy:
    """Return a new policy; raises `InvalidInput` that says what is wrong.

    ``name`` is a built-in name, a name that an installed package registers, or ``module:Class``,
    which is imported: pass only names that the user of this process has chosen. A request from
    another process goes through `make_known_policy`. Only the policy ``random``, and classes with a
    parameter ``seed``, use the seed.
    """
    if not is_path(name):
        return make_known_policy(name, facts, seed)
    return check_policy(build(import_path(name), facts, seed, repr(name)), facts, repr(name))


def make_known_policy(name: str, facts: PolicyFacts, seed: int = 0) -> RoutingPolicy:
    """Return a new built-in policy, or one that an installed package registers.

    Raises `InvalidInput`, which lists the names, for any other.
    """
    if name in _FACTORIES:
        return _FACTORIES[name](facts, seed)
    factory = None if is_path(name) else find_installed(name)
    if factory is None:
        raise InvalidInput(
            f"policy: {name[:80]!r} is not known; choose one of "
            f"{', '.join([*POLICY_NAMES, *installed_names()])}",
            field="policy",
        )
    policy = check_policy(build(factory, facts, seed, repr(name)), facts, repr(name))
    if policy.name != name:
        raise InvalidInput(
            f"policy: an installed package registers {name!r}, but the policy's own name is "
            f"{policy.name!r}; make them equal",
            field="policy",
        )
    return policy


def check_policy(policy: object, facts: PolicyFacts, where: str = "") -> RoutingPolicy:
    """Return a policy that is not built in, with checks around its methods.

    Raises `InvalidInput` if it lacks a member or has a built-in policy's name.
    """
    if isinstance(policy, CheckedPolicy):
        return policy
    return CheckedPolicy(policy, facts, POLICY_NAMES, where)


def uses_seed(name: str) -> bool:
    """Return True if chance may decide: a class with a parameter ``seed``."""
    factory = import_path(name) if is_path(name) else find_installed(name)
    return factory is not None and "seed" in parameters(factory)

"""Routing policies, which choose the tier that answers a request first, and escalations.

A policy of your own derives from `StatelessPolicy`, or has the members of `RoutingPolicy`::

    from shared.policies import RoutingDecision, StatelessPolicy, TextFeatures, Tier

    class ByLength(StatelessPolicy):
        name = "by-length"

        def route(self, features: TextFeatures) -> RoutingDecision:
            tier = Tier.MOBILE if features.tokens < 20 else Tier.CLOUD
            return RoutingDecision(tier, self.name)

Use it with ``dimee classify --policy my_module:ByLength`` or ``MobileClient(policy=ByLength())``.
A built-in policy has a file of its own here and a line in `registry`.
"""

from shared.domain import Outcome, RoutingDecision, Tier
from shared.policies.base import PolicyFacts, RoutingPolicy, StatelessPolicy, TextFeatures
from shared.policies.conditions import Conditions
from shared.policies.registry import POLICY_NAMES, check_policy, make_known_policy, make_policy

__all__ = [
    "POLICY_NAMES",
    "Conditions",
    "Outcome",
    "PolicyFacts",
    "RoutingDecision",
    "RoutingPolicy",
    "StatelessPolicy",
    "TextFeatures",
    "Tier",
    "check_policy",
    "make_known_policy",
    "make_policy",
]

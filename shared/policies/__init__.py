"""Routing policies, which choose the tier that answers a request first, and escalations.

To add a policy, write a class with the methods of `RoutingPolicy` in a file of its own and list it
in `registry`.
"""

from shared.policies.base import PolicyFacts, RoutingPolicy, TextFeatures
from shared.policies.registry import POLICY_NAMES, make_policy

__all__ = ["POLICY_NAMES", "PolicyFacts", "RoutingPolicy", "TextFeatures", "make_policy"]

"""Where a request is answered first: routing policies by name."""

from shared.policies.base import PolicyFacts, RoutingPolicy, TextFeatures
from shared.policies.registry import POLICY_NAMES, make_policy

__all__ = ["POLICY_NAMES", "PolicyFacts", "RoutingPolicy", "TextFeatures", "make_policy"]

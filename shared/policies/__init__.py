"""Where a request is answered first: routing policies by name."""

from shared.policies.base import RoutingPolicy
from shared.policies.registry import POLICY_NAMES, make_policy

__all__ = ["POLICY_NAMES", "RoutingPolicy", "make_policy"]

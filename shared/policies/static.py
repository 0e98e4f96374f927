"""Policies that do not depend on the text: a fixed tier, or a random one."""

from __future__ import annotations

import random

from shared.domain import RoutingDecision, Tier
from shared.policies.base import StatelessPolicy, TextFeatures

_TIERS = tuple(Tier)


class SingleTier(StatelessPolicy):
    """Send every text to one tier; the policy's name is the tier's."""

    def __init__(self, tier: Tier) -> None:
        self.name = tier.value
        self._decision = RoutingDecision(tier, self.name)

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Return the decision for the fixed tier."""
        return self._decision


class AllLayersOnMobile(StatelessPolicy):
    """Run all l layers on the mobile: ``bert`` uses the last exit only, ``early-exit`` every exit.

    ``bert`` is the first of the paper's two descriptions of its baseline, BERT on the mobile. The
    second one, BERT in the cloud, is the policy ``cloud``.
    """

    def __init__(self, layers: int, early_exit: bool) -> None:
        self.name = "early-exit" if early_exit else "bert"
        self.policy_layers = layers
        self._decision = RoutingDecision(
            Tier.MOBILE, self.name, first_exit=1 if early_exit else layers, last_layer=layers
        )

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Return the decision for the mobile."""
        return self._decision


class Random(StatelessPolicy):
    """Choose a tier at random, with probability 1/3 each or with the given ``shares``."""

    name = "random"

    def __init__(self, seed: int, shares: tuple[float, float, float] | None = None) -> None:
        self._random = random.Random(seed)
        self._shares = shares

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Draw a tier."""
        if self._shares is None:
            return RoutingDecision(self._random.choice(_TIERS), self.name)
        return RoutingDecision(self._random.choices(_TIERS, self._shares)[0], self.name)

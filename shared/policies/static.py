"""Policies that do not look at the text: one tier for all, or any tier at random."""

from __future__ import annotations

import random

from shared.domain import RoutingDecision, Tier
from shared.policies.base import StatelessPolicy, TextFeatures

_TIERS = tuple(Tier)


class Always(StatelessPolicy):
    """Everything goes to one tier; the policy is named after it."""

    def __init__(self, tier: Tier) -> None:
        self.name = tier.value
        self._decision = RoutingDecision(tier, self.name)

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Choose the one tier."""
        return self._decision


class WholeOnMobile(StatelessPolicy):
    """All l layers on the mobile: ``bert`` asks the last exit only, ``early-exit`` every one.

    ``bert`` is the paper's baseline in the first of its two descriptions (BERT on the mobile); the
    other one (BERT in the cloud) is the policy ``cloud``.
    """

    def __init__(self, layers: int, early_exit: bool) -> None:
        self.name = "early-exit" if early_exit else "bert"
        self.policy_layers = layers
        self._decision = RoutingDecision(
            Tier.MOBILE, self.name, first_exit=1 if early_exit else layers, last_layer=layers
        )

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Choose the mobile."""
        return self._decision


class Random(StatelessPolicy):
    """A tier at random, from a seed: each with probability 1/3, or with the given ``shares``."""

    name = "random"

    def __init__(self, seed: int, shares: tuple[float, float, float] | None = None) -> None:
        self._random = random.Random(seed)
        self._shares = shares

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Choose a tier."""
        if self._shares is None:
            return RoutingDecision(self._random.choice(_TIERS), self.name)
        return RoutingDecision(self._random.choices(_TIERS, self._shares)[0], self.name)

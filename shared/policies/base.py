"""The interface of a routing policy. The same objects run on the mobile and in the lab."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.bundle.correctness_heads import CorrectnessHeads
from shared.bundle.loading import Bundle
from shared.domain import Outcome, RoutingDecision, Tier
from shared.policies.conditions import Conditions
from shared.pricing.cost_model import CostModel


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """What the mobile knows of a text before it runs any layer.

    ``embedding_H`` is the mean word embedding, ``tokens`` the length, special tokens included,
    ``rare_pieces`` how many of them go on with a word, ``pair_P`` how the two texts of a pair
    relate (`shared.bundle.pair_features`; None for a single text).
    """

    embedding_H: NDArray[np.float32]
    tokens: int
    rare_pieces: int = 0
    pair_P: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What policies are made from: the bundle's, or what the lab computed without a bundle.

    ``mu`` is the worth, in confidence, of one answer from the cloud (eq. 2).
    """

    centroids_DH: NDArray[np.float32]
    counts_D: NDArray[np.int64]
    alpha: float
    mu: float
    classes: int
    mobile_layers: int
    cost_model: CostModel
    heads: CorrectnessHeads | None = None

    @classmethod
    def of(cls, bundle: Bundle, mobile_layers: int | None = None) -> PolicyFacts:
        """The facts of a bundle, for a mobile with ``mobile_layers`` layers (the bundle's m)."""
        manifest = bundle.manifest
        centroids_DH, counts_D = bundle.router()
        return cls(
            centroids_DH=centroids_DH,
            counts_D=counts_D,
            alpha=manifest.alpha,
            mu=manifest.mu,
            classes=len(manifest.labels),
            mobile_layers=mobile_layers or manifest.mobile_layers,
            cost_model=bundle.cost_model,
            heads=bundle.correctness_heads(),
        )


class RoutingPolicy(Protocol):
    """Decides from what the mobile knows before it runs any layer.

    A policy may keep state between calls; its owner calls it from one thread, in arrival order,
    and tells one that `learns` the outcome of each request before it asks for the next decision.
    """

    @property
    def name(self) -> str:
        """The name by which people choose it."""
        ...

    @property
    def policy_layers(self) -> int | None:
        """How many layers the mobile must hold for it; None: m."""
        ...

    @property
    def learns(self) -> bool:
        """Whether it learns from outcomes."""
        ...

    @property
    def uses_conditions(self) -> bool:
        """True if decisions depend on the current prices, delays and availability of tiers."""
        ...

    def use_conditions(self, conditions: Conditions) -> None:
        """Decide by ``conditions`` from now on; their owner keeps them up to date."""
        ...

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Choose where and how a text is answered first."""
        ...

    def escalate(
        self, features: TextFeatures, decision: RoutingDecision, outcome: Outcome, sure: bool
    ) -> Tier | None:
        """The tier that takes over an answer, or None; ``sure``: its confidence reached α."""
        ...

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        """Take in what came of a decision; called once for every answered request."""
        ...


class Escalating:
    """Escalates what the mobile is not sure of, where the decision says so."""

    uses_conditions = False

    def use_conditions(self, conditions: Conditions) -> None:
        """Ignore the conditions."""

    def escalate(
        self, features: TextFeatures, decision: RoutingDecision, outcome: Outcome, sure: bool
    ) -> Tier | None:
        """The decision's tier for an answer of the mobile below the threshold."""
        return None if sure or outcome.tier is not Tier.MOBILE else decision.escalate_to


class StatelessPolicy(Escalating):
    """The half of the interface that most policies share: m layers, nothing to learn."""

    policy_layers: int | None = None
    learns = False

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        """Nothing to learn."""

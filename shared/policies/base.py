"""Interface of a routing policy; the mobile and the lab use the same objects."""

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
    """Features of a text, computed without running a layer.

    ``embedding_H`` is the mean word embedding, ``tokens`` the number of tokens including special
    ones, ``rare_pieces`` the number of tokens that continue a word. ``pair_P`` holds the features
    of a pair of texts (`shared.bundle.pair_features`); None for a single text.
    """

    embedding_H: NDArray[np.float32]
    tokens: int
    rare_pieces: int = 0
    pair_P: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """Data from which policies are built; they come from a bundle or the lab.

    ``mu`` is the confidence that equals the cost of one answer from the cloud in eq. 2 (μ).
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
        """Return the facts of a bundle, for ``mobile_layers`` layers on the mobile (default: m)."""
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
    """Chooses the first tier of a request, and whether another tier takes over an answer.

    A policy may keep state between calls. Its owner calls it from one thread in the order of
    arrival. A policy that `learns` gets the outcome of each request before the next decision.
    """

    @property
    def name(self) -> str:
        """Name of the policy in settings and commands."""
        ...

    @property
    def policy_layers(self) -> int | None:
        """Number of layers that the mobile must load for this policy; None: m."""
        ...

    @property
    def learns(self) -> bool:
        """True if the policy learns from outcomes (`learn`)."""
        ...

    @property
    def uses_conditions(self) -> bool:
        """True if decisions depend on the current prices, delays and availability of tiers."""
        ...

    def use_conditions(self, conditions: Conditions) -> None:
        """Decide by ``conditions`` from now on; the caller keeps them up to date."""
        ...

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Return the tier that answers a text first, and how it does so."""
        ...

    def escalate(
        self,
        features: TextFeatures,
        decision: RoutingDecision,
        outcome: Outcome,
        meets_threshold: bool,
    ) -> Tier | None:
        """Return the tier that takes over an answer; None keeps the answer.

        ``meets_threshold`` says whether the answer's confidence reached α.
        """
        ...

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        """Learn from the outcome of a decision; called once for every answered request."""
        ...


class EscalateBelowThreshold:
    """Mixin that escalates answers of the mobile below the threshold to the decision's tier."""

    uses_conditions = False

    def use_conditions(self, conditions: Conditions) -> None:
        """Ignore the conditions."""

    def escalate(
        self,
        features: TextFeatures,
        decision: RoutingDecision,
        outcome: Outcome,
        meets_threshold: bool,
    ) -> Tier | None:
        """Return ``decision.escalate_to`` for an answer of the mobile below the threshold."""
        return None if meets_threshold or outcome.tier is not Tier.MOBILE else decision.escalate_to


class StatelessPolicy(EscalateBelowThreshold):
    """Base of policies that need m layers and learn nothing."""

    policy_layers: int | None = None
    learns = False

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        """Ignore the outcome."""

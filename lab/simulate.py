"""Policies over cached samples: the phone's own policy objects, without running a layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.samples import Samples
from shared.domain import Outcome, RoutingDecision, Tier
from shared.policies import PolicyFacts, RoutingPolicy

TIERS = tuple(Tier)


@dataclass(frozen=True)
class Trace:
    """Where each sample was answered (``tier_N``), at which exit, with what, and at what λ."""

    tier_N: NDArray[np.object_]
    exit_N: NDArray[np.int64]
    answer_N: NDArray[np.int64]
    cost_N: NDArray[np.float64]

    @property
    def shares(self) -> dict[str, float]:
        """Share of the samples that each tier answered."""
        return {tier.value: float(np.mean(self.tier_N == tier)) for tier in TIERS}


def simulate(
    policy: RoutingPolicy,
    samples: Samples,
    facts: PolicyFacts,
    edge_layers: int,
    order_N: NDArray[np.int64] | None = None,
) -> Trace:
    """Decide, answer and learn, sample after sample in ``order_N`` (as they come by default).

    Each tier answers as it does live: phone and edge at their first exit with C_i >= α, else at
    their last, the cloud at l; what the phone escalates costs both attempts. The trace is in the
    order of ``samples``.
    """
    count = len(samples)
    tiers: list[Tier] = [Tier.CLOUD] * count
    exit_N = np.zeros(count, np.int64)
    cost_N = np.zeros(count)
    confidence_NE = samples.confidence_NE
    for i in range(count) if order_N is None else order_N.tolist():
        decision = policy.route(samples.features(i))
        outcome = answer(decision, confidence_NE[i], facts, edge_layers)
        policy.learn(decision, outcome)
        tiers[i], exit_N[i], cost_N[i] = outcome.tier, outcome.exit_layer, outcome.cost_lambda
    answer_N = samples.answers_NE[np.arange(count), exit_N - 1]
    tier_N: NDArray[np.object_] = np.empty(count, dtype=object)
    tier_N[:] = tiers
    return Trace(tier_N, exit_N, answer_N, cost_N)


def answer(
    decision: RoutingDecision,
    confidence_E: NDArray[np.float32],
    facts: PolicyFacts,
    edge_layers: int,
) -> Outcome:
    """What comes of ``decision`` for a sample with these confidences."""
    if decision.tier is not Tier.MOBILE:
        return _serve(decision.tier, confidence_E, facts, edge_layers, 0.0)
    last = decision.last_layer or facts.mobile_layers
    alpha = facts.alpha if decision.alpha is None else decision.alpha
    layer, sure = _first_exit(confidence_E, alpha, decision.first_exit, last)
    cost = facts.cost_model.attempt(Tier.MOBILE, layer)
    if decision.escalate_to is not None and not sure:
        return _serve(decision.escalate_to, confidence_E, facts, edge_layers, cost)
    return Outcome(Tier.MOBILE, layer, float(confidence_E[layer - 1]), cost)


def _serve(
    tier: Tier,
    confidence_E: NDArray[np.float32],
    facts: PolicyFacts,
    edge_layers: int,
    cost_before: float,
) -> Outcome:
    layer = facts.cost_model.layers
    if tier is Tier.EDGE:
        layer, _ = _first_exit(confidence_E, facts.alpha, 1, edge_layers)
    cost = cost_before + facts.cost_model.attempt(tier, layer)
    return Outcome(tier, layer, float(confidence_E[layer - 1]), cost)


def _first_exit(
    confidence_E: NDArray[np.float32], alpha: float, first: int, last: int
) -> tuple[int, bool]:
    """The first exit in first..last that is sure, or ``last`` and False."""
    sure_E = confidence_E[first - 1 : last] >= alpha
    index = int(sure_E.argmax())
    return (first + index, True) if sure_E[index] else (last, False)

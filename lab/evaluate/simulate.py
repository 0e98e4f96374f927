"""Simulation of the mobile's policies on cached samples, without running a layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.evaluate.samples import Samples
from shared.domain import Outcome, RoutingDecision, Tier
from shared.policies import PolicyFacts, RoutingPolicy

TIERS = tuple(Tier)


@dataclass(frozen=True)
class Trace:
    """Answering tier, exit, label and cost (λ) of each sample."""

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
    """Route, answer and learn, sample by sample in ``order_N`` (default: the given order).

    Each tier answers as it does live: mobile and edge at their first exit with C_i >= α, else at
    their last, the cloud at l. An escalated sample costs both attempts. The trace is in the order
    of ``samples``.
    """
    count = len(samples)
    tiers: list[Tier] = [Tier.CLOUD] * count
    exit_N = np.zeros(count, np.int64)
    cost_N = np.zeros(count)
    confidence_NE, answers_NE = samples.confidence_NE, samples.answers_NE
    for i in range(count) if order_N is None else order_N.tolist():
        features = samples.features(i)
        decision = policy.route(features)
        outcome = first_answer(decision, confidence_NE[i], answers_NE[i], facts, edge_layers)
        while (target := policy.escalate(features, decision, *outcome)) is not None:
            cost = outcome[0].cost_lambda
            alpha = _alpha(decision, facts)
            outcome = _answer_at(
                target, confidence_NE[i], answers_NE[i], facts, edge_layers, alpha, cost
            )
        policy.learn(decision, outcome[0])
        final = outcome[0]
        tiers[i], exit_N[i], cost_N[i] = final.tier, final.exit_layer, final.cost_lambda
    answer_N = answers_NE[np.arange(count), exit_N - 1]
    tier_N: NDArray[np.object_] = np.empty(count, dtype=object)
    tier_N[:] = tiers
    return Trace(tier_N, exit_N, answer_N, cost_N)


def first_answer(
    decision: RoutingDecision,
    confidence_E: NDArray[np.float32],
    answers_E: NDArray[np.int64],
    facts: PolicyFacts,
    edge_layers: int,
) -> tuple[Outcome, bool]:
    """Return the first outcome of ``decision``, and True if its exit reached α."""
    alpha = _alpha(decision, facts)
    if decision.tier is not Tier.MOBILE:
        return _answer_at(decision.tier, confidence_E, answers_E, facts, edge_layers, alpha, 0.0)
    last = decision.last_layer or facts.mobile_layers
    layer, confident = _first_exit(confidence_E, alpha, decision.first_exit, last)
    cost = facts.cost_model.attempt(Tier.MOBILE, layer)
    return _outcome(Tier.MOBILE, layer, confidence_E, answers_E, cost), confident


def _alpha(decision: RoutingDecision, facts: PolicyFacts) -> float:
    return facts.alpha if decision.alpha is None else decision.alpha


def _answer_at(
    tier: Tier,
    confidence_E: NDArray[np.float32],
    answers_E: NDArray[np.int64],
    facts: PolicyFacts,
    edge_layers: int,
    alpha: float,
    cost_before: float,
) -> tuple[Outcome, bool]:
    layer, confident = facts.cost_model.layers, True
    if tier is Tier.EDGE:
        layer, confident = _first_exit(confidence_E, alpha, 1, edge_layers)
    cost = cost_before + facts.cost_model.attempt(tier, layer)
    return _outcome(tier, layer, confidence_E, answers_E, cost), confident


def _outcome(
    tier: Tier,
    layer: int,
    confidence_E: NDArray[np.float32],
    answers_E: NDArray[np.int64],
    cost: float,
) -> Outcome:
    return Outcome(tier, layer, float(confidence_E[layer - 1]), cost, int(answers_E[layer - 1]))


def _first_exit(
    confidence_E: NDArray[np.float32], alpha: float, first: int, last: int
) -> tuple[int, bool]:
    """Return the first exit in first..last that reaches α and True, or ``last`` and False."""
    confident_E = confidence_E[first - 1 : last] >= alpha
    index = int(confident_E.argmax())
    return (first + index, True) if confident_E[index] else (last, False)

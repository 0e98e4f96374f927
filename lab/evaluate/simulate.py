"""Simulation of the mobile's policies on cached samples, without running a layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lab.evaluate.samples import Samples
from shared.domain import Outcome, RoutingDecision, Tier
from shared.policies import PolicyFacts, RoutingPolicy

TIERS = tuple(Tier)


@dataclass(frozen=True)
class Trace:
    """Answering tier, exit, label, cost (λ) and number of attempts of each sample.

    ``attempts_N`` is empty if it was not counted.
    """

    tier_N: NDArray[np.object_]
    exit_N: NDArray[np.int64]
    answer_N: NDArray[np.int64]
    cost_N: NDArray[np.float64]
    attempts_N: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def shares(self) -> dict[str, float]:
        """Share of the samples that each tier answered."""
        return {tier.value: float(np.mean(self.tier_N == tier)) for tier in TIERS}


@dataclass(frozen=True, slots=True)
class ExitOutputs:
    """Confidence, label and margin (`shared.domain.Outcome`) of one sample at every exit."""

    confidence_E: NDArray[np.float32]
    answers_E: NDArray[np.int64]
    margin_E: NDArray[np.float64]


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
    attempts_N = np.ones(count, np.int64)
    confidence_NE, answers_NE, margin_NE = (
        samples.confidence_NE, samples.answers_NE, samples.margin_NE
    )  # fmt: skip
    for i in range(count) if order_N is None else order_N.tolist():
        features = samples.features(i)
        exits = ExitOutputs(confidence_NE[i], answers_NE[i], margin_NE[i])
        decision = policy.route(features)
        outcome = first_answer(decision, exits, facts, edge_layers)
        while (target := policy.escalate(features, decision, *outcome)) is not None:
            cost = outcome[0].cost_lambda
            outcome = _answer_at(target, exits, facts, edge_layers, _alpha(decision, facts), cost)
            attempts_N[i] += 1
        policy.learn(decision, outcome[0])
        final = outcome[0]
        tiers[i], exit_N[i], cost_N[i] = final.tier, final.exit_layer, final.cost_lambda
    answer_N = answers_NE[np.arange(count), exit_N - 1]
    tier_N: NDArray[np.object_] = np.empty(count, dtype=object)
    tier_N[:] = tiers
    return Trace(tier_N, exit_N, answer_N, cost_N, attempts_N)


def first_answer(
    decision: RoutingDecision, exits: ExitOutputs, facts: PolicyFacts, edge_layers: int
) -> tuple[Outcome, bool]:
    """Return the first outcome of ``decision``, and True if its exit reached α."""
    alpha = _alpha(decision, facts)
    if decision.tier is not Tier.MOBILE:
        return _answer_at(decision.tier, exits, facts, edge_layers, alpha, 0.0)
    last = decision.last_layer or facts.mobile_layers
    layer, confident = _first_exit(exits.confidence_E, alpha, decision.first_exit, last)
    return _outcome(
        Tier.MOBILE, layer, exits, facts.cost_model.attempt(Tier.MOBILE, layer)
    ), confident


def _alpha(decision: RoutingDecision, facts: PolicyFacts) -> float:
    return facts.alpha if decision.alpha is None else decision.alpha


def _answer_at(
    tier: Tier,
    exits: ExitOutputs,
    facts: PolicyFacts,
    edge_layers: int,
    alpha: float,
    cost_before: float,
) -> tuple[Outcome, bool]:
    layer, confident = facts.cost_model.layers, True
    if tier is Tier.EDGE:
        layer, confident = _first_exit(exits.confidence_E, alpha, 1, edge_layers)
    cost = cost_before + facts.cost_model.attempt(tier, layer)
    return _outcome(tier, layer, exits, cost), confident


def _outcome(tier: Tier, layer: int, exits: ExitOutputs, cost: float) -> Outcome:
    return Outcome(
        tier,
        layer,
        float(exits.confidence_E[layer - 1]),
        cost,
        int(exits.answers_E[layer - 1]),
        float(exits.margin_E[layer - 1]),
    )


def _first_exit(
    confidence_E: NDArray[np.float32], alpha: float, first: int, last: int
) -> tuple[int, bool]:
    """Return the first exit in first..last that reaches α and True, or ``last`` and False."""
    confident_E = confidence_E[first - 1 : last] >= alpha
    index = int(confident_E.argmax())
    return (first + index, True) if confident_E[index] else (last, False)

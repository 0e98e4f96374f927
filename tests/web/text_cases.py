"""Shared cases without a request: tokens, features, decisions and exits, evaluated by Python."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from shared.bundle.correctness_heads import CorrectnessHeads
from shared.bundle.loading import load_bundle
from shared.bundle.manifest import TOKENIZER
from shared.domain import LayerRange, Outcome, RoutingDecision, Tier
from shared.errors import DimeeError
from shared.inference.classifier import Classifier
from shared.inference.layers import meets_threshold
from shared.inference.tokenizer import EncodedText, TextEncoder
from shared.policies import Conditions, PolicyFacts, RoutingPolicy, TextFeatures, make_known_policy
from shared.pricing.cost_model import CostModel
from tests.support.paths import BUNDLE

SHOWN = 8
"""Numbers of a vector that a case holds, besides its sum and norm."""
MOBILE_LAYERS = 2


@cache
def classifier() -> Classifier:
    """Return the shipped bundle's layers of the mobile."""
    return Classifier(load_bundle(BUNDLE), LayerRange(1, MOBILE_LAYERS))


@cache
def encoder(max_tokens: int) -> TextEncoder:
    """Return the shipped bundle's tokenizer with another limit."""
    return TextEncoder(BUNDLE / TOKENIZER, max_tokens)


def encode(given: dict[str, Any]) -> dict[str, Any]:
    """Return the tokens of a text or pair."""
    encoded = encoder(given["max_tokens"]).encode(given["text"], given["pair"])
    return {
        "ids": encoded.ids_T.tolist(),
        "type_ids": _bits(encoded.type_ids_T),
        "content": _bits(encoded.content_T),
        "second": None if encoded.second_T is None else _bits(encoded.second_T),
        "truncated": encoded.truncated,
        "rare_pieces": encoded.rare_pieces,
    }


def features(given: dict[str, Any]) -> dict[str, Any]:
    """Return the mean word embedding, the features of a pair and the input of layer 1."""
    encoded = classifier().encoder.encode(given["text"], given["pair"])
    embeddings = classifier().embeddings
    pair_P = embeddings.pair_features(encoded)
    hidden_TH = embeddings.first_hidden([encoded])[0][0]
    return {
        "tokens": encoded.tokens,
        "embedding": _vector(embeddings.mean_word_embedding(encoded)),
        "pair": None if pair_P is None else _numbers(pair_P),
        "last_hidden": _vector(hidden_TH[-1]),
    }


def classify(given: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of the mobile's layers, and the confidence at each exit."""
    encoded = [classifier().encoder.encode(given["text"])]
    last = given["last"] or MOBILE_LAYERS
    (answer,) = classifier().classify(encoded, given["alpha"], last, given["first_exit"])
    exits = [
        classifier().classify(encoded, None, layer)[0] for layer in range(1, answer.exit_layer + 1)
    ]
    return {
        "label": answer.label_index,
        "exit_layer": answer.exit_layer,
        "probabilities": list(answer.probabilities),
        "exits": [one.confidence for one in exits],
    }


def decide(given: dict[str, Any], routers: dict[str, Any]) -> dict[str, Any]:
    """Return a policy's decisions for texts, one after the other, and its escalations."""
    policy = make_known_policy(given["policy"], facts_of(given["router"], routers))
    policy.use_conditions(conditions_of(given["conditions"]))
    decisions = []
    for text in given["texts"]:
        found = features_of(classifier().encoder.encode(text["text"], text["pair"]))
        decision = policy.route(found)
        decisions.append(
            decision_facts(decision)
            | {
                "escalations": [
                    _escalation(policy, found, decision, one) for one in text["answers"]
                ]
            }
        )
        if text["reward"] is not None:
            policy.learn(decision, outcome_of(text["reward"]))
    return {"decisions": decisions}


def features_of(encoded: EncodedText) -> TextFeatures:
    """Return the features for policies."""
    embeddings = classifier().embeddings
    return TextFeatures(
        embeddings.mean_word_embedding(encoded),
        encoded.tokens,
        encoded.rare_pieces,
        embeddings.pair_features(encoded),
    )


def facts_of(router: str, routers: dict[str, Any]) -> PolicyFacts:
    """Return the facts of the shipped bundle, with the arrays of another router if named."""
    bundle = classifier().bundle
    facts = PolicyFacts.of(bundle)
    if router == "bundle":
        return facts
    arrays = {
        name: np.array(array["values"], array["dtype"]).reshape(array["shape"])
        for name, array in routers[router]["arrays"].items()
    }
    return PolicyFacts(
        centroids_DH=arrays["centroids"].astype(np.float32),
        counts_D=arrays["counts"].astype(np.int64),
        alpha=facts.alpha,
        mu=facts.mu,
        classes=facts.classes,
        mobile_layers=facts.mobile_layers,
        cost_model=facts.cost_model,
        heads=CorrectnessHeads.from_arrays(arrays),
    )


def conditions_of(given: dict[str, Any]) -> Conditions:
    """Return the conditions of a decision."""
    return Conditions(
        CostModel(**given["cost_model"], layers=6),
        {Tier(tier): delay for tier, delay in given["delay_ms"].items()},
        {Tier(tier): up for tier, up in given["up"].items()},
        given["latency_price_lambda"],
        given["left_ms"],
    )


def outcome_of(given: dict[str, Any]) -> Outcome:
    """Return an outcome."""
    return Outcome(
        Tier(given["tier"]),
        given["exit_layer"],
        given["confidence"],
        given["cost_lambda"],
        given["label"],
    )


def decision_facts(decision: RoutingDecision) -> dict[str, Any]:
    """Return the facts of a decision that both languages must have in common."""
    expectation = decision.expectation
    return {
        "tier": decision.tier.value,
        "policy": decision.policy,
        "difficulty": None if decision.difficulty is None else decision.difficulty.value,
        "alpha": decision.alpha,
        "escalate_to": None if decision.escalate_to is None else decision.escalate_to.value,
        "distances": None if decision.distances is None else _numbers(decision.distances),
        "expected_values": None
        if decision.expected_values is None
        else [None if value is None else float(value) for value in decision.expected_values],
        "expectation": None
        if expectation is None
        else {
            "expected": list(expectation.expected),
            "lead": list(expectation.lead),
            "margin": expectation.margin,
            "length": expectation.length,
            "label": expectation.label,
        },
    }


def refused(evaluate: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return what ``evaluate`` returns, or the error that it raises."""
    try:
        result: dict[str, Any] = evaluate(given)
    except DimeeError as error:
        return {"error": error.code, "field": error.field}
    return result


def _escalation(
    policy: RoutingPolicy, found: TextFeatures, decision: RoutingDecision, answer: dict[str, Any]
) -> str | None:
    outcome = outcome_of(answer)
    alpha = classifier().bundle.manifest.alpha if decision.alpha is None else decision.alpha
    reaches = outcome.tier is Tier.CLOUD or bool(meets_threshold(outcome.confidence, alpha))
    target = policy.escalate(found, decision, outcome, reaches)
    return None if target is None else target.value


def _bits(values: Any) -> str:
    return "".join(str(int(value)) for value in values)


def _vector(values: Any) -> dict[str, Any]:
    exact = np.asarray(values, np.float64)
    return {
        "first": _numbers(exact[:SHOWN]),
        "sum": float(exact.sum()),
        "norm": float(np.sqrt(exact @ exact)),
    }


def _numbers(values: Any) -> list[float | None]:
    """Return numbers as JSON has them: null for one that is not finite."""
    return [float(value) if np.isfinite(value) else None for value in values]

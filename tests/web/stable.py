"""Inputs of which rounding does not decide the result.

WebAssembly and the native runtime round differently, and so do processors. A text whose confidence
is close to a threshold may leave at another exit. Such texts are left out of the shared cases; the
comparison of the SST-2 texts (`tests.web.compare`) lists them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from shared.policies import make_known_policy
from shared.policies.bandits import thresholds
from tests.web.case_texts import SENTENCES
from tests.web.text_cases import (
    MOBILE_LAYERS,
    classifier,
    conditions_of,
    decide,
    facts_of,
    features_of,
    outcome_of,
)

CONFIDENCE = 0.01
"""Least distance of a confidence from a threshold."""
VALUE = 1e-3
"""Least difference of the two best tiers' values, or of the two smallest distances."""


@cache
def alphas() -> tuple[float, ...]:
    """Return every threshold that a case may use."""
    facts = facts_of("bundle", {})
    heads = [] if facts.heads is None else [float(facts.heads.alpha)]
    return (facts.alpha, *heads, *thresholds(facts.classes), 0.6)


@cache
def confidences(text: str) -> tuple[float, ...]:
    """Return the confidence at each exit of the mobile."""
    encoded = [classifier().encoder.encode(text)]
    layers = range(1, MOBILE_LAYERS + 1)
    return tuple(classifier().classify(encoded, None, layer)[0].confidence for layer in layers)


@cache
def stable_sentences() -> list[str]:
    """Return the sentences whose confidences are close to no threshold."""
    return [
        text
        for text in SENTENCES
        if all(abs(one - alpha) > CONFIDENCE for one in confidences(text) for alpha in alphas())
    ]


def is_stable(kind: str, given: dict[str, Any], routers: dict[str, Any]) -> bool:
    """Return whether an input's result does not depend on rounding."""
    if kind == "classify":
        alpha = given["alpha"]
        values = confidences(given["text"])
        # a confidence at one half has no label that rounding would keep
        apart = all(abs(value - (alpha or 0)) > CONFIDENCE for value in values)
        return apart and min(values) > 0.5 + CONFIDENCE
    if kind == "decide":
        return _decisions_are_stable(given, routers)
    return True


def _decisions_are_stable(given: dict[str, Any], routers: dict[str, Any]) -> bool:
    if given["router"] == "headless" and given["policy"] == "cascade-routing":
        return True
    for one in decide(given, routers)["decisions"]:
        values = [-value for value in one["expected_values"] or () if value is not None]
        values = values or [value for value in one["distances"] or () if value is not None]
        values.sort()
        if len(values) > 1 and values[1] - values[0] < VALUE:
            return False
    return given["policy"] != "cascade-routing" or _escalations_are_stable(given, routers)


def _escalations_are_stable(given: dict[str, Any], routers: dict[str, Any]) -> bool:
    """Return whether a little more or less confidence leaves the escalations as they are."""
    policy = make_known_policy(given["policy"], facts_of(given["router"], routers))
    policy.use_conditions(conditions_of(given["conditions"]))
    for text in given["texts"]:
        found = features_of(classifier().encoder.encode(text["text"], text["pair"]))
        decision = policy.route(found)
        for answer in text["answers"]:
            changed = [
                answer | {"confidence": min(1.0, answer["confidence"] + step)}
                for step in (-VALUE, 0.0, VALUE)
            ]
            targets = {policy.escalate(found, decision, outcome_of(one), False) for one in changed}
            if len(targets) > 1:
                return False
    return True

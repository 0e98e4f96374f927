"""Rules for the answers of simulated tiers of the shipped bundle, and a valid answer."""

from __future__ import annotations

import hashlib
from typing import Any

from shared.answer_rules import AnswerRules
from shared.domain import LayerRange, Tier
from tests.support.paths import BUNDLE

BUNDLE_ID = hashlib.sha256((BUNDLE / "manifest.json").read_bytes()).hexdigest()[:16]
EDGE_RULES = AnswerRules(
    Tier.EDGE, BUNDLE_ID, ("negative", "positive"), LayerRange(1, 3), max_tokens=256
)


def readiness(tier: str = "edge") -> dict[str, Any]:
    """Return the JSON object by which ``tier`` says that it is ready."""
    return {"status": "ready", "tier": tier, "bundle_id": BUNDLE_ID}


def valid_answer(attempt_id: str = "a", tier: str = "edge", **changes: Any) -> dict[str, Any]:
    """Return the JSON object of a valid answer of ``tier``, with ``changes``."""
    return {
        "attempt_id": attempt_id,
        "tier": tier,
        "label": "negative",
        "probabilities": {"negative": 0.99, "positive": 0.01},
        "confidence": 0.99,
        "exit_layer": 3 if tier == "edge" else 6,
        "tokens": 12,
        "truncated": False,
        "bundle_id": BUNDLE_ID,
        "queue_ms": 0.1,
        "compute_ms": 1.0,
        "tier_ms": 1.2,
    } | changes

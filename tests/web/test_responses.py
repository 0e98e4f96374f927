"""A tier's responses mean the same for an attempt in JavaScript and in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.answer_rules import AnswerRules
from shared.domain import LayerRange, Tier
from shared.errors import INTERNAL
from shared.tier_response import ResponseReader
from tests.web.runtimes import FOLDER, node, run

ATTEMPT, BUNDLE, ROUND_TRIP_MS = "attempt-1", "0123456789abcdef", 30.0
LABELS = ("negative", "positive")
ANSWER: dict[str, Any] = {
    "attempt_id": ATTEMPT,
    "tier": "edge",
    "label": "positive",
    "probabilities": {"negative": 0.25, "positive": 0.75},
    "confidence": 0.75,
    "exit_layer": 2,
    "tokens": 9,
    "truncated": False,
    "bundle_id": BUNDLE,
    "queue_ms": 0.5,
    "compute_ms": 4.0,
    "tier_ms": 5.0,
}
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"resumed_after": None},
    {"resumed_after": 1},
    {"attempt_id": "attempt-2"},
    {"tier": "cloud"},
    {"bundle_id": "another"},
    {"exit_layer": 3},
    {"exit_layer": 4},
    {"exit_layer": 0},
    {"exit_layer": 1.5},
    {"tokens": 0},
    {"tokens": 257},
    {"tokens": True},
    {"label": "neutral"},
    {"label": ""},
    {"probabilities": {"positive": 0.75}},
    {"probabilities": {"negative": 0.2, "positive": 0.75, "neutral": 0.05}},
    {"probabilities": {"negative": 0.35, "positive": 0.75}},
    {"probabilities": {"negative": -0.25, "positive": 0.75}},
    {"probabilities": {"negative": "0.25", "positive": 0.75}},
    {"probabilities": [0.25, 0.75]},
    {"label": "negative", "confidence": 0.25},
    {"confidence": 0.76},
    {"confidence": 0.7501},
    {"confidence": 1.5},
    {"tier_ms": 132.9},
    {"tier_ms": 133.5},
    {"queue_ms": 500.0},
    {"compute_ms": -1.0},
    {"compute_ms": "4"},
    {"truncated": 0},
    {"unknown": 1},
)
ERRORS = (
    (401, {"error": {"code": "unauthorised", "message": "no token"}}),
    (403, {"error": {"code": "forbidden", "message": "no scope"}}),
    (409, {"error": {"code": "attempt_repeated", "message": "again"}}),
    (409, {"error": {"code": "bundle_mismatch", "message": "another bundle"}}),
    (422, {"error": {"code": "invalid_input", "message": "wrong", "field": "text"}}),
    (413, {"error": {"code": "too_large", "message": "too much"}}),
    (404, {"error": {"code": "not_found", "message": "nothing"}}),
    (429, {"error": {"code": "overloaded", "message": "full", "retry_after_s": 1}}),
    (429, {"error": {"code": "rate_limited", "message": "too many", "retry_after_s": 1}}),
    (503, {"error": {"code": "not_ready", "message": "loading"}}),
    (504, {"error": {"code": "deadline_exceeded", "message": "late"}}),
    (500, {"error": {"code": "tier_failed", "message": "broken"}}),
    (500, INTERNAL),
    (503, {"error": {"code": "overloaded", "message": "another status"}}),
    (503, {"error": {"code": "unheard_of", "message": "unknown"}}),
    (503, {"error": {"code": "not_ready", "message": "loading"}, "more": 1}),
    (503, {"error": "busy"}),
    (502, "<html>bad gateway</html>"),
    (204, ""),
    (200, "{"),
    (200, "null"),
)


@pytest.fixture(scope="module")
def responses() -> list[tuple[int, str]]:
    """Status and body of each response."""
    answers = [(200, json.dumps(ANSWER | change)) for change in CHANGES]
    shorter = {name: value for name, value in ANSWER.items() if name != "tokens"}
    errors = [(s, body if isinstance(body, str) else json.dumps(body)) for s, body in ERRORS]
    return [*answers, (200, json.dumps(shorter)), *errors]


def test_responses_mean_the_same(responses: list[tuple[int, str]], tmp_path: Path) -> None:
    rules = AnswerRules(Tier.EDGE, BUNDLE, LABELS, LayerRange(1, 3), 256)
    reader = ResponseReader(Tier.EDGE, "http://edge", rules)
    contents = [
        reader.read(status, body.encode(), ATTEMPT, None, ROUND_TRIP_MS)
        for status, body in responses
    ]
    expected = [
        {
            "delivery": content.delivery.value,
            "answered": content.answer is not None,
            "error": None if content.error is None else content.error.code,
        }
        for content in contents
    ]
    assert sum(content.answer is not None for content in contents) == 5
    document = {
        "rules": {
            "tier": "edge",
            "bundleId": BUNDLE,
            "labels": LABELS,
            "firstExit": 1,
            "lastExit": 3,
            "maxTokens": 256,
        },
        "attempt": ATTEMPT,
        "roundTripMs": ROUND_TRIP_MS,
        "responses": [{"status": status, "body": body} for status, body in responses],
    }
    file = tmp_path / "responses.json"
    file.write_text(json.dumps(document))
    found = json.loads(run([node(), "responses.js", str(file)], FOLDER))
    different = [
        (response, read, due)
        for response, read, due in zip(responses, found, expected, strict=True)
        if read != due
    ]
    assert different == []

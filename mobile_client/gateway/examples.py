"""Examples of requests to the gateway, made from the bundle's sample texts."""

from __future__ import annotations

import json
import shlex
from typing import Any

from shared.domain import InputText
from shared.wire import BundleDescription

EXAMPLES = 3
MAX_CHARS = 200
"""Longest text that is preferred for an example."""
_SINGLE = InputText("a gripping, funny film")
_PAIR = InputText("the first text", "the second text")


def example_texts(description: BundleDescription, count: int = 1) -> list[InputText]:
    """Return at least one text, and at most ``count``, of the bundle's task.

    The texts are short ones of the bundle's samples with different labels, as far as it has such.
    """
    samples = description.samples or [_PAIR if description.pairs else _SINGLE]
    short = [text for text in samples if _length(text) <= MAX_CHARS]
    candidates = short or [min(samples, key=_length)]
    by_label = {text.label: text for text in reversed(candidates)}
    first_of_labels = [text for text in candidates if by_label[text.label] is text]
    others = [text for text in candidates if by_label[text.label] is not text]
    return (first_of_labels + others)[:count]


def _length(text: InputText) -> int:
    return len(text.text) + len(text.pair or "")


def classify_body(texts: list[InputText]) -> dict[str, Any]:
    """Return the body of a request to ``POST /v1/classify``."""
    body: dict[str, Any] = {"texts": [text.text for text in texts]}
    pairs = [text.pair for text in texts if text.pair is not None]
    return body | {"pairs": pairs} if pairs else body


def request_examples(description: BundleDescription) -> dict[str, Any]:
    """Return the examples of OpenAPI for the body of ``POST /v1/classify``."""
    kind = "pair of texts" if description.pairs else "text"
    texts = example_texts(description, EXAMPLES)
    examples = {
        "one": {"summary": f"one {kind}", "value": classify_body(texts[:1])},
        "limits": {
            "summary": f"one {kind}, answered on the mobile or the edge within 800 ms",
            "value": classify_body(texts[:1]) | {"mode": "edge-max", "deadline_ms": 800},
        },
    }
    if len(texts) > 1:
        examples["several"] = {"summary": "several in one call", "value": classify_body(texts)}
    return examples


def curl_command(url: str, description: BundleDescription, with_token: bool = False) -> str:
    """Return a shell command that classifies a text of the bundle's task.

    Characters that a terminal does not print are escaped. ``with_token`` sends ``$DIMEE_TOKEN``.
    """
    content = json.dumps(classify_body(example_texts(description)), ensure_ascii=False)
    printable = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in content)
    token = ' -H "authorization: Bearer $DIMEE_TOKEN"' if with_token else ""
    return (
        f"curl -s {url}/v1/classify -H 'content-type: application/json'{token} "
        f"-d {shlex.quote(printable)}"
    )

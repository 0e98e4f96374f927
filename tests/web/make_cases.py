"""Writes ``cases.json``: 500 cases that Python and JavaScript must decide alike.

Each case holds its input and Python's result. Run it after a change of behaviour, and read what the
change did to the file::

    python -m tests.web.make_cases
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.web.case_routers import ROUTERS, router_documents
from tests.web.case_sessions import session_inputs
from tests.web.case_texts import (
    INVISIBLE,
    PAIRS,
    SENTENCES,
    UNUSUAL,
    drawn_pairs,
    drawn_texts,
)
from tests.web.evaluate import BOUNDS, evaluate
from tests.web.stable import is_stable, stable_sentences

FILE = Path(__file__).parent / "cases.json"
SEED = 21
COST_MODEL = {
    "mobile_layer": 3.0,
    "edge_layer": 2.0,
    "offload_edge": 2.5,
    "offload_cloud": 3.0,
    "cloud_fee": 15.0,
}
PRICE_BOOK = {
    "version": "x",
    "edge_usd_per_hour": 0.07,
    "cloud_usd_per_hour": 0.3,
    "network_usd_per_gb": 1.5,
    "mobile_compute_mw": 2100.0,
    "mobile_radio_nj_per_byte": 430.0,
}
COUNTS = {
    "encode": 140,
    "features": 50,
    "decide": 130,
    "classify": 60,
    "prices": 20,
    "session": 100,
}
"""Number of cases of each kind: 500 together."""
DIGITS = {"prices": 12}
SIGNIFICANT = 7
"""Digits of a result's numbers: enough for the bounds."""


def inputs(kind: str) -> Iterator[dict[str, Any]]:
    """Yield the inputs of the cases of a kind, more than are used."""
    rng = random.Random(f"{SEED} {kind}")
    match kind:
        case "encode":
            return _encode(rng)
        case "features":
            return _features()
        case "decide":
            return _decide(rng)
        case "classify":
            return _classify(rng)
        case "prices":
            return _prices(rng)
        case _:
            return session_inputs(rng)


def document() -> dict[str, Any]:
    """Return the content of the file."""
    routers = router_documents()
    cases = []
    for kind, count in COUNTS.items():
        stable = (one for one in inputs(kind) if is_stable(kind, one, routers))
        for number, given in enumerate(itertools.islice(stable, count)):
            case: dict[str, Any] = {"name": f"{kind} {number}", "kind": kind, "input": given}
            expected = _rounded(evaluate(case, routers), DIGITS.get(kind, SIGNIFICANT))
            cases.append(case | {"expected": expected})
        assert sum(case["kind"] == kind for case in cases) == count, kind
    return {"bounds": BOUNDS, "routers": routers, "cases": cases}


def _encode(rng: random.Random) -> Iterator[dict[str, Any]]:
    for text in [*UNUSUAL, *INVISIBLE]:
        yield {"text": text, "pair": None, "max_tokens": 256}
    for text in drawn_texts(45, SEED):
        yield {"text": text, "pair": None, "max_tokens": rng.choice([256, 12, 8])}
    for first, second in [*PAIRS, *drawn_pairs(40, SEED)]:
        yield {"text": first, "pair": second, "max_tokens": rng.choice([256, 16, 11, 8])}


def _features() -> Iterator[dict[str, Any]]:
    for text in [*UNUSUAL[::2], *SENTENCES[::4]]:
        yield {"text": text, "pair": None}
    for first, second in [*PAIRS, *drawn_pairs(40, SEED + 1)]:
        yield {"text": first, "pair": second}


def _classify(rng: random.Random) -> Iterator[dict[str, Any]]:
    for text in [*SENTENCES, *drawn_texts(100, SEED + 2)]:
        yield {
            "text": text,
            "alpha": rng.choice([None, 0.6, 5 / 6, 5 / 6, 0.98, 1.0]),
            "last": rng.choice([None, None, 1, 2]),
            "first_exit": 1,
        }
        yield {"text": text, "alpha": 0.6, "last": None, "first_exit": 2}


def _prices(rng: random.Random) -> Iterator[dict[str, Any]]:
    while True:
        yield {
            "cost_model": COST_MODEL | {"cloud_fee": rng.choice([0.0, 1.0, 15.0])},
            "price_book": PRICE_BOOK,
            "tier": rng.choice(["mobile", "edge", "cloud"]),
            "exit_layer": rng.randint(1, 6),
            "compute_ms": round(rng.uniform(0, 500), 3),
            "moved_bytes": rng.randint(0, 5_000),
        }


def _decide(rng: random.Random) -> Iterator[dict[str, Any]]:
    policies = ("cascade-routing", "cascade-routing", "dimee-adaptive", "dimee-fixed", "adaee")
    stable = stable_sentences()
    for name in ("mobile", "edge", "cloud"):
        yield _decision(rng, name, "bundle", [(stable[0], None)])
    yield _decision(rng, "cascade-routing", "headless", [(stable[0], None)])
    # more texts than the bandit has arms, so that it also chooses by its means
    yield _decision(rng, "adaee", "bundle", [(text, None) for text in (stable * 4)[:45]])
    for pair in PAIRS[-2:]:  # one of the texts has no token: its features are unknown
        yield _decision(rng, "cascade-routing", "pairs", [pair])
    for number in itertools.count():
        name = policies[number % len(policies)]
        router = ("bundle", "bundle", *ROUTERS)[number % (2 + len(ROUTERS))]
        if router == "headless" and name == "cascade-routing":
            router = "bundle"
        count = rng.randint(2, 6) if name in ("dimee-adaptive", "adaee") else 1
        texts: list[tuple[str, str | None]]
        if router == "pairs":
            texts = list(rng.sample(drawn_pairs(30, number), count))
        else:
            texts = [(text, None) for text in rng.sample(stable, count)]
        yield _decision(rng, name, router, texts)


def _decision(
    rng: random.Random, policy: str, router: str, texts: list[tuple[str, str | None]]
) -> dict[str, Any]:
    return {
        "policy": policy,
        "router": router,
        "conditions": {
            "cost_model": COST_MODEL | {"cloud_fee": rng.choice([0.0, 5.0, 15.0, 15.0])},
            "delay_ms": {
                tier: round(rng.uniform(1, 400), 1)
                for tier in ("mobile", "edge", "cloud")
                if rng.random() < 0.6
            },
            "up": {tier: False for tier in ("edge", "cloud") if rng.random() < 0.2},
            "latency_price_lambda": rng.choice([0.0, 0.018, 0.1]),
            "left_ms": rng.choice([None, 1000.0, 150.0, 20.0]),
        },
        "texts": [
            {
                "text": text,
                "pair": pair,
                "answers": [_answer(rng) for _ in range(2)],
                "reward": _answer(rng) if policy == "adaee" else None,
            }
            for text, pair in texts
        ],
    }


def _answer(rng: random.Random) -> dict[str, Any]:
    tier = rng.choice(["mobile", "mobile", "edge", "cloud"])
    return {
        "tier": tier,
        "exit_layer": {"mobile": rng.randint(1, 2), "edge": 3, "cloud": 6}[tier],
        "confidence": round(rng.uniform(0.5, 1.0), 4),
        "cost_lambda": float(rng.randint(1, 25)),
        "label": rng.randint(0, 1),
    }


def _rounded(value: Any, digits: int) -> Any:
    """Return a JSON value with fewer digits, so that the file is readable."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        return {key: _rounded(item, digits) for key, item in value.items()}
    return [_rounded(item, digits) for item in value] if isinstance(value, list) else value


def text_of(content: dict[str, Any]) -> str:
    """Return the file's text: a line for each case."""
    bounds, routers = _line(content["bounds"]), _line(content["routers"])
    cases = ",\n".join(map(_line, content["cases"]))
    return f'{{"bounds": {bounds},\n"routers": {routers},\n"cases": [\n{cases}\n]}}\n'


def _line(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    FILE.write_text(text_of(document()), encoding="utf-8")

"""Inputs of the shared cases of whole requests."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

from tests.web.stable import stable_sentences

JITTERS = 12
"""Random numbers of a session: Python's client draws them from its seed, for waits of retries."""
POLICIES = (
    *("cascade-routing", "cascade-routing", "cascade-routing", "dimee-fixed", "dimee-adaptive"),
    *("edge", "cloud", "cloud", "edge", "mobile", "adaee"),
)
MODES = (*(("auto",) * 8), "only-on-device", "edge-max", "prefer-cloud")
CEILINGS = (*((None,) * 8), 25.0, 19.0, 9.0, 6.5, 2.0)
FAILURES = (
    {"edge": 0.0, "cloud": 0.0},
    {"edge": 0.3, "cloud": 0.3},
    {"edge": 0.7, "cloud": 0.7},
    {"edge": None, "cloud": None},
    {"edge": None, "cloud": 0.2},
)
"""Share of attempts that fail, by session; None for a tier that cannot be reached."""
FAIL_OVERS = (["edge", "cloud", "mobile"], ["edge", "cloud", "mobile"], ["cloud"], [])
WORKS_MS = {"edge": 40.0, "cloud": 90.0}
OTHERS = (
    *({"what": "gone", "ms": 1.0}, {"what": "broken", "ms": 15.0}, {"what": "hangs", "ms": 0.0}),
    *({"what": "tier_failed", "ms": 8.0}, {"what": "not_ready", "ms": 2.0}),
    *({"what": "bundle_mismatch", "ms": 4.0}, {"what": "unauthorised", "ms": 3.0}),
    {"what": "overloaded", "ms": 3.0, "retry_after_s": 0.02},
    {"what": "rate_limited", "ms": 3.0, "retry_after_s": 0.03},
    {"what": "deadline_exceeded", "ms": 30.0},
)


def session_inputs(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield sessions: one client, some requests, and what edge and cloud do at each attempt."""
    busy = {"what": "overloaded", "ms": 3.0}
    cloud, edge = _step(rng, "cloud", 0.0), _step(rng, "edge", 0.0)
    for retries in (1, 2):
        requests = [_fixed("cloud", [busy, busy, cloud]), _fixed("edge", [busy, edge])]
        yield _session(rng, [], retries, requests)
    # a policy that does not know which tiers are available, and a tier that never is
    gone = [dict(OTHERS[0])] * 4
    yield _session(rng, [], 0, [_fixed("adaee", gone) for _ in range(14)])
    for number in itertools.count():
        failures = FAILURES[number % len(FAILURES)]
        requests = [_request(rng, failures) for _ in range(rng.randint(2, 5))]
        retries = rng.choice([0, 1, 2, 2])
        yield _session(rng, FAIL_OVERS[number % len(FAIL_OVERS)], retries, requests)


def _session(
    rng: random.Random, fail_over: list[str], retries: int, requests: list[dict[str, Any]]
) -> dict[str, Any]:
    seed = rng.randrange(1_000)
    drawn = random.Random(seed)
    return {
        "settings": {
            "fail_over": fail_over,
            "retries": retries,
            "latency_price_lambda": rng.choice([0.0, 0.018]),
            "policy_seed": seed,
        },
        "jitter": [drawn.random() for _ in range(JITTERS)],
        "requests": requests,
    }


def _fixed(policy: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a request of the longest sentence, whose tiers follow the same steps."""
    options = {"policy": policy, "mode": "auto", "deadline_ms": 5_000.0, "max_cost_lambda": None}
    text = max(stable_sentences(), key=len)
    return {"text": text, "gap_s": 0.1, "options": options, "edge": steps, "cloud": steps}


def _request(rng: random.Random, failures: dict[str, float | None]) -> dict[str, Any]:
    return {
        "text": rng.choice(stable_sentences()),
        "gap_s": rng.choice([0.0, 0.1, 1.0, 6.0, 70.0]),
        "options": {
            "policy": rng.choice(POLICIES),
            "mode": rng.choice(MODES),
            "deadline_ms": rng.choice([5_000.0, 5_000.0, 1_500.0, 150.0]),
            "max_cost_lambda": rng.choice(CEILINGS),
        },
        **{tier: [_step(rng, tier, share) for _ in range(4)] for tier, share in failures.items()},
    }


def _step(rng: random.Random, tier: str, failures: float | None) -> dict[str, Any]:
    if failures is None:
        return dict(OTHERS[0])
    if rng.random() < failures:
        return dict(rng.choice(OTHERS))
    return {
        "what": "answer",
        "ms": round(WORKS_MS[tier] * rng.uniform(0.5, 4), 1),
        "label": rng.choice(["negative", "positive"]),
        "confidence": round(rng.uniform(0.55, 0.999), 3),
        "exit_layer": 6 if tier == "cloud" else rng.randint(1, 3),
    }

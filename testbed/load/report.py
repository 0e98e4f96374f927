"""Report of a run as JSON: its figures and its provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from testbed.load.accuracy import accuracy_of
from testbed.load.runner import ActionRecord
from testbed.load.sample import ENDINGS, TIERS, Sample

FORMAT = 3
MAX_BINS = 60
WORST = 10
"""Number of the slowest requests that a report lists."""
PERCENTILES = (50, 90, 95, 99)


def make_report(
    facts: dict[str, Any],
    samples: Sequence[Sample],
    actions: Sequence[ActionRecord],
    duration_s: float,
    deadline_ms: float,
) -> dict[str, Any]:
    """Return everything that the page shows; ``facts`` are settings and provenance of the run."""
    answered = [sample for sample in samples if sample.ending == "answered"]
    endings = Counter(sample.ending for sample in samples)
    over_deadline = sum(sample.latency_ms > deadline_ms + 50 for sample in samples)
    cost = sum(sample.cost_lambda for sample in answered)
    all_cloud = sum(sample.all_cloud_lambda for sample in answered)
    attempts = Counter(attempt for sample in answered for attempt in sample.attempts)
    return {
        "not_from_chosen_tier": sum(not sample.from_chosen_tier for sample in answered),
        "answered": len(answered),
        "format": FORMAT,
        **facts,
        "requests": len(samples),
        "endings": {name: endings[name] for name in ENDINGS if endings[name]},
        "error_codes": dict(Counter(sample.error_code for sample in samples if sample.error_code)),
        "answered_share": len(answered) / len(samples),
        "over_deadline_by_50_ms": over_deadline,
        "latency_ms": percentiles([sample.latency_ms for sample in answered]),
        "latency_from_sending_ms": percentiles(
            [sample.latency_ms - sample.late_ms for sample in answered]
        ),
        "sent_late_ms": percentiles([sample.late_ms for sample in samples]),
        "answered_by": {tier: sum(sample.tier == tier for sample in answered) for tier in TIERS},
        "accuracy": accuracy_of(answered),
        "tiers": {
            tier: _tier([sample for sample in answered if sample.tier == tier]) for tier in TIERS
        },
        "failed_over": sum(sample.failed_over for sample in answered),
        "escalated": sum(sample.escalated for sample in answered),
        "degraded": sum(sample.degraded for sample in answered),
        "hops_ms": _hops(answered),
        "attempts": dict(sorted(attempts.items())),
        "cost": {
            "lambda": cost,
            "all_cloud_lambda": all_cloud,
            "against_all_cloud": cost / all_cloud if all_cloud else None,
            "usd": sum(sample.cost_usd for sample in answered),
        },
        "worst": [_worst(sample) for sample in sorted(samples, key=_latency)[: -WORST - 1 : -1]],
        "over_time": _over_time(samples, duration_s),
        "actions": [asdict(action) for action in actions],
    }


def _latency(sample: Sample) -> float:
    return sample.latency_ms


def _worst(sample: Sample) -> dict[str, Any]:
    """Return where to find a slow request: its time in the run and its identifier."""
    return {
        "at_s": sample.intended_s,
        "latency_ms": sample.latency_ms,
        "ending": sample.ending,
        "tier": sample.tier,
        "error_code": sample.error_code,
        "request_id": sample.request_id,
    }


def describe_worst(one: dict[str, Any]) -> str:
    """Return a row of ``worst`` as text, with the identifier to ask the ledger for."""
    end = f"answered by {one['tier']}" if one["tier"] else one["ending"].replace("_", " ")
    code = f" ({one['error_code']})" if one["error_code"] else ""
    name = f"request {one['request_id']}" if one["request_id"] else "without an identifier"
    return f"{one['latency_ms']:,.1f} ms at {one['at_s']:.2f} s, {end}{code}, {name}"


def _tier(answered: list[Sample]) -> dict[str, Any] | None:
    """Return accuracy, latency and mean cost of the requests that one tier answered."""
    if not answered:
        return None
    return {
        "answered": len(answered),
        "accuracy": accuracy_of(answered),
        "latency_ms": percentiles([sample.latency_ms for sample in answered]),
        "cost_lambda": float(np.mean([sample.cost_lambda for sample in answered])),
    }


def percentiles(values: list[float]) -> dict[str, float] | None:
    """Return `PERCENTILES`, mean and maximum by name; None without values."""
    if not values:
        return None
    found = np.percentile(values, PERCENTILES)
    named = {f"p{p}": float(value) for p, value in zip(PERCENTILES, found, strict=True)}
    return named | {"mean": float(np.mean(values)), "max": float(np.max(values))}


def _hops(answered: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Return mean ms by answering tier and part; the parts sum to the tier's mean latency."""
    by_tier = {}
    for tier in TIERS:
        samples = [sample.hops_ms for sample in answered if sample.tier == tier]
        parts = dict.fromkeys(name for hops in samples for name in hops)
        if samples:
            by_tier[tier] = {
                part: float(np.mean([hops.get(part, 0.0) for hops in samples])) for part in parts
            }
    return by_tier


def _over_time(samples: Sequence[Sample], duration_s: float) -> list[dict[str, Any]]:
    """Return counts, endings and latency percentiles by intended time."""
    bins = max(1, min(MAX_BINS, round(duration_s), len(samples) // 20))
    width_s = duration_s / bins
    table = []
    for number in range(bins):
        start = number * width_s
        inside = [sample for sample in samples if start <= sample.intended_s < start + width_s]
        answered = [sample for sample in inside if sample.ending == "answered"]
        endings = Counter(
            sample.tier if sample.ending == "answered" else sample.ending for sample in inside
        )
        latency = percentiles([sample.latency_ms for sample in answered]) or {}
        table.append(
            {
                "from_s": start,
                "until_s": start + width_s,
                "requests": len(inside),
                "endings": {str(name): count for name, count in endings.items()},
                **{name: latency.get(name) for name in ("p50", "p95", "p99")},
            }
        )
    return table

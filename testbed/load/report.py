"""Report of a run as JSON: its figures and its provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from testbed.load.runner import ActionRecord
from testbed.load.sample import ENDINGS, TIERS, Sample

FORMAT = 2
MAX_BINS = 60
PERCENTILES = (50, 90, 95, 99)


def make_report(
    facts: dict[str, Any],
    samples: Sequence[Sample],
    actions: Sequence[ActionRecord],
    duration_s: float,
    deadline_ms: float,
) -> dict[str, Any]:
    """Return everything that the page shows; ``facts`` are settings and provenance of the run."""
    answered = [one for one in samples if one.ending == "answered"]
    endings = Counter(one.ending for one in samples)
    over = sum(one.latency_ms > deadline_ms + 50 for one in samples)
    cost = sum(one.cost_lambda for one in answered)
    all_cloud = sum(one.all_cloud_lambda for one in answered)
    attempts = Counter(attempt for one in answered for attempt in one.attempts)
    return {
        "format": FORMAT,
        **facts,
        "requests": len(samples),
        "endings": {name: endings[name] for name in ENDINGS if endings[name]},
        "error_codes": dict(Counter(one.error_code for one in samples if one.error_code)),
        "answered_share": len(answered) / len(samples),
        "over_deadline_by_50_ms": over,
        "latency_ms": _percentiles([one.latency_ms for one in answered]),
        "latency_from_sending_ms": _percentiles([one.latency_ms - one.late_ms for one in answered]),
        "sent_late_ms": _percentiles([one.late_ms for one in samples]),
        "answered_by": {tier: sum(one.tier == tier for one in answered) for tier in TIERS},
        "failed_over": sum(one.failed_over for one in answered),
        "escalated": sum(one.escalated for one in answered),
        "degraded": sum(one.degraded for one in answered),
        "hops_ms": _hops(answered),
        "attempts": dict(sorted(attempts.items())),
        "cost": {
            "lambda": cost,
            "all_cloud_lambda": all_cloud,
            "against_all_cloud": cost / all_cloud if all_cloud else None,
            "usd": sum(one.cost_usd for one in answered),
        },
        "over_time": _over_time(samples, duration_s),
        "actions": [asdict(one) for one in actions],
    }


def _percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = np.percentile(values, PERCENTILES)
    named = {f"p{p}": float(value) for p, value in zip(PERCENTILES, found, strict=True)}
    return named | {"mean": float(np.mean(values)), "max": float(np.max(values))}


def _hops(answered: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Return mean ms by answering tier and part; the parts sum to the tier's mean latency."""
    found = {}
    for tier in TIERS:
        samples = [one.hops_ms for one in answered if one.tier == tier]
        parts = dict.fromkeys(name for hops in samples for name in hops)
        if samples:
            found[tier] = {
                part: float(np.mean([hops.get(part, 0.0) for hops in samples])) for part in parts
            }
    return found


def _over_time(samples: Sequence[Sample], duration_s: float) -> list[dict[str, Any]]:
    """Return counts, endings and latency percentiles by intended time."""
    bins = max(1, min(MAX_BINS, round(duration_s), len(samples) // 20))
    width_s = duration_s / bins
    table = []
    for number in range(bins):
        start = number * width_s
        inside = [one for one in samples if start <= one.intended_s < start + width_s]
        answered = [one for one in inside if one.ending == "answered"]
        endings = Counter(one.tier if one.ending == "answered" else one.ending for one in inside)
        latency = _percentiles([one.latency_ms for one in answered]) or {}
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

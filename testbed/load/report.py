"""Samples as one JSON: the figures of a run, and how it was made."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from testbed.load.exchange import ENDINGS, TIERS, Sample
from testbed.load.runner import Happened

FORMAT = 1
MOST_BINS = 60
PERCENTILES = (50, 90, 95, 99)


def make_report(
    facts: dict[str, Any],
    samples: Sequence[Sample],
    happened: Sequence[Happened],
    duration_s: float,
    deadline_ms: float,
) -> dict[str, Any]:
    """Everything that the page shows; ``facts`` say how the run was made."""
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
        "happened": [asdict(one) for one in happened],
    }


def _percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = np.percentile(values, PERCENTILES)
    named = {f"p{p}": float(value) for p, value in zip(PERCENTILES, found, strict=True)}
    return named | {"mean": float(np.mean(values)), "max": float(np.max(values))}


def _hops(answered: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Mean ms by the tier that answered and by part; the parts sum to the mean latency."""
    found = {}
    for tier in TIERS:
        ours = [one.hops_ms for one in answered if one.tier == tier]
        parts = dict.fromkeys(name for hops in ours for name in hops)
        if ours:
            found[tier] = {
                part: float(np.mean([hops.get(part, 0.0) for hops in ours])) for part in parts
            }
    return found


def _over_time(samples: Sequence[Sample], duration_s: float) -> list[dict[str, Any]]:
    """By intended time: how many, how they ended, and percentiles of those answered."""
    bins = max(1, min(MOST_BINS, round(duration_s), len(samples) // 20))
    width_s = duration_s / bins
    table = []
    for number in range(bins):
        begin = number * width_s
        inside = [one for one in samples if begin <= one.intended_s < begin + width_s]
        answered = [one for one in inside if one.ending == "answered"]
        endings = Counter(one.tier if one.ending == "answered" else one.ending for one in inside)
        latency = _percentiles([one.latency_ms for one in answered]) or {}
        table.append(
            {
                "from_s": begin,
                "until_s": begin + width_s,
                "requests": len(inside),
                "endings": {str(name): count for name, count in endings.items()},
                **{name: latency.get(name) for name in ("p50", "p95", "p99")},
            }
        )
    return table


def made_with() -> dict[str, Any]:
    """When, by which code and on what machine."""
    return {
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "load_before": os.getloadavg()[0],
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
        "command": "dimee " + " ".join(sys.argv[1:]),
    }


def _commit() -> str:
    root = Path(__file__).parents[2]
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()

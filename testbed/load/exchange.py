"""One request to the mobile's gateway, and what its answer says. Shared with the locustfile."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from shared.wire import Classification, ClassifyResponse

PATH = "/v1/classify"
ENDINGS = ("answered", "shed", "timed_out", "unavailable", "refused", "failed", "no_answer")
"""How a request ends: 200, 429, 504, 503, another 4xx, 500; or neither answer nor clear error."""
_BY_STATUS = {429: "shed", 504: "timed_out", 503: "unavailable"}
TIERS = ("mobile", "edge", "cloud")


@dataclass(slots=True)
class Sample:
    """One request as the load saw it; times in ms, ``latency_ms`` from the intended time."""

    number: int
    intended_s: float
    late_ms: float = 0.0
    latency_ms: float = 0.0
    ending: str = "no_answer"
    error_code: str | None = None
    tier: str | None = None
    failed_over: bool = False
    escalated: bool = False
    degraded: bool = False
    cost_lambda: float = 0.0
    all_cloud_lambda: float = 0.0
    cost_usd: float = 0.0
    hops_ms: dict[str, float] = field(default_factory=dict)
    attempts: list[str] = field(default_factory=list)


def body(text: str, policy: str | None, deadline_ms: float) -> dict[str, Any]:
    """What is posted to `PATH`."""
    asked: dict[str, Any] = {"texts": [text], "deadline_ms": deadline_ms}
    return asked if policy is None else asked | {"policy": policy}


def read(sample: Sample, status: int, content: bytes) -> None:
    """Put what came back into the sample."""
    if status != 200:
        if 400 <= status < 500 and status != 429:
            sample.ending = "refused"
        else:
            sample.ending = _BY_STATUS.get(status, "failed")
        sample.error_code = _code(content)
        return
    try:
        result = ClassifyResponse.model_validate_json(content).items[0].result
    except (ValidationError, IndexError):
        result = None
    if result is None:
        sample.ending, sample.error_code = "failed", "unknown_format"
        return
    _read_result(sample, result)


def _read_result(sample: Sample, result: Classification) -> None:
    sample.ending = "answered"
    sample.tier = result.tier.value
    sample.failed_over = result.failed_over
    sample.escalated = result.escalated
    sample.degraded = result.degraded
    sample.cost_lambda = result.cost.cost_lambda
    sample.all_cloud_lambda = result.cost.all_cloud_lambda
    sample.cost_usd = result.cost.cost_usd
    sample.attempts = [
        f"{one.tier.value} {one.reason.value} {one.state.value}" for one in result.attempts
    ]
    hops = {"decision": result.decision_ms}
    lost_ms = 0.0
    for one in result.attempts:
        if one.state.value != "answered":
            lost_ms += one.round_trip_ms or 0.0
            continue
        for what, spent in (
            ("network", one.network_ms),
            ("queue", one.queue_ms),
            ("compute", one.compute_ms),
        ):
            if spent and not (one.tier.value == "mobile" and what == "network"):
                name = f"{one.tier.value} {what}"
                hops[name] = hops.get(name, 0.0) + spent
    if lost_ms:
        hops["failed attempts"] = lost_ms
    hops["mobile, other"] = max(0.0, result.total_ms - sum(hops.values()))
    hops["way to the mobile"] = max(0.0, sample.latency_ms - sample.late_ms - sum(hops.values()))
    hops["sent late"] = sample.late_ms
    sample.hops_ms = hops


def _code(content: bytes) -> str | None:
    try:
        return str(json.loads(content)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return None

"""The inputs of a routing decision, as the ledger records them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from mobile_client.options import Mode
from shared.domain import RoutingDecision


def decision_record(
    routing: RoutingDecision, mode: Mode, max_cost_lambda: float | None
) -> str | None:
    """Return the inputs of the decision as JSON, for ``dimee explain`` and ``dimee whatif``."""
    facts: dict[str, Any] = {
        "distances": routing.distances,
        "expected_values": routing.expected_values,
        "expectation": asdict(routing.expectation) if routing.expectation else None,
        "alpha": routing.alpha,
        "delay_ms": routing.delay_ms,
        "latency_price_lambda": routing.latency_price_lambda,
        "mode": None if mode == "auto" else mode,
        "max_cost_lambda": max_cost_lambda,
    }
    recorded = {name: _rounded(value) for name, value in facts.items() if value is not None}
    return json.dumps(recorded, separators=(",", ":")) if recorded else None


def _rounded(value: Any) -> Any:
    """Return ``value`` with six significant digits in every float."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_rounded(item) for item in value]
    return value

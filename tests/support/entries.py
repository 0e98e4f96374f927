"""Ledger entries of one attempt: `caller`, `tier` and `OPEN`."""

from __future__ import annotations

from typing import Any

from shared.domain import Delivery, Difficulty, Reason, Side, State, Tier
from shared.ledger.entry import LedgerEntry


def caller(attempt: str = "a1", **facts: Any) -> LedgerEntry:
    """Return the caller's entry of an attempt that the edge answered."""
    return LedgerEntry(
        **{
            "attempt_id": attempt, "side": Side.CALLER, "request_id": "r1", "ordinal": 1,
            "tier": Tier.EDGE, "state": State.ANSWERED, "reason": Reason.ROUTE,
            "policy": "dimee-fixed", "difficulty": Difficulty.MODERATE, "writer": "mobile",
            "bundle_id": "b", "started_at": 1.5, "delivery": Delivery.ARRIVED, "text_hash": "h",
            "text_chars": 7, "tokens": 5, "label": "positive", "confidence": 0.75,
            "exit_layer": 3, "resumed_after": 2, "decision_ms": 0.25, "queue_ms": 1.0,
            "compute_ms": 2.0, "tier_ms": 4.0, "round_trip_ms": 10.0, "network_ms": 6.0,
            "sent_bytes": 300, "received_bytes": 400, "cost_lambda": 3.5, "all_cloud_lambda": 12.0,
            "cost_usd": 0.001, "energy_mj": 0.35, "price_book": "p", "final": True,
            "decision": '{"alpha":0.9}', "certificate_id": "c", "degraded": False,
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7",
            "replica": "edge-1",
        }
        | facts
    )  # fmt: skip


def tier(attempt: str = "a1", **facts: Any) -> LedgerEntry:
    """Return the tier's entry of the same attempt."""
    own = dict.fromkeys(
        ("reason", "policy", "difficulty", "delivery", "round_trip_ms", "network_ms",
         "decision_ms", "cost_lambda", "all_cloud_lambda", "cost_usd", "energy_mj", "price_book")
    )  # fmt: skip
    return caller(attempt, **(own | {"side": Side.TIER, "final": False, "writer": "edge"} | facts))


OPEN = caller(state=State.OPEN, delivery=None, final=False)
"""The caller's entry while the attempt is in progress."""

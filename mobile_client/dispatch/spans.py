"""Spans of a request on the mobile: its decision, its attempts and the mobile's own layers.

Their attributes are those of the ledger's entries, with ``dimee.`` before the name.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from shared.domain import RoutingDecision, State, Tier
from shared.ledger.entry import LedgerEntry
from shared.redaction import without_credentials
from shared.telemetry.layer_spans import add_layers
from shared.telemetry.trace_context import TraceContext
from shared.tier_client import Exchange
from shared.wire import Classification

ENTRY_FIELDS = (
    "attempt_id", "ordinal", "tier", "replica", "reason", "state", "policy", "difficulty",
    "delivery", "exit_layer", "resumed_after", "confidence", "queue_ms", "compute_ms", "tier_ms",
    "network_ms", "round_trip_ms", "sent_bytes", "received_bytes", "cost_lambda", "cost_usd",
    "energy_mj", "price_book",
)  # fmt: skip
"""Fields of an entry that its span has too."""
ANSWER_FIELDS = (
    "policy", "difficulty", "tier", "exit_layer", "confidence", "failed_over", "escalated",
    "degraded", "degraded_because", "budget_exhausted", "cost_capped", "certificate_id", "tokens",
    "bundle_id",
)  # fmt: skip
"""Fields of a request's answer that its span has."""


def begin_exchange(
    attempt: TraceContext | None, url: str, path: str, tier: Tier
) -> TraceContext | None:
    """Begin the span of an HTTP exchange of an attempt; None for None."""
    if attempt is None or attempt.span_id is None:
        return attempt
    address = urlsplit(url)
    attributes = {
        "http.request.method": "POST",
        "url.full": without_credentials(url) + path,
        "url.template": path,
        "server.address": address.hostname,
        "server.port": address.port or {"https": 443}.get(address.scheme, 80),
        "dimee.tier": tier,
    }
    return attempt.child(f"POST {path}", attributes, "client")


def end_exchange(span: TraceContext | None, exchange: Exchange | None) -> None:
    """End the span of an exchange; ``exchange`` is None if it was cancelled."""
    if span is None or span.span_id is None:
        return
    if exchange is None:
        span.end(error=State.ABANDONED)
        return
    answer = exchange.answer
    network_ms = None if answer is None else max(0.0, exchange.round_trip_ms - answer.tier_ms)
    attributes = {
        "http.response.status_code": exchange.status,
        "dimee.delivery": exchange.delivery,
        "dimee.waited_ms": exchange.waited_ms,
        "dimee.round_trip_ms": exchange.round_trip_ms,
        "dimee.network_ms": network_ms,
        "dimee.sent_bytes": exchange.sent_bytes,
        "dimee.received_bytes": exchange.received_bytes,
    }
    span.end(attributes, None if exchange.error is None else exchange.error.code)


def begin_request(
    parent: TraceContext | None, routing: RoutingDecision, decision_ms: float
) -> TraceContext | None:
    """Begin the span of a request that has just been routed, with its decision; None for None."""
    if parent is None:
        return None
    now_ns = time.time_ns()
    start_ns = now_ns - int(decision_ms * 1e6)
    request = parent.child("dimee.request", start_ns=start_ns)
    request.add(
        "dimee.decision",
        start_ns,
        now_ns,
        {
            "dimee.policy": routing.policy,
            "dimee.tier": routing.tier,
            "dimee.difficulty": routing.difficulty,
            "dimee.alpha": routing.alpha,
            "dimee.distances": routing.distances,
        },
    )
    return request


def end_request(
    request: TraceContext | None, request_id: str, answer: Classification | None, error: str | None
) -> None:
    """End the span of a request: with its answer, with an error's code, or as abandoned."""
    if request is None or request.span_id is None:
        return
    facts: dict[str, Any] = {"dimee.request_id": request_id}
    if answer is not None:
        facts |= {f"dimee.{name}": getattr(answer, name) for name in ANSWER_FIELDS}
        facts |= {
            "dimee.reason": answer.attempts[-1].reason,
            "dimee.attempts": len(answer.attempts),
            "dimee.cost_lambda": answer.cost.cost_lambda,
            "dimee.all_cloud_lambda": answer.cost.all_cloud_lambda,
            "dimee.cost_usd": answer.cost.cost_usd,
        }
    request.end(facts, error)


def begin_attempt(request: TraceContext | None, wait_ms: float) -> TraceContext | None:
    """Begin the span of an attempt that starts in ``wait_ms``; None for None."""
    if request is None or request.span_id is None:
        return request
    return request.child("dimee.attempt", start_ns=time.time_ns() + int(wait_ms * 1e6))


def end_attempt(span: TraceContext, entry: LedgerEntry) -> None:
    """End the span of an attempt, with what its entry says; add the mobile's own layers."""
    if span.span_id is None:
        return
    # an earlier answer that is returned again took no time
    if entry.tier is Tier.MOBILE and entry.compute_ms:
        add_layers(span, entry.queue_ms, entry.compute_ms, 1, entry.exit_layer)
    facts = {f"dimee.{name}": getattr(entry, name) for name in ENTRY_FIELDS}
    span.end(facts, None if entry.state is State.ANSWERED else entry.error_code or entry.state)

"""Spans of the queue and the layers of one attempt, from the times that were measured."""

from __future__ import annotations

import time

from shared.telemetry.trace_context import TraceContext


def add_layers(
    span: TraceContext,
    queue_ms: float | None,
    compute_ms: float | None,
    first_layer: int,
    last_layer: int | None,
) -> None:
    """Add the spans ``dimee.queue`` and ``dimee.layers``, of which the second ends now.

    In a batch, ``compute_ms`` is the text's share of the time of the layers, and ``queue_ms``
    includes the other texts' shares.
    """
    end_ns = time.time_ns()
    start_ns = end_ns - int((compute_ms or 0.0) * 1e6)
    queued_ns = start_ns - int((queue_ms or 0.0) * 1e6)
    span.add("dimee.queue", queued_ns, start_ns, {"dimee.queue_ms": queue_ms})
    layers = {
        "dimee.first_layer": first_layer,
        "dimee.last_layer": last_layer,
        "dimee.compute_ms": compute_ms,
    }
    span.add("dimee.layers", start_ns, end_ns, layers)

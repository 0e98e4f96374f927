"""Spans of the delivery of entries, and of their storing in the ledger.

A delivery carries the entries of many traces, so it has a trace of its own, with links to them. The
ledger records ``dimee.ledger_record`` in the trace of each attempt whose end it stores.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox_table import Row
from shared.telemetry.trace_context import TraceContext
from shared.telemetry.tracing import tracer

PATH = "/v1/entries"
MAX_LINKS = 128
"""Most links of a span, which is also OpenTelemetry's default limit."""


def begin_delivery(rows: Sequence[Row]) -> TraceContext | None:
    """Begin the span of a delivery; None without tracing, or if no attempt has a span."""
    recorder = tracer()
    if recorder is None:
        return None
    with_span = (body for *_, body in rows if '"span_id":"' in body)
    entries = [json.loads(body) for body in islice(with_span, MAX_LINKS)]
    if not entries:
        return None
    from shared.telemetry.recorded_span import begin_span

    attributes = {
        "http.request.method": "POST",
        "url.template": PATH,
        "dimee.entries": len(rows),
    }
    links = [(entry["trace_id"], entry["span_id"]) for entry in entries]
    return begin_span(recorder, f"POST {PATH}", "client", attributes, links=links)


def end_delivery(span: TraceContext | None, status: int | None) -> None:
    """End the span of a delivery; ``status`` is None without a response."""
    if span is not None:
        failed = status is None or status >= 400
        error = str(status or "no response") if failed else None
        span.end({"http.response.status_code": status}, error)


@contextmanager
def recorded_storing(
    entries: Sequence[LedgerEntry], delivery: TraceContext | None
) -> Iterator[None]:
    """Record the storing of the ends of attempts that have a span, unless it raises.

    Each span is in its attempt's trace, and has a link to ``delivery``. A delivery that is repeated
    is recorded again.
    """
    recorder = tracer()
    started_ns = time.time_ns()
    yield
    if recorder is None:
        return
    from shared.telemetry.recorded_span import add_span

    times_ns = started_ns, time.time_ns()
    for entry in entries:
        if entry.trace_id is None or entry.span_id is None or not entry.is_terminal:
            continue
        attributes = {
            "dimee.attempt_id": entry.attempt_id,
            "dimee.side": entry.side,
            "dimee.tier": entry.tier,
            "dimee.state": entry.state,
        }
        parent = entry.trace_id, entry.span_id
        add_span(recorder, "dimee.ledger_record", parent, times_ns, attributes, delivery)

"""The trace of a program that calls the mobile client."""

from __future__ import annotations

import sys

from shared.telemetry.trace_context import TraceContext
from shared.telemetry.tracing import SCOPE, tracer


def begin_call(name: str) -> TraceContext | None:
    """Begin the span of a call in the program's current context; None if it records no traces.

    If the program uses OpenTelemetry, it has imported it; if not, this does not import it. The
    spans go to the program's own provider, unless `shared.telemetry.tracing` has one.
    """
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    from shared.telemetry.recorded_span import current_span

    return current_span(tracer() or api.get_tracer(SCOPE), name)

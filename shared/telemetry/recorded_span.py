"""Spans that are recorded, with OpenTelemetry's API. Importing this module imports the API."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.telemetry.trace_context import Attributes, Kind, TraceContext

SpanKey = tuple[str, str]
"""Trace id and span id, in hexadecimal digits."""
_KINDS = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_PROPAGATOR = TraceContextTextMapPropagator()


class RecordedSpan(TraceContext):
    """A span of this process."""

    __slots__ = ("_context", "_span", "_span_id", "_start_ns", "_tracer")

    def __init__(self, tracer: Tracer, span: Span, start_ns: int = 0) -> None:
        found = span.get_span_context()
        super().__init__(format_trace_id(found.trace_id))
        self._span_id = format_span_id(found.span_id)
        self._tracer = tracer
        self._span = span
        self._context = set_span_in_context(span, Context())
        self._start_ns = start_ns

    @property
    def span_id(self) -> str:
        return self._span_id

    @property
    def headers(self) -> dict[str, str]:
        return _headers(self._context)

    def child(
        self,
        name: str,
        attributes: Attributes | None = None,
        kind: Kind = "internal",
        start_ns: int | None = None,
    ) -> TraceContext:
        span = self._tracer.start_span(
            name, self._context, _KINDS[kind], _present(attributes or {}), start_time=start_ns
        )
        return _as_trace(self._tracer, span, start_ns or 0)

    def add(self, name: str, start_ns: int, end_ns: int, attributes: Attributes) -> None:
        span = self._tracer.start_span(
            name, self._context, attributes=_present(attributes), start_time=start_ns
        )
        span.end(end_ns)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(_present(attributes))

    def end(self, attributes: Attributes | None = None, error: str | None = None) -> None:
        if not self._span.is_recording():
            return
        if attributes:
            self.set(attributes)
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        # a retry that is cancelled during its wait ends before it has begun
        self._span.end(max(self._start_ns, time.time_ns()))


def begin_span(
    tracer: Tracer,
    name: str,
    kind: Kind,
    attributes: Attributes,
    parent: TraceContext | None = None,
    links: Iterable[SpanKey] = (),
) -> TraceContext:
    """Begin a span that continues ``parent``, the context of a caller, or a new trace.

    A span that is not sampled is returned as a context that records nothing.
    """
    span = tracer.start_span(
        name, _extracted(parent), _KINDS[kind], _present(attributes), [_link(*key) for key in links]
    )
    return _as_trace(tracer, span)


def add_span(
    tracer: Tracer,
    name: str,
    parent: SpanKey,
    times_ns: tuple[int, int],
    attributes: Attributes,
    link: TraceContext | None = None,
) -> None:
    """Record a span of which begin and end are known, under a sampled span of another process."""
    linked = [] if link is None or link.span_id is None else [_link(link.trace_id, link.span_id)]
    context = _extracted(TraceContext(parent[0], {"traceparent": f"00-{parent[0]}-{parent[1]}-01"}))
    span = tracer.start_span(
        name, context, attributes=_present(attributes), links=linked, start_time=times_ns[0]
    )
    span.end(times_ns[1])


def current_span(tracer: Tracer, name: str) -> TraceContext | None:
    """Begin a span in the caller's current context; None if the caller has no trace."""
    span = tracer.start_span(name)
    return _as_trace(tracer, span) if span.get_span_context().is_valid else None


def _as_trace(tracer: Tracer, span: Span, start_ns: int = 0) -> TraceContext:
    """Return the place of ``span`` in its trace; it has no children unless it is recorded."""
    if span.is_recording():
        return RecordedSpan(tracer, span, start_ns)
    trace_id = format_trace_id(span.get_span_context().trace_id)
    return TraceContext(trace_id, _headers(set_span_in_context(span, Context())))


def _extracted(parent: TraceContext | None) -> Context:
    return Context() if parent is None else _PROPAGATOR.extract(parent.headers, Context())


def _headers(context: Context) -> dict[str, str]:
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, context)
    return headers


def _link(trace_id: str, span_id: str) -> Link:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return Link(SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=flags))


def _present(attributes: Attributes) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}

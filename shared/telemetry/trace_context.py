"""W3C trace context: the trace that a caller's ``traceparent`` header names.

It needs no OpenTelemetry. A process without tracing passes the headers of its caller on unchanged,
and the ledger records the trace id, so that the attempts of a trace can be found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

Kind = Literal["internal", "server", "client"]
"""Kind of a span, as in OpenTelemetry."""
Attributes = Mapping[str, Any]
"""Attributes of a span; those with the value None are left out."""
TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
MAX_HEADER_CHARS = 512
"""Longest ``tracestate`` that is passed on, which is what the standard demands at least."""
SCOPE_KEY = "dimee.trace"
"""Key in the ASGI scope: the span of the request, if this process records one."""

_TRACEPARENT = re.compile(
    rb"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}"
    rb"(?P<more>-[!-~]*)?"
)
_TRACESTATE = re.compile(rb"[ -~\t]*")


class TraceContext:
    """A request's place in a trace: spans are made as its children.

    This class records nothing. `shared.telemetry.recorded_span.RecordedSpan` records, and has the
    same methods, so that the code of a request needs no other check than for None: no trace at all.
    """

    __slots__ = ("_headers", "trace_id")

    def __init__(self, trace_id: str, headers: dict[str, str] | None = None) -> None:
        self.trace_id = trace_id
        self._headers = headers or {}

    @property
    def span_id(self) -> str | None:
        """Identifier of the recorded span; None without one."""
        return None

    @property
    def headers(self) -> dict[str, str]:
        """W3C headers with which a request to another service continues the trace."""
        return self._headers

    def child(
        self,
        name: str,
        attributes: Attributes | None = None,
        kind: Kind = "internal",
        start_ns: int | None = None,
    ) -> TraceContext:
        """Begin a span; the caller ends it. ``start_ns`` is in nanoseconds since 1970."""
        return self

    def add(self, name: str, start_ns: int, end_ns: int, attributes: Attributes) -> None:
        """Record a span of which begin and end are known."""

    def rename(self, name: str) -> None:
        """Give the span another name."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes to the span."""

    def end(self, attributes: Attributes | None = None, error: str | None = None) -> None:
        """End the span, with the code of the ``error`` if there was one; may be repeated."""


def read_trace_context(headers: Iterable[tuple[bytes, bytes]]) -> TraceContext | None:
    """Return the context of a request with these ASGI headers; None if it has no valid one."""
    parents = [value for name, value in headers if name == TRACEPARENT]
    if len(parents) != 1:
        return None
    parsed = _TRACEPARENT.fullmatch(parents[0].strip())
    if parsed is None or not _is_valid(parsed):
        return None
    sent = {"traceparent": parsed[0].decode()}
    state = b",".join(value.strip() for name, value in headers if name == TRACESTATE)
    if state and len(state) <= MAX_HEADER_CHARS and _TRACESTATE.fullmatch(state):
        sent["tracestate"] = state.decode()
    return TraceContext(parsed["trace"].decode(), sent)


def _is_valid(parsed: re.Match[bytes]) -> bool:
    """Return whether a ``traceparent`` of the right form is valid by the W3C recommendation."""
    if parsed["version"] == b"ff" or not parsed["trace"].strip(b"0"):
        return False
    if parsed["more"] is not None and (parsed["version"] == b"00" or len(parsed[0]) > 256):
        return False
    return bool(parsed["span"].strip(b"0"))


def trace_of(scope: Mapping[str, Any]) -> TraceContext | None:
    """Return the trace of an ASGI request: this process's span, or else its caller's context."""
    span: TraceContext | None = scope.get(SCOPE_KEY)
    return read_trace_context(scope["headers"]) if span is None else span

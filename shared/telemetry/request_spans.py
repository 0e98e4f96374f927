"""Spans of the requests that a service answers, by OpenTelemetry's conventions for HTTP servers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.telemetry.trace_context import (
    SCOPE_KEY,
    Attributes,
    TraceContext,
    read_trace_context,
)
from shared.telemetry.tracing import start_tracing, stop_tracing

if TYPE_CHECKING:
    from fastapi import FastAPI
    from opentelemetry.trace import Tracer

UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are asked all the time and say nothing about a request."""
PAGES = ("/dashboard/", "/app")
"""Beginnings of the paths that a browser reads for a page."""
METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
"""Methods by which a span may be named; all others are ``_OTHER``."""
ENDS = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")
MAX_CHARS = 256
"""Longest attribute that a caller chooses."""


class RequestSpans:
    """ASGI middleware that records a span for each request, as a part of its caller's trace.

    It stops tracing when the application has ended, whose last spans are then exported.

    ``plain_paths`` are those that are answered without a route of FastAPI. With ``answers_trace``
    each response has the header ``traceresponse``, with which a caller that began no trace finds
    the one of its request.
    """

    def __init__(
        self,
        app: ASGIApp,
        tracer: Tracer,
        plain_paths: frozenset[str] = frozenset(),
        answers_trace: bool = False,
    ) -> None:
        from shared.telemetry.recorded_span import begin_span

        self._app = app
        self._tracer = tracer
        self._plain_paths = plain_paths
        self._answers_trace = answers_trace
        self._begin = begin_span

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request within a span."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, _stopping_at_end(send))
            return
        if scope["type"] != "http" or not _is_traced(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        method = method if method in METHODS else "_OTHER"
        name = f"{method} {path}" if path in self._plain_paths else method
        parent = read_trace_context(scope["headers"])
        span = self._begin(self._tracer, name, "server", _attributes(scope, method), parent)
        scope[SCOPE_KEY] = span
        status = 500

        async def send_and_record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._answers_trace:
                    message = _with_trace(message, span)
            await send(message)

        try:
            await self._app(scope, receive, send_and_record_status)
        finally:
            if span.span_id is not None:
                self._end(scope, span, method, status)

    def _end(self, scope: Scope, span: TraceContext, method: str, status: int) -> None:
        route = getattr(scope.get("route"), "path", None)
        if route is None and scope["path"] in self._plain_paths:
            route = scope["path"]
        if route is not None:
            span.rename(f"{method} {route}")
        attributes = {"http.route": route, "http.response.status_code": status}
        span.end(attributes, str(status) if status >= 500 else None)


def install_tracing(
    app: FastAPI, plain_paths: frozenset[str] = frozenset(), *, answers_trace: bool = False
) -> None:
    """Record the requests of ``app`` if the ``OTEL_*`` variables ask for it; see `RequestSpans`.

    Without tracing the application stays as it is. Install it before authentication, so that only
    admitted callers make spans.
    """
    tracer = start_tracing(app.title.replace(" ", "-"))
    if tracer is not None:
        app.add_middleware(
            RequestSpans, tracer=tracer, plain_paths=plain_paths, answers_trace=answers_trace
        )


def _is_traced(method: str, path: str) -> bool:
    """Return whether a request is recorded: not probes, and not what a browser reads for a page."""
    if path in UNTRACED:
        return False
    return method not in ("GET", "HEAD") or not (path == "/" or path.startswith(PAGES))


def _stopping_at_end(send: Send) -> Send:
    async def send_and_stop(message: Message) -> None:
        if message["type"] in ENDS:
            await asyncio.to_thread(stop_tracing)
        await send(message)

    return send_and_stop


def _attributes(scope: Scope, method: str) -> Attributes:
    server, client = scope.get("server") or (None, None), scope.get("client") or (None, None)
    agent = next((value for name, value in scope["headers"] if name == b"user-agent"), None)
    return {
        "http.request.method": method,
        "http.request.method_original": scope["method"][:MAX_CHARS] if method == "_OTHER" else None,
        "url.path": scope["path"][:MAX_CHARS],
        "url.scheme": scope["scheme"],
        "server.address": server[0],
        "server.port": server[1],
        "client.address": client[0],
        "network.protocol.version": scope["http_version"],
        "user_agent.original": None if agent is None else agent.decode("latin-1")[:MAX_CHARS],
    }


def _with_trace(message: Message, span: TraceContext) -> Message:
    header = (b"traceresponse", span.headers["traceparent"].encode())
    return {**message, "headers": [*message.get("headers", []), header]}

"""``GET /metrics`` of a service, in Prometheus's text format."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from starlette.responses import Response

from shared.errors import (
    DeadlineExceeded,
    DimeeError,
    Forbidden,
    InvalidInput,
    NotReady,
    Overloaded,
    RateLimited,
    TooLarge,
    Unauthorised,
)
from shared.serving.auth import METRICS_PATH
from shared.serving.responses import errors_sent
from shared.telemetry.metrics import ScrapedState, labelled

_AT_ZERO = tuple(
    (error.code, error.status)
    for error in (
        *(InvalidInput, TooLarge, Unauthorised, Forbidden),
        *(RateLimited, Overloaded, NotReady, DeadlineExceeded, DimeeError),
    )
)
"""Errors that are counted from zero, so that the first one is seen as an increase."""


def _no_state() -> Iterable[Metric]:
    return ()


def serve_metrics(
    app: FastAPI,
    registry: CollectorRegistry,
    read_state: Callable[[], Iterable[Metric]] = _no_state,
) -> None:
    """Add ``GET /metrics``: the registry, the errors that were sent, and the service's state.

    ``read_state`` runs on the event loop, because most state belongs to it; it must be fast. The
    rest is computed and written in a thread, one scrape at a time.
    """
    registry.register(ScrapedState(_errors))
    one_at_a_time = asyncio.Lock()

    @app.get(METRICS_PATH, response_class=Response)
    async def metrics() -> Response:
        """Return the metrics of this process for Prometheus; a token needs the scope `metrics`."""
        async with one_at_a_time:
            state = list(read_state())
            body = await run_in_threadpool(_render, registry, state)
        return Response(body, media_type=CONTENT_TYPE_LATEST)


def _render(registry: CollectorRegistry, state: list[Metric]) -> bytes:
    of_event_loop = CollectorRegistry()
    of_event_loop.register(ScrapedState(lambda: state))
    return generate_latest(registry) + generate_latest(of_event_loop)


def _errors() -> Iterable[Metric]:
    family = CounterMetricFamily(
        "dimee_errors_total",
        "Error answers by code and HTTP status, refusals and limits included.",
        labels=("code", "status"),
    )
    sent = dict.fromkeys(_AT_ZERO, 0) | errors_sent()
    yield labelled(family, {(code, str(status)): count for (code, status), count in sent.items()})

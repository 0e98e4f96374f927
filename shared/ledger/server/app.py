"""The ledger's HTTP application: it stores delivered entries and reports on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from functools import partial
from typing import Annotated, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from shared.errors import LedgerUnavailable, NotFound
from shared.ledger.delivery_spans import recorded_storing
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import StoreResult, Summary, Verification
from shared.ledger.request_list import RequestFilter, RequestList
from shared.ledger.server.metrics import LedgerMetrics, install_metrics
from shared.ledger.server.prune import prune
from shared.ledger.server.request_list import list_requests
from shared.ledger.server.settings import LedgerSettings
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.summary import summarise
from shared.ledger.server.verify import verify
from shared.serving.auth import install_auth
from shared.serving.body_limit import BodyLimit
from shared.serving.cors import install_cors
from shared.serving.docs_page import WITHOUT_FASTAPIS_PAGES, install_docs
from shared.serving.error_handlers import install_error_handlers
from shared.serving.tokens import Scope
from shared.telemetry.request_spans import install_tracing
from shared.telemetry.trace_context import TraceContext, trace_of

log = logging.getLogger(__name__)
ReportT = TypeVar("ReportT")

DAY_S = 86_400.0
RETENTION_INTERVAL_S = 3_600.0
MAX_ENTRIES = 1_000
MAX_LAST = 1_000
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_BATCH_VALUES = MAX_ENTRIES * (len(LedgerEntry.model_fields) + 1)
REPORTS = 2
"""Most reports that are computed at once. Each takes the interpreter for a long time, and many of
them would delay deliveries and probes."""


class EntryBatch(BaseModel):
    """Body of ``POST /v1/entries``: entries of one outbox."""

    model_config = ConfigDict(extra="forbid")

    entries: Annotated[list[LedgerEntry], FailFast(), Field(max_length=MAX_ENTRIES)]


_ENTRY_BATCH_OPENAPI = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": EntryBatch.model_json_schema()}},
    }
}


class RequestEntries(BaseModel):
    """Entries of one request, in the order of its attempts."""

    entries: list[LedgerEntry]


class LastRequests(BaseModel):
    """Requests, newest first, each with the entries that its caller wrote."""

    requests: list[RequestEntries]


def _required_scope(method: str, path: str) -> Scope:
    """Return the scope for a route: writing entries does not include reading them."""
    return "ledger:write" if (method, path) == ("POST", "/v1/entries") else "ledger:read"


async def _prune_hourly(store: LedgerStore, older_than_s: float, metrics: LedgerMetrics) -> None:
    while True:
        try:
            result = await run_in_threadpool(prune, store, older_than_s)
            metrics.pruned(result.requests)
            log.info("retention: %d requests removed, %d kept", result.requests, result.kept)
        except LedgerUnavailable as error:
            log.error("retention: %s", error.message)
        await asyncio.sleep(RETENTION_INTERVAL_S)


def create_app(settings: LedgerSettings) -> FastAPI:
    """Open and migrate the store, then build the application; raises `LedgerUnavailable`."""
    store = LedgerStore(settings.store_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        days = settings.ledger_retention_days
        retention = (
            None
            if days is None
            else asyncio.create_task(_prune_hourly(store, days * DAY_S, metrics))
        )
        yield
        if retention is not None:
            retention.cancel()
        store.close()

    app = FastAPI(
        title="dimee ledger",
        summary="Every attempt, recorded by its caller and by its tier",
        version="1",
        lifespan=lifespan,
        # spans are `shared.telemetry`'s: FastAPI's own take several times as long
        telemetry={"tracing": False, "metrics": False, "logs": False},
        redirect_slashes=False,
        **WITHOUT_FASTAPIS_PAGES,
    )
    install_error_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=MAX_BATCH_BYTES, max_values=MAX_BATCH_VALUES)
    install_tracing(app)
    install_auth(app, settings, _required_scope)
    install_cors(app, settings)
    install_docs(app)
    metrics = install_metrics(app, store, settings)

    def store_batch(body: bytes, trace: TraceContext | None) -> StoreResult:
        try:
            batch = EntryBatch.model_validate_json(body)
        except ValidationError as error:
            raise RequestValidationError(
                error.errors(include_url=False, include_input=False)
            ) from None
        with recorded_storing(batch.entries, trace):
            return store.upsert(batch.entries)

    # validated from the raw bytes: FastAPI's own parsing would cost as much as the database
    @app.post("/v1/entries", openapi_extra=_ENTRY_BATCH_OPENAPI)
    async def store_entries(request: Request) -> StoreResult:
        """Store a batch of entries. Sending it again changes nothing."""
        trace = trace_of(request.scope)
        storing = partial(store_batch, await request.body(), trace)
        return await run_in_threadpool(metrics.store, storing)

    reports = asyncio.Semaphore(REPORTS)

    async def report(compute: Callable[..., ReportT], *arguments: object) -> ReportT:
        with metrics.report(compute.__name__):
            async with reports:
                return await run_in_threadpool(compute, *arguments)

    @app.get("/v1/summary")
    async def summary() -> Summary:
        """Return shares, percentiles, bytes and costs."""
        return await report(summarise, store)

    @app.get("/v1/requests")
    async def requests(requested: Annotated[RequestFilter, Query()]) -> RequestList:
        """Return ended requests in short, newest first, that fit every given parameter."""
        return RequestList(requests=await report(list_requests, store, requested))

    @app.get("/v1/last-requests")
    async def last_requests(
        last: Annotated[int, Query(ge=1, le=MAX_LAST)] = 200,
        policy: Annotated[str | None, Query(max_length=64)] = None,
    ) -> LastRequests:
        """Return the last answered requests, newest first, as their callers recorded them."""
        requests = await report(store.last_requests, last, policy)
        return LastRequests(requests=[RequestEntries(entries=entries) for entries in requests])

    # a plain function: the database blocks, and FastAPI runs it in its thread pool
    @app.get("/v1/requests/{request_id}")
    def request_entries(request_id: str) -> RequestEntries:
        """Return both sides of every attempt of one request."""
        entries = store.request_entries(request_id)
        if not entries:
            raise NotFound("request_id: the ledger holds no such request")
        return RequestEntries(entries=entries)

    @app.get("/v1/verify")
    async def verification(day: Annotated[date | None, Query()] = None) -> Verification:
        """Match the two sides of every attempt, or of those of a day (UTC, by their identifiers).

        The report of a day names the requests that the mobiles began on it.
        """
        return await report(verify, store, day)

    # not in the thread pool, whose threads may all wait for a locked database
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Report that the process is alive."""
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz")
    def readyz() -> dict[str, str | None]:
        """Answer 200 if the database answers, else 503.

        ``problem`` says why the last delivery was not stored; null if it was.
        """
        store.ping()
        return {"status": "ready", "store": store.dialect, "problem": store.write_problem}

    return app

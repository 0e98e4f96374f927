"""The ledger's application: takes entries, answers what happened."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import LedgerUnavailable, NotFound
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import Summary, Verification
from shared.ledger.server.prune import prune
from shared.ledger.server.settings import LedgerSettings
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.summary import summarise
from shared.ledger.server.verify import verify
from shared.serving.auth import install_auth
from shared.serving.body_limit import BodyLimit
from shared.serving.error_handlers import install_error_handlers
from shared.serving.tokens import Scope

log = logging.getLogger(__name__)

DAY_S = 86_400.0
RETENTION_S = 3_600.0
MAX_ENTRIES = 1_000
MAX_LAST = 1_000
MAX_DELIVERY_BYTES = 8 * 1024 * 1024


class Delivery(BaseModel):
    """``POST /v1/entries``: one outbox's batch."""

    model_config = ConfigDict(extra="forbid")

    entries: Annotated[list[LedgerEntry], Field(max_length=MAX_ENTRIES)]


_DELIVERY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": Delivery.model_json_schema()}},
    }
}


class Taken(BaseModel):
    """How many entries changed the ledger, and how many it had already."""

    stored: int
    duplicates: int


class Story(BaseModel):
    """Both sides of a request's attempts, in their order."""

    entries: list[LedgerEntry]


class Stories(BaseModel):
    """Requests, newest first; of each the caller's side of its attempts, in their order."""

    requests: list[Story]


def _needs(method: str, path: str) -> Scope:
    """To deliver is not to read: whoever writes entries cannot look at anybody's."""
    return "ledger:write" if (method, path) == ("POST", "/v1/entries") else "ledger:read"


async def _retain(store: LedgerStore, older_than_s: float) -> None:
    while True:
        try:
            gone = await run_in_threadpool(prune, store, older_than_s)
            log.info("retention: %d requests forgotten, %d kept", gone.requests, gone.kept)
        except LedgerUnavailable as error:
            log.error("retention: %s", error.message)
        await asyncio.sleep(RETENTION_S)


def create_app(settings: LedgerSettings) -> FastAPI:
    """Open (and migrate) the store, then build the application; raises `LedgerUnavailable`."""
    store = LedgerStore(settings.store_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        days = settings.ledger_retention_days
        retention = None if days is None else asyncio.create_task(_retain(store, days * DAY_S))
        yield
        if retention is not None:
            retention.cancel()
        store.close()

    app = FastAPI(
        title="dimee ledger",
        summary="Every attempt, booked by its caller and by its tier",
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    install_error_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=MAX_DELIVERY_BYTES)
    install_auth(app, settings, _needs)

    def store_delivery(body: bytes) -> Taken:
        try:
            delivery = Delivery.model_validate_json(body)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from None
        stored = store.upsert(delivery.entries)
        return Taken(stored=stored.stored, duplicates=stored.duplicates)

    # parsed from its bytes in one go: FastAPI's own way costs as much again as the database
    @app.post("/v1/entries", openapi_extra=_DELIVERY)
    async def take(request: Request) -> Taken:
        """Take a batch; repeating it changes nothing."""
        return await run_in_threadpool(store_delivery, await request.body())

    # plain functions: the database blocks, and FastAPI runs them in its thread pool
    @app.get("/v1/summary")
    def summary() -> Summary:
        """Shares, percentiles, bytes and costs."""
        return summarise(store)

    @app.get("/v1/requests")
    def last(
        last: Annotated[int, Query(ge=1, le=MAX_LAST)] = 200,
        policy: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Stories:
        """The last answered requests, newest first, from the caller's side."""
        return Stories(requests=[Story(entries=found) for found in store.last(last, policy)])

    @app.get("/v1/requests/{request_id}")
    def request(request_id: str) -> Story:
        """One request's attempts, both sides."""
        entries = store.request(request_id)
        if not entries:
            raise NotFound("request_id: the ledger holds no such request")
        return Story(entries=entries)

    @app.get("/v1/verify")
    def verification() -> Verification:
        """Match both sides of every attempt."""
        return verify(store)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        """The database answers; 503 otherwise."""
        store.ping()
        return {"status": "ready", "store": store.dialect}

    return app

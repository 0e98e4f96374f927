"""The ledger's application: takes entries, answers what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import NotFound
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import Summary, Verification
from shared.ledger.settings import LedgerSettings
from shared.ledger.store import LedgerStore
from shared.ledger.summary import summarise
from shared.ledger.verify import verify
from shared.service.doors import install_doors
from shared.service.plumbing import BodyLimit, install_error_handlers
from shared.service.tokens import Scope

MAX_ENTRIES = 1_000
MAX_LAST = 1_000
MAX_DELIVERY_BYTES = 8 * 1024 * 1024


class Delivery(BaseModel):
    """``POST /v1/entries``: one outbox's batch."""

    model_config = ConfigDict(extra="forbid")

    entries: Annotated[list[LedgerEntry], Field(max_length=MAX_ENTRIES)]


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


def create_app(settings: LedgerSettings) -> FastAPI:
    """Open (and migrate) the store, then build the application; raises `LedgerUnavailable`."""
    store = LedgerStore(settings.store_url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
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
    install_doors(app, settings, _needs)

    # plain functions: the database blocks, and FastAPI runs them in its thread pool
    @app.post("/v1/entries")
    def take(delivery: Delivery) -> Taken:
        """Take a batch; repeating it changes nothing."""
        stored = store.upsert(delivery.entries)
        return Taken(stored=stored.stored, duplicates=stored.duplicates)

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

"""The phone's HTTP gateway, for those who send requests to it over the network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from mobile_client.health import PhoneHealth
from mobile_client.phone import Phone
from mobile_client.settings import MobileSettings
from shared.errors import DimeeError, NotReady
from shared.service.doors import install_doors, visitor_of
from shared.service.plumbing import BodyLimit, install_error_handlers
from shared.service.tokens import Scope
from shared.wire import MAX_BODY_BYTES, ClassifyItem, ClassifyRequest, ClassifyResponse


def create_app(settings: MobileSettings) -> FastAPI:
    """``POST /v1/classify``, ``/v1/status``, ``/healthz``, ``/readyz``; raises `BundleError`."""
    phone = Phone(settings)
    state = {"ready": False}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        state["ready"] = True
        yield
        state["ready"] = False
        await phone.close()

    app = FastAPI(
        title="dimee phone",
        summary="Classifies texts here, on the edge or in the cloud",
        version="1",
        lifespan=lifespan,
    )
    install_error_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    install_doors(app, settings, _needs)

    @app.post("/v1/classify")
    async def classify(request: ClassifyRequest, message: Request) -> ClassifyResponse:
        """Answer each text; one that got no answer carries its error instead of a result.

        A call with a single text that got no answer fails as a whole, with that error's status.
        """
        visitor_of(message).charge(len(request.texts) - 1)
        outcomes = await phone.classify(
            request.texts,
            request.pairs,
            request.policy,
            request.deadline_ms,
            client=caller_of(message, settings.client_header),
            mode=request.mode,
            max_cost_lambda=request.max_cost_lambda,
        )
        if len(outcomes) == 1 and isinstance(outcomes[0], DimeeError):
            raise outcomes[0]
        return ClassifyResponse(
            items=[
                ClassifyItem(error=outcome.payload()["error"])
                if isinstance(outcome, DimeeError)
                else ClassifyItem(result=outcome)
                for outcome in outcomes
            ]
        )

    @app.get("/v1/status")
    async def status() -> PhoneHealth:
        """The promise that is kept, the audits so far, and the alarms."""
        return phone.watch.health()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """The bundle is loaded and checked; 503 otherwise."""
        if not state["ready"]:
            raise NotReady("the phone is not ready")
        return {
            "status": "ready",
            "tier": "mobile",
            "bundle_id": phone.device.bundle.bundle_id,
            "policy": settings.policy,
            "certificate_id": phone.device.guard.certificate_id,
        }

    return app


def caller_of(message: Request, header: str) -> str:
    """Who asks: the header that a proxy fills in, else the token's name, else the address."""
    named = message.headers.get(header) if header else None
    return (named or visitor_of(message).client)[:64]


def _needs(_method: str, path: str) -> Scope:
    """The status names other clients, and has a scope of its own."""
    return "status" if path == "/v1/status" else "classify"

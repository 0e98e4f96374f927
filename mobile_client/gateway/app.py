"""The mobile's HTTP gateway, for those who send requests to it over the network."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mobile_client.monitoring.health import MobileHealth
from mobile_client.resilience.concurrency_limit import AIMDLimiter
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.errors import DeadlineExceeded, DimeeError, NotReady, Overloaded
from shared.serving.auth import install_auth, principal_of
from shared.serving.body_limit import BodyLimit
from shared.serving.disconnect import cancel_on_disconnect
from shared.serving.error_handlers import install_error_handlers
from shared.serving.responses import error_response
from shared.serving.tokens import Scope as Right
from shared.wire import MAX_BODY_BYTES, ClassifyItem, ClassifyRequest, ClassifyResponse

CLASSIFY = "/v1/classify"
ARRIVED = "dimee.arrived"
"""In the ASGI scope: when the request was first seen, of `time.perf_counter`."""
DEADLINE_MS = "dimee.deadline_ms"
"""There as well: the deadline of a call with one text."""


class ConcurrencyLimitMiddleware:
    """ASGI middleware that refuses calls with 429 above the limit of `AIMDLimiter`."""

    def __init__(self, app: ASGIApp, crowd: AIMDLimiter) -> None:
        self._app = app
        self._crowd = crowd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on, and learn how long it took."""
        if scope["type"] != "http" or scope["path"] != CLASSIFY or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        arrived = scope[ARRIVED] = time.perf_counter()
        try:
            self._crowd.enter()
        except Overloaded as error:
            await error_response(error)(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if DEADLINE_MS in scope and status in (200, DeadlineExceeded.status):
                took_s = time.perf_counter() - arrived
                self._crowd.leave(took_s, scope[DEADLINE_MS] / 1e3, status != 200)
            else:
                self._crowd.forget()


def create_app(settings: MobileSettings) -> FastAPI:
    """``POST /v1/classify``, ``/v1/status``, ``/healthz``, ``/readyz``; raises `BundleError`."""
    mobile = MobileService(settings)
    state = {"ready": False}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        state["ready"] = True
        yield
        state["ready"] = False
        await mobile.close()

    app = FastAPI(
        title="dimee mobile",
        summary="Classifies texts here, on the edge or in the cloud",
        version="1",
        lifespan=lifespan,
    )
    install_error_handlers(app)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    app.add_middleware(ConcurrencyLimitMiddleware, crowd=AIMDLimiter(settings.max_queue))
    install_auth(app, settings, _needs)

    @app.post(CLASSIFY)
    async def classify(request: ClassifyRequest, message: Request) -> ClassifyResponse:
        """Answer each text; one that got no answer carries its error instead of a result.

        A call with a single text that got no answer fails as a whole, with that error's status.
        Its deadline counts from when the call arrived; in a call of many, that of each text counts
        from when its turn comes.
        """
        if len(request.texts) == 1:
            message.scope[DEADLINE_MS] = request.deadline_ms or settings.deadline_ms
        principal_of(message).charge(len(request.texts) - 1)
        work = mobile.classify(
            request.texts,
            request.pairs,
            request.policy,
            request.deadline_ms,
            client=caller_of(message, settings.client_header),
            mode=request.mode,
            max_cost_lambda=request.max_cost_lambda,
            since=message.scope[ARRIVED],
        )
        outcomes = await cancel_on_disconnect(message.receive, work)
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
    async def status() -> MobileHealth:
        """The promise that is kept, the audits so far, and the alarms."""
        return mobile.monitor.health()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """The bundle is loaded and checked; 503 otherwise."""
        if not state["ready"]:
            raise NotReady("the mobile is not ready")
        return {
            "status": "ready",
            "tier": "mobile",
            "bundle_id": mobile.runtime.bundle.bundle_id,
            "policy": settings.policy,
            "certificate_id": mobile.runtime.guard.certificate_id,
        }

    return app


def caller_of(message: Request, header: str) -> str:
    """Who asks: the header that a proxy fills in, else the token's name, else the address."""
    named = message.headers.get(header) if header else None
    return (named or principal_of(message).display_name)[:64]


def _needs(_method: str, path: str) -> Right:
    """The status names other clients, and has a scope of its own."""
    return "status" if path == "/v1/status" else "classify"

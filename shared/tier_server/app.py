"""FastAPI application of one tier. Edge and cloud differ in their layers and exit threshold."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request

from shared.errors import NotReady
from shared.field_types import Alpha, Count, Identifier, Ordinal, TimeLeftMs, Word
from shared.inference.codec import MEDIA_TYPE
from shared.serving.auth import install_auth, require
from shared.serving.body_limit import BodyLimit
from shared.serving.cors import install_cors
from shared.serving.docs_page import WITHOUT_FASTAPIS_PAGES, install_docs
from shared.serving.error_handlers import install_error_handlers
from shared.settings import TierSettings
from shared.telemetry.request_spans import install_tracing
from shared.telemetry.trace_context import trace_of
from shared.tier_server.infer_endpoint import PATH, InferEndpoint
from shared.tier_server.metrics import install_metrics
from shared.tier_server.replica_header import ReplicaHeader
from shared.tier_server.service import TierService
from shared.wire import (
    MAX_BODY_BYTES,
    InferRequest,
    InferResponse,
    ResumeRequest,
)

log = logging.getLogger(__name__)

RESUME_PATH = "/v1/resume"
MAX_VALUES = 100
"""Most JSON values of a request; `InferRequest` has fewer than ten."""
RESUME_BODY = {
    "requestBody": {
        "required": True,
        "description": "a layer's output for one text, written by `shared.inference.codec.encode`: "
        "safetensors with the codec fp16 or int8",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


def create_tier_app(service: TierService, settings: TierSettings) -> FastAPI:
    """Return the application: ``POST /v1/infer`` and ``/v1/resume``, health, readiness, OpenAPI.

    Valid requests for ``/v1/infer`` are answered by `InferEndpoint`, all others by FastAPI.
    """
    if settings.price_book is not None:
        log.warning(
            "DIMEE_PRICE_BOOK=%s has no effect on the %s: only the mobile client records prices",
            settings.price_book,
            service.tier,
        )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(
        title=f"dimee {service.tier}",
        summary=f"Layers {service.layers.first} to {service.layers.last} of a text classifier",
        version="1",
        lifespan=lifespan,
        # spans are `shared.telemetry`'s: FastAPI's own would cost a tenth of a refusal's time even
        # without an exporter
        telemetry={"tracing": False, "metrics": False, "logs": False},
        **WITHOUT_FASTAPIS_PAGES,
    )
    app.state.service = service
    # each middleware is called before those that were added earlier
    app.add_middleware(InferEndpoint, service=service)
    install_error_handlers(app)
    app.add_middleware(
        BodyLimit, max_bytes=MAX_BODY_BYTES, max_values=MAX_VALUES, binary={RESUME_PATH}
    )
    install_tracing(app, frozenset({PATH}))
    install_auth(app, settings, require("infer"))
    install_docs(app)
    install_metrics(app, service, settings)
    app.add_middleware(ReplicaHeader, replica=settings.replica)
    install_cors(app, settings)

    @app.post(PATH)
    async def infer(request: InferRequest, http_request: Request) -> InferResponse:
        """Answer one attempt with this tier's layers."""
        trace = trace_of(http_request.scope)
        return await service.infer(request, http_request.receive, trace)

    @app.post(RESUME_PATH, openapi_extra=RESUME_BODY)
    async def resume(
        request: Annotated[ResumeRequest, Depends(_resume_request)], http_request: Request
    ) -> InferResponse:
        """Answer one attempt from a hidden state, with this tier's layers after the state's layer.

        The attempt's fields are headers; the body is the state. The answer is 409 for a state of
        another bundle and 422 for a state after a layer that this tier cannot resume from.
        """
        state = await http_request.body()
        trace = trace_of(http_request.scope)
        return await service.resume(request, state, http_request.receive, trace)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Answer 200 while the process runs."""
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """Answer 200 with the tier's bundle, layers and device when it accepts requests, else 503.

        ``ledger`` is null, or tells which entries cannot be delivered to the ledger, and why.
        ``outbox`` is the state of the entries on disk; the answer is 503 while none can be written.
        """
        if not service.ready:
            raise NotReady(f"the {service.tier} is not ready")
        outbox = service.outbox_report()
        outbox.check()
        return {
            "status": "ready",
            "tier": service.tier.value,
            "replica": settings.replica,
            "bundle_id": service.bundle.bundle_id,
            "layers": service.layers.last,
            "device": service.device,
            "certificate_id": service.certificate_id,
            "ledger": service.undelivered(),
            "outbox": outbox,
        }

    return app


def _resume_request(
    dimee_request_id: Annotated[Identifier, Header()],
    dimee_attempt_id: Annotated[Identifier, Header()],
    dimee_ordinal: Annotated[Ordinal, Header()] = 1,
    dimee_deadline_ms: Annotated[TimeLeftMs, Header()] = 5_000.0,
    dimee_alpha: Annotated[Alpha | None, Header()] = None,
    dimee_text_hash: Annotated[Word | None, Header()] = None,
    dimee_text_chars: Annotated[Count | None, Header()] = None,
) -> ResumeRequest:
    return ResumeRequest(
        request_id=dimee_request_id,
        attempt_id=dimee_attempt_id,
        ordinal=dimee_ordinal,
        deadline_ms=dimee_deadline_ms,
        alpha=dimee_alpha,
        text_hash=dimee_text_hash,
        text_chars=dimee_text_chars,
    )

"""The mobile's HTTP gateway, for clients that do not run the SDK in their own process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import Body, FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mobile_client.dispatch.tier_wait import TierWait, measure_tier_wait
from mobile_client.gateway.dashboard.install import (
    CLASSIFY_AND_EXPLAIN,
    OPEN_PATHS,
    install_dashboard,
)
from mobile_client.gateway.dashboard.install import required_scope as dashboard_scope
from mobile_client.gateway.examples import example_texts, request_examples
from mobile_client.gateway.metrics import install_metrics
from mobile_client.gateway.protocols.calls import ProtocolCalls
from mobile_client.gateway.protocols.grpc_lifespan import check_grpc, serving_grpc
from mobile_client.gateway.protocols.installation import (
    PROBES,
    binary_paths,
    call_paths,
    install_protocols,
)
from mobile_client.monitoring.health import MobileHealth
from mobile_client.options import RequestOptions
from mobile_client.resilience.concurrency_limit import AIMDLimiter
from mobile_client.resilience.loop_lag import LoopLag
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from mobile_client.web.install import install_web_app, is_open_file
from shared.bundle.description import describe
from shared.errors import DeadlineExceeded, DimeeError, NotReady, Overloaded
from shared.ledger.recording_state import OutboxReport
from shared.serving.auth import install_auth, principal_of
from shared.serving.body_limit import BodyLimit
from shared.serving.cors import install_cors
from shared.serving.disconnect import cancel_on_disconnect
from shared.serving.docs_page import WITHOUT_FASTAPIS_PAGES, install_docs
from shared.serving.error_handlers import install_error_handlers
from shared.serving.responses import send_error
from shared.serving.sessions import Sessions
from shared.serving.tokens import Scope as Right
from shared.telemetry.request_spans import install_tracing
from shared.telemetry.trace_context import trace_of
from shared.wire import (
    MAX_BODY_BYTES,
    MAX_TEXTS,
    BundleDescription,
    Classification,
    ClassifyItem,
    ClassifyRequest,
    ClassifyResponse,
)

CLASSIFY = "/v1/classify"
MAX_VALUES = 4 * MAX_TEXTS
"""Most JSON values of a call: texts and pairs, and as many again for the error that counts them."""
WEB_SAMPLES = 20
"""Most sample texts that the app for browsers offers."""
ARRIVED = "dimee.arrived"
"""Key in the ASGI scope: arrival of the whole request, in seconds of `time.perf_counter`."""
DEADLINE_MS = "dimee.deadline_ms"
"""Key in the ASGI scope: deadline of a call with one text, in milliseconds."""


class ConcurrencyLimitMiddleware:
    """ASGI middleware that refuses calls with 429 above the limit of `AIMDLimiter`.

    ``paths`` are those of the calls that classify.
    """

    def __init__(
        self,
        app: ASGIApp,
        limiter: AIMDLimiter,
        paths: Container[str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._paths = paths
        self._clock = clock
        self._lag = LoopLag(lambda: limiter.in_flight > 0, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a call, and adapt the limit to its duration."""
        if scope["type"] != "http" or scope["path"] not in self._paths or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        arrived = scope[ARRIVED] = self._clock()
        try:
            self._limiter.acquire()
        except Overloaded as error:
            await send_error(send, error)
            return
        self._lag.watch()
        wait = TierWait(self._clock)
        status = 0

        async def send_and_record_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            with measure_tier_wait(wait):
                await self._app(scope, receive, send_and_record_status)
        finally:
            if DEADLINE_MS in scope and status in (200, DeadlineExceeded.status):
                took_s, deadline_s = self._clock() - arrived, scope[DEADLINE_MS] / 1e3
                late = status != 200
                self._limiter.release(took_s, deadline_s, late, wait.total_s, self._lag.seconds)
            else:
                self._limiter.discard()


def create_app(settings: MobileSettings) -> FastAPI:
    """Return the gateway: ``POST /v1/classify``, ``/v1/bundle``, ``/v1/status`` and the probes.

    Raises `BundleError` if the bundle cannot be used.
    """
    check_grpc(settings)
    mobile = MobileService(settings)
    description = describe(mobile.runtime.bundle)
    body = Body(openapi_examples=request_examples(description))
    state = {"ready": False}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        mobile.check_process()
        state["ready"] = True
        mobile.tier_readiness()
        async with serving_grpc(app, settings):
            yield
            state["ready"] = False
        close_dashboard()
        await close_web_app()
        await mobile.close()

    app = FastAPI(
        title="dimee mobile",
        summary="Classifies texts on the mobile, on the edge or in the cloud",
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
        **WITHOUT_FASTAPIS_PAGES,
        # spans are `shared.telemetry`'s: FastAPI's own take several times as long
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    # each middleware is called before those that were added earlier: a call whose body is still
    # arriving takes no place of the limiter
    limiter = AIMDLimiter(settings.max_queue)
    app.add_middleware(
        ConcurrencyLimitMiddleware,
        limiter=limiter,
        paths=call_paths(description) | {CLASSIFY, CLASSIFY_AND_EXPLAIN},
    )
    install_error_handlers(app)
    app.add_middleware(
        BodyLimit,
        max_bytes=MAX_BODY_BYTES,
        max_values=MAX_VALUES,
        binary=binary_paths(description),
    )
    install_tracing(app, answers_trace=True)
    sessions = Sessions()
    install_auth(app, settings, partial(_required_scope, settings), sessions, OPEN_PATHS)
    install_cors(app, settings)
    install_docs(app)
    install_metrics(app, mobile, limiter, lambda: state["ready"])

    async def answer(
        message: Request, texts: list[str], pairs: list[str] | None, options: RequestOptions
    ) -> list[Classification | DimeeError]:
        """Answer the texts of a call, of any protocol; its path is one of the limiter's."""
        if len(texts) == 1:
            message.scope[DEADLINE_MS] = options.deadline_ms or settings.deadline_ms
        principal_of(message).charge(max(0, len(texts) - 1))
        work = mobile.classify(
            texts,
            pairs,
            options,
            client=client_name(message, settings.client_header),
            since=message.scope[ARRIVED],
            trace=trace_of(message.scope),
        )
        return await cancel_on_disconnect(message.receive, work)

    @app.post(CLASSIFY)
    async def classify(message: Request, request: ClassifyRequest = body) -> ClassifyResponse:
        """Answer each text; a text without an answer has an error in place of a result.

        A call with a single text fails as a whole, with the status of its error. Its deadline
        counts from the arrival of the call. In a call of several texts, the deadline of each counts
        from the start of its routing.
        """
        options = RequestOptions(
            request.policy, request.deadline_ms, request.mode, request.max_cost_lambda
        )
        outcomes = await answer(message, request.texts, request.pairs, options)
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

    @app.get("/v1/bundle")
    async def bundle() -> BundleDescription:
        """Return the task and the labels of the bundle, and sample texts."""
        return description

    @app.get("/v1/status")
    async def status() -> MobileHealth:
        """Return the certificate in force, the audits, the alarms and undelivered entries."""
        return mobile.monitor.health().model_copy(
            update={
                "ledger": mobile.undelivered(),
                "outbox": mobile.outbox_report(),
                "replicas": mobile.replicas.report(),
            }
        )

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Return 200 while the process is alive."""
        return {"status": "ok"}

    def check_ready() -> OutboxReport:
        if not state["ready"]:
            raise NotReady("the mobile is not ready")
        outbox = mobile.outbox_report()
        outbox.check()
        return outbox

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        """Return 200 once the bundle is loaded and checked, else 503.

        The mobile answers without other tiers, so it is ready without them. ``tiers`` is the state
        of each: ``ready``, ``not ready`` or ``unreachable``, ``failing`` if it says that it is
        ready but fails requests, or ``unknown`` before it was reached for the first time.
        ``replicas`` has the same of each replica, for tiers with several, and its name if known.
        ``ledger`` is null, or tells which entries cannot be delivered to the ledger, and why.
        ``outbox`` is the state of the entries on disk; the answer is 503 while none can be written.
        """
        outbox = check_ready()
        return {
            "status": "ready",
            "tier": "mobile",
            "bundle_id": mobile.runtime.bundle.bundle_id,
            "policy": mobile.runtime.request_options.policy,
            "certificate_id": mobile.runtime.guard.certificate_id,
            "tiers": mobile.tier_readiness(),
            "replicas": {
                tier: [{"replica": one.replica, "ready": one.ready} for one in several]
                for tier, several in mobile.replicas.report().items()
                if len(several) > 1
            },
            "ledger": mobile.undelivered(),
            "outbox": outbox,
        }

    close_dashboard = install_dashboard(app, mobile, description, sessions, answer)
    install_protocols(app, ProtocolCalls(mobile, description, answer, check_ready))
    close_web_app = install_web_app(app, mobile, example_texts(description, WEB_SAMPLES))
    return app


def client_name(message: Request, header: str) -> str:
    """Return the client's name: the proxy's ``header``, else the token's name, else the address."""
    header_value = message.headers.get(header) if header else None
    return (header_value or principal_of(message).display_name)[:64]


def _required_scope(settings: MobileSettings, method: str, path: str) -> Right | None:
    """Return the scope that a call needs; the status names other clients, so it has its own."""
    if path in PROBES or is_open_file(method, path, settings):
        return None
    return "status" if path == "/v1/status" else dashboard_scope(method, path)

"""Adds the page to the gateway: its files, its sign-in and its calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from mobile_client.gateway.dashboard import state as page_state
from mobile_client.gateway.dashboard.classification import ClassifyText, classify_and_explain
from mobile_client.gateway.dashboard.event_feed import EventFeed
from mobile_client.gateway.dashboard.event_stream import EventStreamResponse
from mobile_client.gateway.dashboard.live_stats import LiveStats
from mobile_client.gateway.dashboard.operator_calls import NOT_STORED, OperatorCalls
from mobile_client.gateway.dashboard.outbox_sampler import OutboxSampler
from mobile_client.gateway.protocols.calls import Answer
from mobile_client.service import MobileService
from mobile_client.web import SHARED
from shared.serving.auth import principal_of
from shared.serving.docs_page import GET_OR_HEAD
from shared.serving.packaged_files import PackagedFiles
from shared.serving.server import is_stopping
from shared.serving.sessions import COOKIE, SESSION_S, Sessions
from shared.serving.tokens import Scope
from shared.wire import BundleDescription

STATIC = Path(__file__).parent / "static"
API = "/dashboard/api"
OPEN_PATHS = frozenset({f"{API}/state"})
CLASSIFY_AND_EXPLAIN = f"{API}/classify"
FILES = "/dashboard/static"
OF_OPERATORS = ("events", "requests", "whatif", "links")
"""Calls that show or change what concerns other clients."""
SESSION_COOKIE: dict[str, Any] = {"httponly": True, "samesite": "strict", "path": "/"}


def required_scope(method: str, path: str) -> Scope | None:
    """Return the scope that a call of the page needs; None for the page and its files."""
    if method in GET_OR_HEAD and (path == "/" or path.startswith(f"{FILES}/")):
        return None
    if path.startswith(tuple(f"{API}/{name}" for name in OF_OPERATORS)):
        return "status"
    return "classify"


def install_dashboard(
    app: FastAPI,
    mobile: MobileService,
    description: BundleDescription,
    sessions: Sessions,
    answer: Answer,
) -> Callable[[], None]:
    """Serve the page at ``/`` and its calls below ``/dashboard``.

    ``answer`` answers the texts of a call as ``POST /v1/classify`` does.
    Returns a function that ends its threads, to be called before ``mobile`` is closed.
    """
    _install_files(app)
    _install_sign_in(app, sessions)
    operator_calls = OperatorCalls(mobile)
    operator_calls.install(app, API)
    stats, outbox = LiveStats(), OutboxSampler(mobile.outbox)
    mobile.recorder.on_end.append(stats.attempt_ended)

    def current_figures() -> dict[str, object]:
        return {
            **stats.snapshot(),
            "in_flight": mobile.in_flight,
            "queue": mobile.runtime.waiting_texts,
            **outbox.latest(),
            "tiers": page_state.tiers(mobile),
            "alarms": page_state.alarms(mobile),
        }

    feed = EventFeed(stats, current_figures, lambda: is_stopping(app))
    fixed = page_state.fixed_state(mobile, description)

    @app.get(f"{API}/state", include_in_schema=False, dependencies=NOT_STORED)
    async def state(request: Request) -> dict[str, Any]:
        """Return what the page shows before anything happens."""
        caller, ranges = principal_of(request), fixed["layers"]
        auth_required = mobile.settings.tokens is not None
        if auth_required and caller.token is None:
            return {"signed_in": False, "auth_required": True}
        operator = "status" in caller.scopes
        return {
            **{name: value for name, value in fixed.items() if name != "layers"},
            "signed_in": caller.token is not None,
            "auth_required": auth_required,
            "name": caller.display_name,
            "scopes": list(caller.scopes),
            "tiers": [
                {"tier": tier, **ranges[tier], **known}
                for tier, known in page_state.tiers(mobile).items()
            ],
            "prices": page_state.prices(mobile),
            "alarms": page_state.alarms(mobile) if operator else [],
            "links": await operator_calls.link_states() if operator else [],
            "ledger": page_state.ledger_problem(mobile),
        }

    @app.post(CLASSIFY_AND_EXPLAIN, include_in_schema=False)
    async def classify(message: Request, request: ClassifyText) -> Response:
        """Classify one text and explain its way."""
        return await classify_and_explain(mobile, answer, message, request)

    @app.get(f"{API}/events", include_in_schema=False)
    async def events(request: Request) -> Response:
        """Return the stream of figures and ended requests."""
        feed.check_room()
        last_id = request.headers.get("last-event-id", "")
        return EventStreamResponse(feed, last_id, principal_of(request).is_valid)

    def close() -> None:
        outbox.close()
        operator_calls.close()

    return close


def _install_files(app: FastAPI) -> None:
    files, shared = PackagedFiles(STATIC), PackagedFiles(SHARED)

    @app.api_route("/", methods=GET_OR_HEAD, include_in_schema=False)
    async def page(request: Request) -> Response:
        """Return the page."""
        return await files.response("index.html", request.headers)

    @app.api_route(f"{FILES}/shared/{{name:path}}", methods=GET_OR_HEAD, include_in_schema=False)
    async def shared_file(request: Request, name: str) -> Response:
        """Return a file that the page has in common with the app."""
        return await shared.response(name, request.headers)

    @app.api_route(f"{FILES}/{{name:path}}", methods=GET_OR_HEAD, include_in_schema=False)
    async def file(request: Request, name: str) -> Response:
        """Return a file of the page."""
        return await files.response(name, request.headers)


def _install_sign_in(app: FastAPI, sessions: Sessions) -> None:
    @app.post("/dashboard/sign-in", include_in_schema=False)
    async def sign_in(request: Request) -> Response:
        """Begin a session of the caller, who has sent a token."""
        response = Response(status_code=204)
        token = principal_of(request).token
        if token is not None:
            response.set_cookie(
                COOKIE,
                sessions.begin(token),
                max_age=SESSION_S,
                secure=request.url.scheme == "https",
                **SESSION_COOKIE,
            )
        return response

    @app.post("/dashboard/sign-out", include_in_schema=False)
    async def sign_out(request: Request) -> Response:
        """End the caller's session."""
        sessions.end(request.cookies.get(COOKIE, ""))
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, secure=request.url.scheme == "https", **SESSION_COOKIE)
        return response

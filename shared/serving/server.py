"""What every FastAPI service shares: one error body, a bound on bodies, one way to serve."""

from __future__ import annotations

import gc
import json
import logging
import resource
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import INTERNAL, DimeeError, InvalidInput, NotFound, TooLarge
from shared.serving.auth import refuse_unprotected_service
from shared.serving.redaction import RedactErrors
from shared.serving.tls import tls_options
from shared.settings import ServiceSettings, is_loopback, read_settings

log = logging.getLogger(__name__)
SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error with ``{"error": {…}}``; nothing of the input or the inside is echoed."""

    @app.exception_handler(DimeeError)
    async def expected(_: Request, error: Exception) -> Response:
        assert isinstance(error, DimeeError)
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(_first_problem(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return error_response(NotFound("path: there is nothing here; see /docs"))
        if error.status_code == 400:  # the framework's own word for bytes that are no text
            return error_response(InvalidInput("body: is not valid JSON", field="body"))
        body = {"error": {"code": "http", "message": str(error.detail)}}
        return _response(body, error.status_code, dict(error.headers or {}))

    app.add_middleware(RedactErrors)


def error_response(error: DimeeError) -> Response:
    """The HTTP answer of an error, with ``Retry-After`` where it says when to come back."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    return _response(error.payload(), error.status, headers)


def internal_response() -> Response:
    """The answer to what nobody expected."""
    return _response(INTERNAL, 500)


def _response(body: object, status: int, headers: dict[str, str] | None = None) -> Response:
    # ASCII only: a message may not be encodable otherwise
    content = json.dumps(body, ensure_ascii=True)
    return Response(content, status, headers, media_type="application/json")


def _first_problem(problems: Any) -> DimeeError:
    """One sentence about the first wrong field, from pydantic's own words."""
    problem = problems[0]
    if problem["type"] == "json_invalid":
        return InvalidInput("body: is not valid JSON", field="body")
    parts = [str(part) for part in problem["loc"] if part != "body"]
    field = ".".join(parts) or "body"
    context = problem.get("ctx", {})
    bounds = ("le", "lt", "ge", "gt", "max_length", "min_length")
    limit = next((context[name] for name in bounds if name in context), None)
    if problem["type"] == "extra_forbidden":
        message = f"{field}: is not a known field; leave it out"
    elif problem["type"] == "missing":
        message = f"{field}: is missing"
    else:
        message = f"{field}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
    kind = TooLarge if problem["type"] == "too_long" else InvalidInput
    number = limit if isinstance(limit, int | float) else None
    return kind(message[:300], field=field[:100], limit=number)


class BodyLimit:
    """ASGI middleware: refuses a body over ``max_bytes`` with 413, declared or chunked."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on while its body stays within the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                await self._refuse(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        sent = False

        async def whole() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, whole, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = TooLarge(
            f"body: is larger than {self._max_bytes:,} bytes, the most that is taken at once",
            field="body",
            limit=self._max_bytes,
        )
        response = error_response(error)
        response.headers["connection"] = "close"
        await response(scope, receive, send)


SWITCH_S = 0.00005
"""The event loop asks for the interpreter after every read and write: with 0.5 ms it refused 1,500
a second beside a busy thread, whatever a refusal cost."""
MOST_FILES = 65_536


def run_server(create_app: Callable[[SettingsT], FastAPI], settings: type[SettingsT]) -> None:
    """Serve until SIGTERM or SIGINT; a wrong setting or bundle is one sentence and exit code 2."""
    try:
        loaded = read_settings(settings)
        logging.basicConfig(
            level=loaded.log_level.upper(), format="%(levelname)s %(name)s %(message)s"
        )
        refuse_unprotected_service(loaded)
        tls = tls_options(loaded)
        app = create_app(loaded)
    except DimeeError as error:
        print(f"dimee: {error.message}", file=sys.stderr)
        sys.exit(2)
    if loaded.tokens is not None and not tls and not is_loopback(loaded.host):
        log.warning("tokens and texts cross the network in the clear; set DIMEE_TLS_CERT")
    # the layers' thread asks for the interpreter after each layer, and must not wait 5 ms for it
    sys.setswitchinterval(SWITCH_S)
    allow_connections()
    # what was loaded stays: a collection that looks through all of it is a pause of every request
    gc.collect()
    gc.freeze()
    options = server_options(app)
    uvicorn.run(
        app, host=loaded.host, port=loaded.port, log_level=loaded.log_level, **options, **tls
    )


def allow_connections() -> None:
    """Take as many open files as the system lets this process have: each connection is one."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if most == resource.RLIM_INFINITY else min(most, MOST_FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def server_options(app: FastAPI) -> dict[str, Any]:
    """How uvicorn serves this application; a tier answers in the protocol (`Lane`)."""
    options: dict[str, Any] = {
        "access_log": False,
        "timeout_graceful_shutdown": 5,
        # whoever connects could name any address as its own; see DIMEE_CLIENT_HEADER
        "proxy_headers": False,
    }
    lane = getattr(app.state, "lane", None)
    if lane is not None:
        from shared.serving.protocol import protocol_of

        options["http"] = protocol_of(lane)
    return options

"""Plain ASGI endpoint for ``POST /v1/infer`` in front of the FastAPI application."""

from __future__ import annotations

from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.errors import DimeeError
from shared.serving.body_limit import replay
from shared.serving.disconnect import CLIENT_CLOSED_REQUEST, ClientDisconnected
from shared.serving.responses import send_error
from shared.telemetry.trace_context import trace_of
from shared.tier_server.service import TierService
from shared.wire import InferRequest

PATH = "/v1/infer"


class InferEndpoint:
    """ASGI middleware that answers valid ``POST /v1/infer`` requests without FastAPI.

    FastAPI takes longer for a request than the rest of the server. Every request that is invalid or
    unusual goes on to FastAPI with its body unchanged, and FastAPI answers it.

    Authentication, `BodyLimit` and `RedactErrors` must wrap this middleware, so that they apply to
    both ways. `BodyLimit` delivers the whole body in one message.
    """

    def __init__(self, app: ASGIApp, service: TierService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on to FastAPI."""
        if not _is_json_infer(scope):
            await self._app(scope, receive, send)
            return
        message = await receive()
        try:
            request = InferRequest.model_validate_json(message.get("body", b""))
        except ValidationError:
            await self._app(scope, replay(message, receive), send)
            return
        try:
            response = await self._service.infer(request, receive, trace_of(scope))
        except DimeeError as error:
            await send_error(send, error)
        except ClientDisconnected:
            await Response(status_code=CLIENT_CLOSED_REQUEST)(scope, receive, send)
        else:
            await _send_ok(send, response.model_dump_json().encode())


def _is_json_infer(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["path"] == PATH
        and scope["method"] == "POST"
        and not scope.get("root_path")
        and [value for name, value in scope["headers"] if name == b"content-type"]
        == [b"application/json"]
    )


async def _send_ok(send: Send, body: bytes) -> None:
    """Send a JSON response; a Starlette `Response` would build its headers again each time."""
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

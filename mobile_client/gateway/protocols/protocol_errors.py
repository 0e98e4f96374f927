"""ASGI middleware that gives errors the shape of the protocol whose path was called."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import InvalidInput

ErrorShape = Callable[[int, dict[str, Any]], tuple[int, dict[str, Any]]]
"""Function from a status and an error of `DimeeError.payload` to the protocol's status and body."""
ShapeOf = Callable[[str, str], ErrorShape | None]
"""Function from a method and a path to the shape of their errors; None for dimee's own."""
_STANDARD_PATHS = frozenset({"/v1/classify", "/healthz", "/readyz"})


class ProtocolErrors:
    """Rewrites the errors of an application, also those of its other middleware.

    It must be the outermost one: a refusal without a token, above a limit or of an unknown path
    has the protocol's shape too.
    """

    def __init__(self, app: ASGIApp, shape_of: ShapeOf) -> None:
        self._app = app
        self._shape_of = shape_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application; rewrite its response if that is an error of a protocol."""
        shape = None
        if scope["type"] == "http" and scope["path"] not in _STANDARD_PATHS:
            shape = self._shape_of(scope["method"], scope["path"])
        if shape is not None:
            send = _in_shape(shape, send)
        await self._app(scope, receive, send)


def _in_shape(shape: ErrorShape, send: Send) -> Send:
    start: Message | None = None
    body = bytearray()

    async def send_in_shape(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and message["status"] >= 400:
            start = message
            return
        if start is None or message["type"] != "http.response.body":
            await send(message)
            return
        body.extend(message.get("body", b""))
        if message.get("more_body", False):
            return
        status, content = _reshaped(shape, start["status"], bytes(body))
        replaced = (b"content-length", b"content-type")
        kept = [(name, value) for name, value in start["headers"] if name not in replaced]
        length = (b"content-length", b"%d" % len(content))
        headers = [*kept, length, (b"content-type", b"application/json")]
        await send({**start, "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return send_in_shape


def _reshaped(shape: ErrorShape, status: int, body: bytes) -> tuple[int, bytes]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, LookupError, TypeError):
        error = None
    if not isinstance(error, dict):  # the answer to a client that has gone is empty
        return status, body
    status, content = shape(status, error)
    return status, json.dumps(content).encode()


def huggingface_error(status: int, error: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the body of text-embeddings-inference, which `huggingface_hub` reads too."""
    kinds = {413: "validation", 422: "validation", 429: "overloaded", 503: "unhealthy"}
    default = "validation" if status < 500 else "backend"
    return status, {"error": error["message"], "error_type": kinds.get(status, default)}


def open_inference_error(status: int, error: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the body of the Open Inference Protocol, which answers 400 to wrong input."""
    return _bad_request(status), {"error": error["message"]}


def openai_error(status: int, error: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the body of vLLM and infinity, which is that of OpenAI with the status as code."""
    status = _bad_request(status)
    names = {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError"}
    names |= {401: "AuthenticationError", 403: "PermissionDeniedError"}
    kind = names.get(status, "BadRequestError" if status < 500 else "InternalServerError")
    body = {
        "message": error["message"],
        "type": kind,
        "param": error.get("field"),
        "code": status,
    }
    return status, {"error": body}


def _bad_request(status: int) -> int:
    return 400 if status == InvalidInput.status else status

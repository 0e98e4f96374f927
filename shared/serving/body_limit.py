"""ASGI middleware that limits the size of request bodies."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import TooLarge
from shared.serving.responses import error_response


class BodyLimit:
    """ASGI middleware that refuses a body of more than ``max_bytes`` with 413.

    It reads the whole body, declared or chunked, before the application runs. The application then
    receives the body in a single message.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, then call the application or refuse the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _declared_bytes(scope) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        message = await receive()
        if message.get("more_body", False):
            body = bytearray(message.get("body", b""))
            while message.get("more_body", False) and len(body) <= self._max_bytes:
                message = await receive()
                body += message.get("body", b"")
            if message["type"] == "http.request":
                message = {"type": "http.request", "body": bytes(body), "more_body": False}
        if message["type"] == "http.disconnect":
            return
        if len(message.get("body", b"")) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        await self._app(scope, replay(message, receive), send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = TooLarge(
            f"body: is larger than {self._max_bytes:,} bytes, the largest body accepted",
            field="body",
            limit=self._max_bytes,
        )
        response = error_response(error)
        response.headers["connection"] = "close"
        await response(scope, receive, send)


def replay(message: Message, receive: Receive) -> Receive:
    """Return a ``receive`` that yields ``message`` first, then what ``receive`` yields."""
    pending: Message | None = message

    async def replayed() -> Message:
        nonlocal pending
        if pending is None:
            return await receive()
        first, pending = pending, None
        return first

    return replayed


def _declared_bytes(scope: Scope) -> int:
    """Return the request's ``Content-Length``, or 0 if it has none."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0

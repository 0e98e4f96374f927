"""ASGI application that tells a connection about its responses, and reads refused requests."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.serving.connection import CONNECTION, HttpConnection

ABORT = "dimee.abort"
"""Key in the ASGI scope: a function that closes the request's connection at once."""
DRAIN_BYTES = 32 * 1024 * 1024
"""Bytes of a request that are read and dropped after its answer."""
DRAIN_S = 30.0
DRAIN_IDLE_S = 5.0
"""Seconds without a byte of the request after which its connection is closed."""


class WholeRequests:
    """Outermost ASGI application: connects an application with `HttpConnection`.

    A response that is ready before its request has arrived completely, such as a refusal, is sent
    at once, and the rest of the request is read and dropped, up to `DRAIN_BYTES` and `DRAIN_S`. If
    the server closed the connection instead, most clients would see a reset and no response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, then let the connection go on with its next request."""
        connection: HttpConnection | None = scope.get("state", {}).pop(CONNECTION, None)
        if connection is None:
            await self._app(scope, receive, send)
            return
        scope[ABORT] = connection.abort
        if connection.receiving:
            send = _send_early(connection, receive, send)
        try:
            await self._app(scope, receive, send)
        finally:
            connection.answered()


def _send_early(connection: HttpConnection, receive: Receive, send: Send) -> Send:
    """Return a ``send`` for a response that may come before the end of its request."""

    async def send_and_drain(message: Message) -> None:
        if message["type"] == "http.response.start":
            connection.responding = True
            if connection.receiving:
                headers = message.get("headers", [])
                kept = [(name, value) for name, value in headers if name != b"connection"]
                message = {**message, "headers": [*kept, (b"connection", b"close")]}
        elif connection.receiving and not message.get("more_body", False):
            await send({**message, "more_body": True})
            await _drain(connection, receive)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    return send_and_drain


async def _drain(connection: HttpConnection, receive: Receive) -> None:
    """Read and drop the rest of a request."""
    left = DRAIN_BYTES
    try:
        async with asyncio.timeout(DRAIN_S):
            while connection.receiving and left > 0:
                async with asyncio.timeout(DRAIN_IDLE_S):
                    message = await receive()
                if message["type"] == "http.disconnect":
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return

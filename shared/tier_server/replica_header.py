"""Names the replica in every response of a tier."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.replica import HEADER


class ReplicaHeader:
    """ASGI middleware that adds the header ``dimee-replica`` to every response."""

    def __init__(self, app: ASGIApp, replica: str) -> None:
        self._app = app
        self._header = (HEADER.encode(), replica.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and add the header to its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), self._header]
            await send(message)

        await self._app(scope, receive, send_named)

"""An ASGI application that answers with what it received, and counts its requests."""

from __future__ import annotations

import asyncio
import json

from starlette.types import Message, Receive, Scope, Send


class Echo:
    """Answers each request with its method, path and body; ``/wait`` waits for `release`.

    The lists have the requests that arrived, whose body was read (``begun``), that were answered
    (``finished``), and whose client hung up before its answer.
    """

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.begun: list[str] = []
        self.finished: list[str] = []
        self.disconnected: list[str] = []
        self.release = asyncio.Event()
        self.changed = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, and answer."""
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        self._note(self.arrived, scope)
        body = bytearray()
        message: Message = {"more_body": True}
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                self._note(self.disconnected, scope)
                return
            body += message.get("body", b"")
        self._note(self.begun, scope)
        if scope["path"] == "/wait":
            await self._wait(scope, receive)
        content = json.dumps(
            {"method": scope["method"], "path": scope["path"], "body": body.decode("latin-1")}
        ).encode()
        headers = [(b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self._note(self.finished, scope)

    async def _wait(self, scope: Scope, receive: Receive) -> None:
        gone = asyncio.ensure_future(receive())
        released = asyncio.ensure_future(self.release.wait())
        await asyncio.wait({gone, released}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self._note(self.disconnected, scope)
        gone.cancel()
        released.cancel()

    def _note(self, where: list[str], scope: Scope) -> None:
        where.append(f"{scope['method']} {scope['path']}")
        self.changed.set()

    async def until(self, where: list[str], count: int) -> None:
        """Wait until ``where`` has ``count`` requests."""
        while len(where) < count:
            self.changed.clear()
            await self.changed.wait()


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Answer a server's start and shutdown."""
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})

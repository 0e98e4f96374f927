"""A small HTTP server on loopback whose answers a test controls."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Self

Respond = Callable[[bytes], Awaitable[bytes]]
"""Returns the whole response to the body of a request."""


def response(status: int = 200, body: bytes = b"{}") -> bytes:
    """Return a response with a length, whose header names are capitalised."""
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def in_turn(answers: Iterable[bytes]) -> Respond:
    """Return the answers one after the other, and the last one again and again."""
    left = list(answers)

    async def respond(_body: bytes) -> bytes:
        return left[0] if len(left) == 1 else left.pop(0)

    return respond


class HttpServer:
    """Server that answers every request with ``respond`` and records the bodies."""

    def __init__(self, respond: Respond, tls: ssl.SSLContext | None = None) -> None:
        self._respond = respond
        self._tls = tls
        self.bodies: list[bytes] = []
        self.arrived = asyncio.Semaphore(0)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def wait_for(self, requests: int) -> None:
        """Wait until so many more requests have arrived."""
        for _ in range(requests):
            await self.arrived.acquire()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                self.arrived.release()
                answer = await self._respond(self.bodies[-1])
                half = len(answer) // 2
                writer.write(answer[:half])
                await writer.drain()
                writer.write(answer[half:])
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

"""A small HTTP load balancer on loopback, whose own errors have nginx's form."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from itertools import cycle
from types import TracebackType
from typing import Self

_TIMEOUT_S = 30.0


def nginx_error(status: int, reason: str) -> bytes:
    """Return nginx's response for an error of its own."""
    title = f"{status} {reason}"
    body = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1>"
        "</center>\r\n<hr><center>nginx/1.24.0</center>\r\n</body>\r\n</html>\r\n"
    ).encode()
    head = (
        f"HTTP/1.1 {title}\r\nServer: nginx/1.24.0\r\nContent-Type: text/html\r\n"
        f"Content-Length: {len(body)}\r\nConnection: keep-alive\r\n\r\n"
    )
    return head.encode() + body


class LoadBalancer:
    """Passes each request to the next of ``ports``; it tries no other one for the same request.

    If the server cannot be reached or breaks the connection, the answer is nginx's 502; while
    ``drained``, it is 503. It runs in a thread with an event loop of its own.
    """

    def __init__(self, port: int, ports: list[int]) -> None:
        self._port, self._next = port, cycle(ports)
        self.drained = False
        self.errors = 0
        """Errors of its own that it has sent."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                writer.write(await self._answer(await _message(reader)))
                await writer.drain()
        writer.close()

    async def _answer(self, request: bytes) -> bytes:
        if self.drained:
            self.errors += 1
            return nginx_error(503, "Service Temporarily Unavailable")
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", next(self._next))
                try:
                    writer.write(request)
                    return await _message(reader)
                finally:
                    writer.close()
        except (OSError, asyncio.IncompleteReadError):
            self.errors += 1
            return nginx_error(502, "Bad Gateway")


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Read one request or response with a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head + await reader.readexactly(length)

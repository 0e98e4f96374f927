"""Serving an application with uvicorn in the test's event loop, and raw connections to it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import uvicorn
from starlette.types import ASGIApp

from shared.serving.connection import ConnectionLimits
from shared.serving.server import ServerConfig

T = TypeVar("T")
JSON = "application/json"


@asynccontextmanager
async def serving(
    app: ASGIApp, limits: ConnectionLimits | None = None
) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """Serve ``app`` as `run_server` does until the end of the block; yield server and port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    server = uvicorn.Server(ServerConfig(app, limits, log_level="warning"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started or not server.server_state.default_headers:
        assert not task.done()
        await asyncio.sleep(0)
    try:
        yield server, port
    finally:
        server.should_exit = True
        await task


def run_with_server(
    app: ASGIApp,
    client: Callable[[uvicorn.Server, int], Awaitable[T]],
    limits: ConnectionLimits | None = None,
) -> T:
    """Serve ``app`` while ``client(server, port)`` runs; return the client's result."""

    async def run() -> T:
        async with serving(app, limits) as (server, port):
            return await client(server, port)

    return asyncio.run(asyncio.wait_for(run(), 30))


class RawConnection:
    """A TCP connection on which a test sends its own bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int) -> RawConnection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self) -> tuple[int, dict[str, str], Any]:
        """Return the next response: status, headers, and the body as JSON."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, json.loads(body)

    async def closed_by_server(self) -> bool:
        """Wait for the server to close the connection; False if it sends something instead."""
        return await self.reader.read(1) == b""

    def close(self) -> None:
        self.writer.close()


def post(body: object, *lines: str, content_type: str = JSON, path: str = "/v1/infer") -> bytes:
    """Return the bytes of a POST request; ``body`` is sent as JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [
        f"POST {path} HTTP/1.1",
        "host: tier",
        f"content-type: {content_type}",
        f"content-length: {len(content)}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


def post_chunked(pieces: list[bytes], content_type: str = JSON) -> bytes:
    """Return the bytes of a POST request to ``/v1/infer`` with a chunked body."""
    head = (
        f"POST /v1/infer HTTP/1.1\r\nhost: tier\r\ncontent-type: {content_type}\r\n"
        "transfer-encoding: chunked\r\n\r\n"
    ).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + chunks + b"0\r\n\r\n"

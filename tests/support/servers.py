"""An application behind uvicorn in the test's own loop, and raw connections to it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from shared.serving.server import SERVER_OPTIONS


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """Serve as `run_server` does, until the end of the block or the server's own."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", **SERVER_OPTIONS))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started or not server.server_state.default_headers:
        assert not task.done()
        await asyncio.sleep(0)
    try:
        yield server, port
    finally:
        server.should_exit = True
        await task


class Raw:
    """A connection on which bytes are sent as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: int) -> Raw:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """The next answer: status, headers, and the body as JSON."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, json.loads(body)

    async def ended(self) -> bool:
        """Wait for the other side to close."""
        return await self.reader.read(1) == b""

    def close(self) -> None:
        self.writer.close()


def post(body: object, *lines: str, path: str = "/v1/infer") -> bytes:
    """A whole request; ``body`` as JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [
        f"POST {path} HTTP/1.1",
        "host: tier",
        "content-type: application/json",
        f"content-length: {len(content)}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content

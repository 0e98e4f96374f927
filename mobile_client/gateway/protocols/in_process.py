"""Calls of an ASGI application from its own event loop, without a connection."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Scope


@dataclass(frozen=True, slots=True)
class InProcessRequest:
    """A request; ``headers`` have names in lower case, ``client`` is the address of its caller."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    client: tuple[str, int]
    body: bytes = b""
    scheme: str = "http"


@dataclass(slots=True)
class InProcessResponse:
    """A response; the names of its headers are in lower case."""

    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


async def call(app: ASGIApp, request: InProcessRequest) -> InProcessResponse:
    """Return the response of ``app``. Cancel the task if the caller hangs up."""
    response = InProcessResponse()
    received = False

    async def receive() -> Message:
        nonlocal received
        if received:
            await asyncio.Event().wait()  # the caller stays until the task is cancelled
        received = True
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            response.status = message["status"]
            for name, value in message.get("headers", []):
                response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        elif message["type"] == "http.response.body":
            response.body.extend(message.get("body", b""))

    await app(_scope(request), receive, send)
    return response


def _scope(request: InProcessRequest) -> Scope:
    headers = [*request.headers, ("content-length", str(len(request.body)))]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.path,
        "raw_path": quote(request.path).encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers
        ],
        "client": request.client,
        "server": None,
    }

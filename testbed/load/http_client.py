"""HTTP/1.1 client for load generation that needs little CPU time itself.

The client shares the cores with the servers that it measures, so that a heavier one would lower
the measured capacity. It sends POST requests with JSON bodies, keeps connections open, and reads
bodies with a length or in chunks; it follows no redirects and decompresses nothing.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from shared.connections import CLIENT_IDLE_S
from shared.credentials import Credentials

T = TypeVar("T")
MAX_ANSWER_BYTES = 1024 * 1024
"""Largest answer, head included, that is read."""
_STATUS = re.compile(rb"HTTP/1\.[01] ([2-5]\d\d)[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9})\r", re.I)
_CHUNK_SIZE = re.compile(rb"[0-9a-f]{1,6}", re.I)
_NO_BODY = (204, 304)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.I)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.I)


@dataclass(frozen=True, slots=True)
class Answer:
    """Outcome of a request; ``status`` is 0, and ``error`` says why, if no answer arrived.

    ``latency_s`` counts from the intended send time, and ``late_s`` is the part of it by which
    this process sent the request too late.
    """

    number: int
    status: int
    body: bytes
    latency_s: float
    late_s: float = 0.0
    error: str = ""


class Connection(asyncio.Protocol):
    """Persistent connection with one request at a time.

    ``finished`` is called with the connection, a status and a body; with status 0 and the reason
    in place of the body if the connection breaks.
    """

    def __init__(self, finished: Callable[[Connection, int, bytes], None]) -> None:
        self._finished = finished
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self.number: int | None = None
        """Number of the request that is under way; None between requests."""
        self.intended = self.sent = 0.0
        self.lost = False
        self._idle_since = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has another base class

    @property
    def reusable(self) -> bool:
        """True if a request may be sent; an idle connection is closed before its server does."""
        return not self.lost and time.monotonic() - self._idle_since < CLIENT_IDLE_S

    def send(self, request: bytes, number: int, intended: float, sent: float) -> None:
        """Send a request; the times are those of ``time.monotonic``."""
        assert self._transport is not None
        self.number, self.intended, self.sent = number, intended, sent
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = data = self._buffer + data if self._buffer else data
        try:
            answer = _read_answer(data)
        except ValueError as error:
            self.abandon(str(error).encode())
            return
        if answer is None:
            return
        status, body, end = answer
        self._buffer = b""
        # bytes after the answer, or before a request, would be taken for the next answer
        if self.number is None or end < len(data) or _CLOSE.search(data, 0, data.find(b"\r\n\r\n")):
            self.close()
        self._finish(status, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._finish(0, b"connection lost")

    def abandon(self, reason: bytes) -> None:
        """End the request without an answer, and close the connection."""
        self.close()
        self._finish(0, reason)

    def close(self) -> None:
        """Close the connection."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, status: int, body: bytes) -> None:
        self._idle_since = time.monotonic()
        if self.number is not None:
            self._finished(self, status, body)


def _read_answer(data: bytes) -> tuple[int, bytes, int] | None:
    """Return status, body and length of an answer, or None while it is incomplete.

    Raises `ValueError` for what no server of this project sends: an informational response, a body
    that ends with the connection, or more than `MAX_ANSWER_BYTES`.
    """
    head_end = data.find(b"\r\n\r\n")
    status = _STATUS.match(data)
    if status is None and len(data) >= len(b"HTTP/1.1 200 "):
        raise ValueError("invalid answer")
    if len(data) > MAX_ANSWER_BYTES:
        raise ValueError("answer too large")
    if head_end < 0 or status is None:
        return None
    body_and_end = _read_body(data, head_end, int(status[1]))
    return None if body_and_end is None else (int(status[1]), *body_and_end)


def _read_body(data: bytes, head_end: int, status: int) -> tuple[bytes, int] | None:
    """Return the body after a head that ends at ``head_end``, and where it ends."""
    start = head_end + 4
    length = _LENGTH.search(data, 0, head_end + 1)
    if length is not None:
        stop = start + int(length[1])
        if stop > MAX_ANSWER_BYTES:
            raise ValueError("answer too large")
        return (data[start:stop], stop) if len(data) >= stop else None
    if not _CHUNKED.search(data, 0, head_end + 2):
        if status in _NO_BODY:
            return b"", start
        raise ValueError("answer without a length")
    chunks: list[bytes] = []
    while (line_end := data.find(b"\r\n", start)) >= 0:
        size_text = _CHUNK_SIZE.fullmatch(data[start:line_end].partition(b";")[0].strip())
        if size_text is None:
            raise ValueError("invalid chunk")
        size = int(size_text[0], 16)
        start = line_end + 2
        if len(data) < start + size + 2:
            return None
        if size == 0:
            return b"".join(chunks), start + 2
        chunks.append(data[start : start + size])
        start += size + 2
    return None


class HttpClient:
    """Connections and requests for one path of one server.

    ``url`` is the server's, such as ``http://127.0.0.1:8701``; ``credentials`` supply the bearer
    token and the TLS settings, ``headers`` are further ones.
    """

    def __init__(
        self,
        url: str,
        path: str,
        credentials: Credentials | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        credentials = credentials or Credentials()
        parts = urlsplit(url)
        assert parts.hostname is not None, url
        self._host, secure = parts.hostname, parts.scheme == "https"
        self._port = parts.port or (443 if secure else 80)
        self._ssl: ssl.SSLContext | None = None
        if secure:
            verify = credentials.verify
            context = verify if isinstance(verify, ssl.SSLContext) else None
            self._ssl = context or ssl.create_default_context()
        every = {"host": parts.netloc, "content-type": "application/json"} | (headers or {})
        lines = [f"POST {parts.path.rstrip('/')}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (every | credentials.headers()).items()]
        self._head = "\r\n".join([*lines, "content-length: "]).encode()

    def request(self, body: bytes) -> bytes:
        """Return a whole request."""
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    async def connect(self, finished: Callable[[Connection, int, bytes], None]) -> Connection:
        """Open a connection; raises `OSError`."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(finished), self._host, self._port, ssl=self._ssl
        )
        return connection


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in uvloop, the event loop with the least CPU time for each request."""
    import uvloop

    return uvloop.run(main)

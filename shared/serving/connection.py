"""One connection of a service: limits requests before the HTTP parser and the application see them.

Every request passes `HttpConnection`, which hands its bytes to uvicorn's protocol. uvicorn limits
neither the size of a head nor the time in which a head or body arrives (with httptools), and drops
the body of a request that offers another protocol.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from shared.errors import DimeeError, RequestTimeout
from shared.serving.http_framing import (
    HEAD_END,
    ChunkedBody,
    check_partial_head,
    read_head,
)
from shared.serving.responses import error_response

HELD_BYTES = 64 * 1024
"""Bytes of further requests that a connection keeps while one is answered."""
LINGER_BYTES = 1024 * 1024
"""Bytes that are still read, and dropped, after a request was refused."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of a service's connections; times in seconds.

    A head must be complete within ``head_s`` of its first byte, or of the connection's start. A
    body may take ``body_s`` and one second more for each ``body_bytes_per_s`` that arrived.
    ``write_s`` is the time in which a client must read what fills its connection's buffers.
    ``linger_s`` is the time for which a refused request is still read, so that its client reads the
    answer. Beyond ``connections``, the one that has waited longest for a request is closed.
    """

    head_s: float = 20.0
    body_s: float = 20.0
    body_bytes_per_s: float = 500.0
    write_s: float = 60.0
    linger_s: float = 5.0
    connections: int = 4_096


class OpenConnections:
    """Connections of one server; closes the one that has waited longest if there are too many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = 0
        self._waiting: OrderedDict[HttpConnection, None] = OrderedDict()

    def __len__(self) -> int:
        return self._open

    def opened(self, connection: HttpConnection) -> None:
        """Count a new connection, which waits for a request."""
        self._open += 1
        self._waiting[connection] = None
        if self._open > self._limit:
            longest, _ = self._waiting.popitem(last=False)
            longest.abort()

    def closed(self, connection: HttpConnection) -> None:
        """Stop counting a connection."""
        self._open -= 1
        self._waiting.pop(connection, None)

    def waits(self, connection: HttpConnection) -> None:
        """Note that a connection waits for its next request from now on."""
        self._waiting[connection] = None

    def received(self, connection: HttpConnection) -> None:
        """Note that a connection's request has arrived completely."""
        self._waiting.pop(connection, None)


class HttpConnection(asyncio.Protocol):
    """Hands one request at a time to ``parser``, uvicorn's protocol, once its head is complete.

    Requests that a client sends before the previous one is answered are kept, and never begun if
    the client hangs up.
    """

    def __init__(
        self,
        make_parser: Callable[[HttpConnection], asyncio.Protocol],
        limits: ConnectionLimits,
        connections: OpenConnections,
    ) -> None:
        self._limits = limits
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._parser = make_parser(self)
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._body_left = 0
        self._chunks: ChunkedBody | None = None
        self._held = bytearray()
        self._began = 0.0
        self._body_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._lingering = 0
        self.receiving = False
        """True from the end of a request's head to the end of its body."""
        self.answering = False
        """True from the end of a request's head until the application has returned."""
        self.responding = False
        """True once the response to the current request has begun."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = cast(asyncio.Transport, transport)
        self._parser.connection_made(transport)
        self._connections.opened(self)
        self._wait_until(self._limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop what was kept, and tell the parser."""
        self._stop_timer()
        self.resume_writing()
        self._connections.closed(self)
        self._head.clear()
        self._held.clear()
        self._parser.connection_lost(exc)
        self._transport = None

    def eof_received(self) -> bool | None:
        """Close the connection, as uvicorn does."""
        return self._parser.eof_received()

    def pause_writing(self) -> None:
        """Abort the connection if the client does not read its response."""
        self._write_timer = self._loop.call_later(self._limits.write_s, self.abort)
        self._parser.pause_writing()

    def resume_writing(self) -> None:
        """Go on writing."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
            self._parser.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Hand on what belongs to the current request, and keep the rest."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._lingering:
            self._lingering -= len(data)
            if self._lingering <= 0:
                self.abort()
            return
        try:
            self._receive(data)
        except DimeeError as error:
            self._refuse(error)

    def answered(self) -> None:
        """Go on with the next request; called when the application has returned."""
        self.answering = False
        self.responding = False
        if self._transport is None or self._transport.is_closing():
            return
        if self.receiving:
            self._transport.close()
            return
        self._connections.waits(self)
        if self._held:
            data = bytes(self._held)
            self._held.clear()
            self._transport.resume_reading()
            self.data_received(data)

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _receive(self, data: bytes) -> None:
        if self.receiving:
            data = self._receive_body(data)
        if not data:
            return
        if self.answering:
            self._held += data
            if len(self._held) > HELD_BYTES and self._transport is not None:
                self._transport.pause_reading()
            return
        searched = len(self._head)
        if searched:
            self._head += data
            end = self._head.find(HEAD_END, max(0, searched - 3))
        else:
            data = data.lstrip(b"\r\n")
            end = data.find(HEAD_END)
            if end < 0:
                self._head += data
        if end < 0:
            self._receive_partial_head(searched)
            return
        if searched:
            data = bytes(self._head)
            self._head.clear()
        self._begin(data, end + len(HEAD_END))

    def _receive_partial_head(self, searched: int) -> None:
        check_partial_head(self._head, searched)
        if not searched and self._head:
            self._stop_timer()
            self._wait_until(self._limits.head_s)
            self._parser.data_received(b"")  # ends uvicorn's wait for the next request

    def _begin(self, data: bytes, end: int) -> None:
        """Begin the request whose head is the first ``end`` bytes of ``data``."""
        if self._timer is not None:
            self._stop_timer()
        head = read_head(data[:end])
        rest = len(data) - end
        self.answering = True
        if head.body_bytes is not None and rest <= head.body_bytes:
            # the usual case: no copy
            self._body_left = head.body_bytes - rest
            self._body_bytes = rest
            if self._body_left:
                self._await_body()
            else:
                self._connections.received(self)
            self._parser.data_received(data if len(head.data) == end else head.data + data[end:])
            return
        self._body_left = head.body_bytes or 0
        self._body_bytes = 0
        self._chunks = ChunkedBody() if head.body_bytes is None else None
        self._await_body()
        self._parser.data_received(head.data)
        self._receive(data[end:])

    def _await_body(self) -> None:
        self.receiving = True
        self._wait_until(self._limits.body_s)

    def _receive_body(self, data: bytes) -> bytes:
        """Hand on the bytes of the body; return those after it."""
        if self._chunks is None:
            taken = min(self._body_left, len(data))
            self._body_left -= taken
            complete = not self._body_left
        else:
            taken = self._chunks.feed(data)
            complete = self._chunks.complete
        self._body_bytes += taken
        if complete:
            self.receiving = False
            self._chunks = None
            self._stop_timer()
            self._connections.received(self)
        assert self._transport is not None
        if taken and not self._transport.is_closing():  # the parser closes it on an error
            self._parser.data_received(data if taken == len(data) else data[:taken])
        return data[taken:]

    def _wait_until(self, seconds: float) -> None:
        self._began = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._timed_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        self._timer = None
        if self._lingering:
            self.abort()
            return
        if self.receiving:
            allowed_s = self._limits.body_s + self._body_bytes / self._limits.body_bytes_per_s
            left_s = self._began + allowed_s - self._loop.time()
            if left_s > 0:
                self._timer = self._loop.call_later(left_s, self._timed_out)
                return
            self._refuse(RequestTimeout("the body took too long to arrive; send it faster"))
        elif self._head:
            self._refuse(RequestTimeout("the headers took too long to arrive; send them faster"))
        elif self._transport is not None:
            self._transport.close()

    def _refuse(self, error: DimeeError) -> None:
        """Answer with an error, and close once the client has had time to read it."""
        transport = self._transport
        if transport is None:
            return
        self._stop_timer()
        self._head.clear()
        if self.responding:
            transport.abort()
            return
        transport.write(_response(error))
        if self.answering:
            # uvicorn then tells the application that its client has left
            transport.close()
            return
        self._lingering = LINGER_BYTES
        self._wait_until(self._limits.linger_s)
        if transport.can_write_eof():
            transport.write_eof()


def _response(error: DimeeError) -> bytes:
    """Return the bytes of an error's response, which closes the connection."""
    response = error_response(error)
    headers = [*response.raw_headers, (b"connection", b"close")]
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d \r\n%b\r\n%b" % (error.status, lines, bytes(response.body))


def connection_factory(
    parser: Callable[..., asyncio.Protocol], limits: ConnectionLimits
) -> Callable[..., HttpConnection]:
    """Return the factory of a server's connections, with the arguments of uvicorn's protocols."""
    connections = OpenConnections(limits.connections)

    def connect(
        config: object,
        server_state: object,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> HttpConnection:
        def make_parser(connection: HttpConnection) -> asyncio.Protocol:
            return parser(
                config=config,
                server_state=server_state,
                app_state={**app_state, CONNECTION: connection},
                _loop=_loop,
            )

        return HttpConnection(make_parser, limits, connections)

    return connect


CONNECTION = "dimee.connection"
"""Key of the connection in the ASGI scope's ``state``."""

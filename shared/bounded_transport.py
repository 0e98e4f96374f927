"""Synchronous HTTP transport that bounds an answer's head and the time of an exchange.

httpx's own transport waits at most its timeout for each piece of an answer, but for any number of
pieces: a server that sends informational (1xx) responses or a byte now and then is never given up.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpcore
import httpx

from shared.connections import CLIENT_IDLE_S

MAX_CONNECTIONS = 100
MAX_HEAD_BYTES = 128 * 1024
MAX_EXCHANGE_S = 120.0
"""Most time of an exchange, from its begin to the end of its answer."""


@dataclass(slots=True)
class _Exchange:
    received_bytes: int = 0
    answered: bool = False
    until: float = field(default_factory=lambda: time.monotonic() + MAX_EXCHANGE_S)


_exchange: ContextVar[_Exchange | None] = ContextVar("_exchange", default=None)


class BoundedTransport(httpx.BaseTransport):
    """Sends requests over connections that stay open for a while; uses no proxy.

    Every failure is an `httpx.TransportError`. ``verify`` is httpx's: a TLS context, or True for
    its default.
    """

    def __init__(self, verify: ssl.SSLContext | bool = True) -> None:
        context = (
            verify
            if isinstance(verify, ssl.SSLContext)
            else httpx.create_ssl_context(verify, trust_env=False)
        )
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=CLIENT_IDLE_S,
            network_backend=_Backend(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer, whose body is not yet read."""
        exchange = _Exchange()
        _exchange.set(exchange)
        assert isinstance(request.stream, httpx.SyncByteStream)
        try:
            response = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except Exception as failure:
            raise _transport_error(failure) from failure
        exchange.answered = True
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


_ERRORS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.TimeoutException, httpx.ReadTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
)


def _transport_error(failure: Exception) -> httpx.TransportError:
    kind = next((ours for theirs, ours in _ERRORS if isinstance(failure, theirs)), httpx.ReadError)
    return kind(str(failure) or type(failure).__name__)


class _Body(httpx.SyncByteStream):
    """Body of an answer, as sent."""

    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_stream()
        except Exception as failure:
            raise _transport_error(failure) from failure

    def close(self) -> None:
        self._response.close()


class _Backend(httpcore.NetworkBackend):
    """Opens TCP connections whose streams keep the bounds."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        return _Stream(self._backend.connect_tcp(*arguments, **options))


class _Stream(httpcore.NetworkStream):
    """Stream that bounds what is read, and until when."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        exchange = _exchange.get()
        if exchange is None:
            return self._stream.read(max_bytes, timeout)
        left_s = exchange.until - time.monotonic()
        if left_s <= 0:
            raise httpcore.ReadTimeout(f"the answer has not ended after {MAX_EXCHANGE_S:.0f} s")
        data = self._stream.read(max_bytes, left_s if timeout is None else min(timeout, left_s))
        exchange.received_bytes += len(data)
        if not exchange.answered and exchange.received_bytes > MAX_HEAD_BYTES:
            raise httpcore.ReadError(f"the answer's head exceeds {MAX_HEAD_BYTES:,} bytes")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *arguments: Any, **options: Any) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(*arguments, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

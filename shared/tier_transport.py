"""HTTP transport to one tier, whose errors say how far a request came.

It is httpx's transport, except that every exception of the event loop, the TLS library or the HTTP
parser becomes an `httpx.TransportError`. Under uvloop, a connection that its peer resets shortly
after it was accepted has no socket any more, and the libraries below raise AttributeError for it.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from shared.connections import CLIENT_IDLE_S

MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 128 * 1024
"""Largest number of bytes that are read before an answer's head is complete. An endless sequence
of informational (1xx) responses ends here."""
FRESH_CONNECTION = "dimee_fresh_connection"
"""Extension of a request that must not use an open connection."""

_SocketOptions = Iterable[httpcore.SOCKET_OPTION]


class ReusedConnectionBroke(httpx.ReadError):
    """A reused connection broke before it carried a byte of the answer.

    The server had most likely closed the idle connection. It may nevertheless have read the
    request.
    """


@dataclass(slots=True)
class _Progress:
    """Progress of one request on its connection."""

    connected: bool = False
    """True if the request opened its connection itself."""
    sent_bytes: int = 0
    received_bytes: int = 0
    answered: bool = False


_progress: ContextVar[_Progress | None] = ContextVar("_progress", default=None)


class TierTransport(httpx.AsyncBaseTransport):
    """Keeps at most `MAX_CONNECTIONS` connections open.

    Raises `httpx.ConnectError` if nothing was sent, `ReusedConnectionBroke`, and `httpx.ReadError`
    for every other failure. ``verify`` is httpx's: a TLS context, or True for its default. The
    environment's proxies are not used, because a proxy would add a hop. All connections go to
    ``address`` if it is given; TLS then still verifies the name of the request's URL. They come
    from ``local_address``, an address of this machine; None leaves it to the system.
    """

    def __init__(
        self,
        verify: ssl.SSLContext | bool = True,
        address: str | None = None,
        local_address: str | None = None,
    ) -> None:
        context = (
            verify
            if isinstance(verify, ssl.SSLContext)
            else httpx.create_ssl_context(verify, trust_env=False)
        )
        self._pool = _pool(context, MAX_CONNECTIONS, address, local_address)
        self._fresh = _pool(context, 0, address, local_address)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer, whose body is not yet read."""
        pool = self._fresh if request.extensions.get(FRESH_CONNECTION) else self._pool
        progress = _Progress()
        _progress.set(progress)
        try:
            url = httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            )
            response = await pool.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=url,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except Exception as failure:
            raise _transport_error(failure, progress) from failure
        progress.answered = True
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response, progress),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()
        await self._fresh.aclose()


def _pool(
    context: ssl.SSLContext, max_keepalive: int, address: str | None, local_address: str | None
) -> httpcore.AsyncConnectionPool:
    return httpcore.AsyncConnectionPool(
        ssl_context=context,
        max_connections=MAX_CONNECTIONS,
        max_keepalive_connections=max_keepalive,
        keepalive_expiry=CLIENT_IDLE_S,
        local_address=local_address,
        network_backend=_Backend(address),
    )


def _transport_error(failure: Exception, progress: _Progress) -> httpx.TransportError:
    reason = str(failure) or type(failure).__name__
    if not progress.sent_bytes:
        return httpx.ConnectError(reason)
    if not progress.connected and not progress.received_bytes:
        return ReusedConnectionBroke(reason)
    return httpx.ReadError(reason)


class _Body(httpx.AsyncByteStream):
    """Body of an answer, as sent."""

    def __init__(self, response: httpcore.Response, progress: _Progress) -> None:
        self._response = response
        self._progress = progress

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_stream():
                yield chunk
        except Exception as failure:
            raise _transport_error(failure, self._progress) from failure

    async def aclose(self) -> None:
        with suppress(Exception):  # the connection is already broken
            await self._response.aclose()


class _Backend(httpcore.AsyncNetworkBackend):
    """Opens TCP connections, to ``address`` if it is given, whose streams record their progress."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: _SocketOptions | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            stream = await self._backend.connect_tcp(
                self._address or host, port, timeout, local_address, socket_options
            )
        except httpcore.ConnectError:
            raise
        except Exception as failure:
            raise httpcore.ConnectError(_name(failure)) from failure
        if (progress := _progress.get()) is not None:
            progress.connected = True
        return _Stream(stream)

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """Stream that records its bytes, and whose errors are all httpcore's."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        try:
            data = await self._stream.read(max_bytes, timeout)
        except Exception as failure:
            raise httpcore.ReadError(_name(failure)) from failure
        progress = _progress.get()
        if progress is not None:
            progress.received_bytes += len(data)
            if not progress.answered and progress.received_bytes > MAX_HEAD_BYTES:
                raise httpcore.ReadError(f"the answer's head exceeds {MAX_HEAD_BYTES:,} bytes")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        if (progress := _progress.get()) is not None:
            progress.sent_bytes += len(buffer)
        try:
            await self._stream.write(buffer, timeout)
        except Exception as failure:
            raise httpcore.WriteError(_name(failure)) from failure

    async def aclose(self) -> None:
        with suppress(Exception):  # the connection is already broken
            await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except httpcore.ConnectError:
            raise
        except Exception as failure:
            raise httpcore.ConnectError(_name(failure)) from failure

    def get_extra_info(self, info: str) -> Any:
        try:
            return self._stream.get_extra_info(info)
        except Exception:
            # the event loop has dropped the socket; an idle connection that is readable is closed
            return True if info == "is_readable" else None


def _name(failure: Exception) -> str:
    return str(failure) or type(failure).__name__

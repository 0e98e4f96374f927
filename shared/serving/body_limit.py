"""ASGI middleware that limits the size of request bodies and the number of their JSON values."""

from __future__ import annotations

from collections.abc import Container

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import Overloaded, TooLarge
from shared.serving.auth import PUBLIC_PATHS, principal_of
from shared.serving.responses import error_response, send_error

MAX_INCOMPLETE_BYTES = 256 * 1024 * 1024
NO_BODY = ("GET", "HEAD")
BYTES_PER_REQUEST = 256 * 1024
"""Size of a body that costs its caller one more request of its rate limit: reading a body takes
time even if it is invalid."""


_JSON_MARKS = b'",'
_NO_JSON_MARKS = bytes(byte for byte in range(256) if byte not in _JSON_MARKS)


class BodyLimit:
    """ASGI middleware that refuses a body of more than ``max_bytes`` with 413.

    It also refuses a JSON body of more than ``max_values`` values, before a parser makes an object,
    or an error, of each. Bodies of the paths in ``binary`` are no JSON.

    It reads the whole body, declared or chunked, before the application runs. The application then
    receives the body in a single message. Bodies that are still arriving take at most
    ``max_incomplete_bytes`` of memory together; what exceeds that is refused with 429.

    The body of a GET or HEAD request, and of a public path, is not read.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        max_values: int,
        binary: Container[str] = (),
        max_incomplete_bytes: int = MAX_INCOMPLETE_BYTES,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_values = max_values
        self._binary = binary
        self._max_incomplete_bytes = max_incomplete_bytes
        self._incomplete_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, then call the application or refuse the request."""
        if scope["type"] != "http" or scope["method"] in NO_BODY or scope["path"] in PUBLIC_PATHS:
            await self._app(scope, receive, send)
            return
        if _declared_bytes(scope) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        message = await receive()
        if message.get("more_body", False):
            try:
                message = await self._read(message, receive)
            except Overloaded as error:
                await send_error(send, error)
                return
        if message["type"] == "http.disconnect":
            return
        body = message.get("body", b"")
        body_bytes = len(body)
        if body_bytes >= BYTES_PER_REQUEST:
            principal_of(HTTPConnection(scope)).charge(body_bytes // BYTES_PER_REQUEST)
        if body_bytes > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        if scope["path"] not in self._binary and has_more_values(body, self._max_values):
            await send_error(
                send,
                TooLarge(
                    f"body: holds more than {self._max_values:,} values; send fewer",
                    field="body",
                    limit=self._max_values,
                ),
            )
            return
        await self._app(scope, replay(message, receive), send)

    async def _read(self, message: Message, receive: Receive) -> Message:
        """Return the whole body that begins with ``message``, or a disconnect."""
        body = bytearray()
        try:
            while True:
                piece = message.get("body", b"")
                body += piece
                self._incomplete_bytes += len(piece)
                if not message.get("more_body", False) or len(body) > self._max_bytes:
                    break
                if self._incomplete_bytes > self._max_incomplete_bytes:
                    raise Overloaded(
                        "body: too many are arriving; try again in 1 s",
                        field="body",
                        limit=self._max_incomplete_bytes,
                        retry_after_s=1.0,
                    )
                message = await receive()
        finally:
            self._incomplete_bytes -= len(body)
        if message["type"] != "http.request":
            return message
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = TooLarge(
            f"body: is larger than {self._max_bytes:,} bytes, the largest body accepted",
            field="body",
            limit=self._max_bytes,
        )
        response = error_response(error)
        response.headers["connection"] = "close"
        await response(scope, receive, send)


def has_more_values(body: bytes, limit: int) -> bool:
    """Return True if the JSON in ``body`` has more than ``limit`` values, in lists and objects.

    It counts the commas outside strings; the parsers limit the depth themselves. In a body that is
    not JSON in UTF-8, commas in strings may count.
    """
    if body.count(b",") < limit:
        return False
    if b"\0" in body:  # UTF-16 or UTF-32, which json.loads reads
        return True
    marks = body
    if b"\\" in body:  # without escapes, each quotation mark begins or ends a string
        marks = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = marks.translate(None, _NO_JSON_MARKS)
    # two marks for each string, and most strings are followed by a comma or are a name
    if marks.count(b'"') > 4 * limit:
        return True
    return sum(len(outside) for outside in marks.split(b'"')[::2]) >= limit


def replay(message: Message, receive: Receive) -> Receive:
    """Return a ``receive`` that yields ``message`` first, then what ``receive`` yields."""
    pending: Message | None = message

    async def replayed() -> Message:
        nonlocal pending
        if pending is None:
            return await receive()
        first, pending = pending, None
        return first

    return replayed


def _declared_bytes(scope: Scope) -> int:
    """Return the request's ``Content-Length``, or 0 if it has none."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0

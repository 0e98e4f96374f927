"""The straight way of a tier: from the bytes of ``POST /v1/infer`` to those of the answer.

The framework's own way costs more than everything else that the server's interpreter does for a
request, and a tier that is asked ten times what it can do would spend itself on saying no.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import ValidationError
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from shared.errors import INTERNAL, DimeeError
from shared.serving.auth import Authenticator
from shared.serving.redaction import redacted
from shared.serving.server import error_response
from shared.wire import InferRequest, InferResponse

log = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]
Tell = Callable[[DimeeError | bytes], None]
"""Called with the answer: an error, or the body of a response."""


@dataclass(frozen=True, slots=True)
class Lane:
    """What the protocol has to know of a tier, to take ``POST path`` to it.

    ``take`` refuses, or begins the work: a task that may be cancelled. Either tells the answer.
    """

    path: bytes
    take: Callable[[InferRequest, Tell], asyncio.Task[None] | None]
    door: Authenticator | None = None

    def read(self, body: bytes) -> InferRequest | None:
        """A request; what is no valid one is for the framework to answer."""
        try:
            return InferRequest.model_validate_json(body)
        except ValidationError:
            return None


async def tell_outcome(work: Callable[[], Awaitable[InferResponse]], tell: Tell) -> None:
    """Do the work, and tell what came of it as the framework would."""
    try:
        answer = await work()
    except DimeeError as error:
        tell(error)
    except Exception as error:
        log.error("unexpected error: %s", redacted(error))
        tell(DimeeError(INTERNAL["error"]["message"]))
    else:
        tell(answer.model_dump_json().encode())


class Rendered:
    """Answers as bytes, the same as the framework would send."""

    def __init__(self) -> None:
        self._defaults: Headers | None = None
        self._ok = b""
        self._known: dict[object, tuple[bytes, bytes]] = {}

    def of(self, answer: DimeeError | bytes, defaults: Headers, keep_alive: bool) -> bytes:
        """A whole answer; ``defaults`` are the server's headers, a new list every second."""
        if defaults is not self._defaults:
            self._defaults, self._known = defaults, {}
            self._ok = STATUS_LINE[200] + _lines(defaults)
        if isinstance(answer, bytes):
            lines = b"content-length: %d\r\ncontent-type: application/json\r\n" % len(answer)
            head, body = self._ok + lines, answer
        else:
            head, body = self._error(answer, defaults)
        return b"".join((head, b"\r\n" if keep_alive else b"connection: close\r\n\r\n", body))

    def _error(self, error: DimeeError, defaults: Headers) -> tuple[bytes, bytes]:
        """Refusals are alike for many in a row."""
        key = type(error), error.message, error.limit, error.retry_after_s
        found = self._known.get(key)
        if found is None:
            response = error_response(error)
            head = STATUS_LINE[response.status_code] + _lines([*defaults, *response.raw_headers])
            found = self._known[key] = head, bytes(response.body)
        return found


def _lines(headers: Headers) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in headers)

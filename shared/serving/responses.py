"""JSON responses for errors."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache

from starlette.responses import Response
from starlette.types import Message, Send

from shared.errors import INTERNAL, DimeeError

HTTP_ERROR = "http"
"""Code of the errors that FastAPI answers and that have no code of their own."""
_sent: Counter[tuple[str, int]] = Counter()


def errors_sent() -> dict[tuple[str, int], int]:
    """Return how many errors this process has sent, by code and HTTP status."""
    return dict(_sent)


def error_response(error: DimeeError) -> Response:
    """Return the response for an error, with ``Retry-After`` if the error has a retry time."""
    _sent[error.code, error.status] += 1
    return _response(error)


def _response(error: DimeeError) -> Response:
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return json_response(error.payload(), error.status, headers)


async def send_error(send: Send, error: DimeeError) -> None:
    """Send the response for an error.

    The messages of recent errors are cached: an overloaded tier sends the same refusal many times,
    and building it takes longer than sending it.
    """
    _sent[error.code, error.status] += 1
    make_error: Callable[..., DimeeError] = type(error)
    facts = (error.message, error.field, error.limit, error.retry_after_s)
    for message in _error_messages(make_error, *facts):
        await send(message)


@lru_cache(maxsize=256)
def _error_messages(
    make_error: Callable[..., DimeeError],
    message: str,
    field: str | None,
    limit: float | None,
    retry_after_s: float | None,
) -> tuple[Message, Message]:
    error = make_error(message, field=field, limit=limit, retry_after_s=retry_after_s)
    response = _response(error)
    return (
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        },
        {"type": "http.response.body", "body": response.body},
    )


def http_error_response(status: int, message: str, headers: Mapping[str, str] | None) -> Response:
    """Return the response for an error of HTTP itself, such as a wrong method."""
    _sent[HTTP_ERROR, status] += 1
    return json_response({"error": {"code": HTTP_ERROR, "message": message}}, status, headers)


def internal_error_response() -> Response:
    """Return the 500 response for an unexpected exception, without any detail."""
    _sent[DimeeError.code, 500] += 1
    return json_response(INTERNAL, 500)


def json_response(body: object, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Return ``body`` as a JSON response.

    The JSON is ASCII, because a message may contain characters that UTF-8 cannot encode.
    """
    content = json.dumps(body, ensure_ascii=True)
    return Response(content, status, headers, media_type="application/json")

"""JSON responses for errors."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from shared.errors import INTERNAL, DimeeError


def error_response(error: DimeeError) -> Response:
    """Return the response for an error, with ``Retry-After`` if the error has a retry time."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    return json_response(error.payload(), error.status, headers)


def internal_error_response() -> Response:
    """Return the 500 response for an unexpected exception, without any detail."""
    return json_response(INTERNAL, 500)


def json_response(body: object, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Return ``body`` as a JSON response.

    The JSON is ASCII, because a message may contain characters that UTF-8 cannot encode.
    """
    content = json.dumps(body, ensure_ascii=True)
    return Response(content, status, headers, media_type="application/json")

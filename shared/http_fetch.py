"""One HTTP exchange whose server may be any server: bounded, never decompressed, few exceptions."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic_core import from_json

from shared.errors import DimeeError

MAX_BYTES = 64 * 1024 * 1024
"""Largest body that is read; 1,000 requests of the ledger with all their entries fit in."""
_MAX_CHUNKS = 100_000
"""Largest number of pieces of a body: millions of chunks of one byte take minutes to read."""


def fetch(
    http: httpx.Client, method: str, url: str, *, max_bytes: int = MAX_BYTES, **options: Any
) -> httpx.Response:
    """Send a request and return its response with the whole body; ``options`` are httpx's.

    Raises `httpx.HTTPError` for every failure of the connection, the address and the body, whatever
    exception the libraries below raise. Redirects are not followed. With a `BoundedTransport` the
    client also bounds the head and the time.
    """
    try:
        request = http.build_request(method, url, **options)
        request.headers["accept-encoding"] = "identity"
        response = http.send(request, stream=True, follow_redirects=False)
        try:
            body = _body(response, max_bytes)
        finally:
            response.close()
    except (httpx.HTTPError, DimeeError):
        raise
    except Exception as failure:
        raise httpx.TransportError(str(failure) or type(failure).__name__) from failure
    return httpx.Response(
        response.status_code,
        headers={"content-type": response.headers.get("content-type", "")},
        content=body,
        request=request,
    )


def _body(response: httpx.Response, max_bytes: int) -> bytes:
    # a few kilobytes of a compressed body may expand to gigabytes
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx.DecodingError("the answer is compressed, which was not asked for")
    assert isinstance(response.stream, httpx.SyncByteStream)
    body = bytearray()
    for number, chunk in enumerate(response.stream, 1):
        body += chunk
        if len(body) > max_bytes or number > _MAX_CHUNKS:
            raise httpx.ReadError(f"the answer has more than {max_bytes:,} bytes")
    return bytes(body)


def json_of(response: httpx.Response) -> object:
    """Return the JSON value of a response; None if it is not JSON or too deeply nested."""
    return parse_json(response.content)


def parse_json(content: bytes) -> object:
    """Return the JSON value of an untrusted body; None if it is not JSON or too deeply nested."""
    try:
        value: object = from_json(content)
    except ValueError:
        return None
    return value

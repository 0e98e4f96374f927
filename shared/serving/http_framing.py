"""Framing of HTTP/1.1 requests (RFC 9112): where a head and a body end, and what is refused.

The HTTP parser of the server accepts more than the RFC allows and limits nothing. What two parsers
on a request's way could read differently is refused here, so that no body runs as a request.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from shared.errors import BadRequest, HeadTooLarge

HEAD_BYTES = 16 * 1024
"""Largest head of a request: request line and headers. Node.js has the same limit."""
HEADERS = 100
"""Most headers of a request; Apache httpd has the same limit."""
CHUNKS = 16_384
"""Most chunks of a body. A body of the largest size in chunks of 512 bytes is accepted."""
CHUNK_LINE_BYTES = 64
REMEMBERED_HEADS = 512
"""Checked heads that are kept in memory; with `REMEMBERED_HEAD_BYTES`, at most 1 MB."""
REMEMBERED_HEAD_BYTES = 1_024
LENGTH_DIGITS = 18
HEAD_END = b"\r\n\r\n"

_UPGRADE = re.compile(rb"\r\n(?:upgrade|http2-settings):[^\r\n]*", re.IGNORECASE)
_SPACE_AFTER_NAME = re.compile(rb"\r\n[^:\r\n]*[ \t]:")
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}(?=[ \t]*(?:;|\Z))")


class Head(NamedTuple):
    """A checked head; ``data`` is what the parser gets. ``body_bytes`` is None for chunks."""

    data: bytes
    body_bytes: int | None


def check_partial_head(data: bytes | bytearray, checked: int = 0) -> None:
    """Raise the error for the first bytes of a head that cannot become a valid one.

    ``checked`` is how many of them were checked before.
    """
    if len(data) > HEAD_BYTES:
        raise _too_large()
    if _BARE_LINE_END.search(data, max(0, checked - 1)):
        raise _bare_line_end()


def read_head(data: bytes) -> Head:
    """Return the head that ``data`` is, as `_read_head`; short ones are remembered.

    A client sends the same head again and again, but for the length of the body.
    """
    return _remembered_head(data) if len(data) <= REMEMBERED_HEAD_BYTES else _read_head(data)


def _read_head(data: bytes) -> Head:
    """Return the head that ``data`` is, without its offer to use another protocol.

    A server may ignore such an offer (RFC 9110, section 7.8). The HTTP parser would take the
    request for one without a body, and the body for the next request. Raises `HeadTooLarge` or
    `BadRequest`.
    """
    lines = data.count(b"\r\n")
    if len(data) > HEAD_BYTES or lines > HEADERS + 2:
        raise _too_large()
    if data.count(b"\n") != lines or data.count(b"\r") != lines:
        raise _bare_line_end()
    if _has_space_at_name(data):
        raise BadRequest("a header's name has a space before or after it; send it without")
    if data.startswith(b"CONNECT "):
        raise BadRequest("this service is no proxy; send GET, HEAD or POST")
    lower = data.lower()
    lengths = _values(lower, b"\r\ncontent-length:")
    codings = _values(lower, b"\r\ntransfer-encoding:")
    if b"\r\nupgrade:" in lower:
        data = _UPGRADE.sub(b"", data)
    if codings:
        _check_chunked(lower, lengths, codings)
        return Head(data, None)
    if not lengths:
        return Head(data, 0)
    if len(lengths) > 1:
        raise BadRequest("content-length: is given more than once")
    if not lengths[0].isdigit() or len(lengths[0]) > LENGTH_DIGITS:
        raise BadRequest("content-length: must be one number of bytes")
    return Head(data, int(lengths[0]))


_remembered_head = lru_cache(REMEMBERED_HEADS)(_read_head)


def _has_space_at_name(data: bytes) -> bool:
    if b"\r\n " in data or b"\r\n\t" in data:
        return True
    # most heads have none of these, which is found faster than that no name has one
    return (b" :" in data or b"\t:" in data) and _SPACE_AFTER_NAME.search(data) is not None


def _values(lower: bytes, name: bytes) -> list[bytes]:
    """Return the values of every header that begins with ``name``, a line end and the name."""
    if name not in lower:
        return []
    return [rest.partition(b"\r\n")[0].strip(b" \t") for rest in lower.split(name)[1:]]


def _check_chunked(lower: bytes, lengths: list[bytes], codings: list[bytes]) -> None:
    """Raise `BadRequest` unless the body has chunks, and nothing else tells its length."""
    if codings != [b"chunked"]:
        raise BadRequest("transfer-encoding: only chunked is supported, once")
    if lengths:
        raise BadRequest("content-length and transfer-encoding are both given; send one")
    if not lower.partition(b"\r\n")[0].endswith(b" http/1.1"):
        raise BadRequest("transfer-encoding: needs HTTP/1.1")


class ChunkedBody:
    """Finds the end of a chunked body in the bytes of a connection."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._skip = 0
        self._chunks = 0
        self._last = False
        self.complete = False

    def feed(self, data: bytes) -> int:
        """Return how many bytes of ``data`` belong to the body; raise `BadRequest`."""
        position = 0
        while position < len(data) and not self.complete:
            if self._skip:
                skipped = min(self._skip, len(data) - position)
                self._skip -= skipped
                position += skipped
                continue
            end = data.find(b"\n", position, position + CHUNK_LINE_BYTES)
            stop = len(data) if end < 0 else end + 1
            self._line += data[position:stop]
            position = stop
            if len(self._line) > CHUNK_LINE_BYTES:
                raise BadRequest("a chunk's size line is too long")
            if end >= 0:
                self._end_line(bytes(self._line))
                self._line.clear()
        return position

    def _end_line(self, line: bytes) -> None:
        """Handle a chunk's size, or the empty line after the last chunk."""
        if not line.endswith(b"\r\n") or line.count(b"\r") != 1:
            raise _bare_line_end()
        if self._last:
            if line != b"\r\n":
                raise BadRequest("trailers after the last chunk are not supported")
            self.complete = True
            return
        match = _CHUNK_SIZE.match(line[:-2])
        if match is None:
            raise BadRequest("a chunk's size must be a hexadecimal number")
        self._chunks += 1
        if self._chunks > CHUNKS:
            raise BadRequest(f"the body has more than {CHUNKS:,} chunks; send larger ones")
        size = int(match[0], 16)
        self._last = size == 0
        self._skip = size + 2 if size else 0


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"the headers are larger than {HEAD_BYTES:,} bytes or more than {HEADERS}",
        limit=HEAD_BYTES,
    )


def _bare_line_end() -> BadRequest:
    return BadRequest("lines must end with CR LF")
